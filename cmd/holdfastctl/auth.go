package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

func (c *ctl) authCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "auth <enable or disable>", Short: "Enable or disable authentication"}
	cmd.AddCommand(
		&cobra.Command{Use: "enable", Short: "Enables authentication", RunE: func(cmd *cobra.Command, args []string) error {
			return c.switchAuth(cmd.Context(), args, "enable", "Authentication Enabled", enableAuth)
		}},
		&cobra.Command{Use: "disable", Short: "Disables authentication", RunE: func(cmd *cobra.Command, args []string) error {
			return c.switchAuth(cmd.Context(), args, "disable", "Authentication Disabled", func(ctx context.Context, cl *client.Client) (message, error) {
				return cl.AuthDisable(ctx)
			})
		}},
		&cobra.Command{Use: "status", Short: "Returns authentication status", RunE: func(cmd *cobra.Command, args []string) error {
			return c.authStatus(cmd.Context(), args)
		}},
	)
	return cmd
}

// switchAuth prints the same words in all forms, as etcdctl does.
func (c *ctl) switchAuth(ctx context.Context, args []string, verb, done string, call func(context.Context, *client.Client) (message, error)) error {
	if len(args) != 0 {
		return badArguments("auth %s command does not accept any arguments", verb)
	}
	if _, err := ask(ctx, c, call); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(c.out, done); err != nil {
		return exit(exitFailed, fmt.Errorf("write the answer: %w", err))
	}
	return nil
}

// enableAuth gives the role root to the user root if that alone is missing.
func enableAuth(ctx context.Context, cl *client.Client) (message, error) {
	r, err := cl.AuthEnable(ctx)
	if !errors.Is(err, client.ErrRootRole) {
		return r, err
	}
	if _, err := cl.RoleAdd(ctx, "root"); err != nil && !errors.Is(err, client.ErrRoleExists) {
		return nil, err
	}
	if _, err := cl.UserGrantRole(ctx, "root", "root"); err != nil {
		return nil, err
	}
	return cl.AuthEnable(ctx)
}

func (c *ctl) authStatus(ctx context.Context, args []string) error {
	if len(args) != 0 {
		return badArguments("auth status command does not accept any arguments")
	}
	if err := c.needForm(requestForms...); err != nil {
		return err
	}
	r, err := ask(ctx, c, func(ctx context.Context, cl *client.Client) (*pb.AuthStatusResponse, error) {
		return cl.AuthStatus(ctx)
	})
	if err != nil {
		return err
	}
	return c.print(answer{
		simple: func(p *page) {
			p.line("Authentication Status:", r.Enabled)
			p.line("AuthRevision:", r.AuthRevision)
		},
		fields: func(p *page) {
			p.headerFields(r.Header)
			p.field("Enabled", r.Enabled)
			p.field("AuthRevision", r.AuthRevision)
		},
		json: r, proto: r,
	})
}

// askPassword reads a password without showing it, or a line where nobody sits
// at a terminal.
func (c *ctl) askPassword(prompt string) (string, error) {
	fmt.Fprint(c.err, prompt)
	if f, ok := c.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		password, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(c.err)
		if err != nil {
			return "", badArguments("failed to ask password: %w", err)
		}
		return string(password), nil
	}
	return c.readLine()
}

// readLine reads one line, and nothing behind it: what follows may be a second
// password, or the input of the command.
func (c *ctl) readLine() (string, error) {
	if c.lines == nil {
		c.lines = bufio.NewReader(c.in)
		c.in = c.lines
	}
	line, err := c.lines.ReadString('\n')
	if err != nil && !(errors.Is(err, io.EOF) && line != "") {
		return "", badArguments("failed to ask password: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// newPassword asks twice, so that a slip of the finger locks nobody out.
func (c *ctl) newPassword(user string) (string, error) {
	first, err := c.askPassword(fmt.Sprintf("Password of %s: ", user))
	if err != nil {
		return "", err
	}
	if first == "" {
		return "", badArguments("empty password")
	}
	second, err := c.askPassword(fmt.Sprintf("Type password of %s again for confirmation: ", user))
	if err != nil {
		return "", err
	}
	if first != second {
		return "", badArguments("given passwords are different")
	}
	return first, nil
}
