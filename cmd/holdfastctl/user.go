package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

func (c *ctl) userCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "user <subcommand>", Short: "User related commands"}
	cmd.AddCommand(
		c.userAddCommand(), c.userGetCommand(), c.userPasswordCommand(),
		&cobra.Command{Use: "delete <user name>", Short: "Deletes a user", RunE: func(cmd *cobra.Command, args []string) error {
			return c.userDelete(cmd.Context(), args)
		}},
		&cobra.Command{Use: "list", Short: "Lists all users", RunE: func(cmd *cobra.Command, args []string) error {
			return c.userList(cmd.Context(), args)
		}},
		&cobra.Command{Use: "grant-role <user name> <role name>", Short: "Grants a role to a user", RunE: func(cmd *cobra.Command, args []string) error {
			return c.userGrantRole(cmd.Context(), args)
		}},
		&cobra.Command{Use: "revoke-role <user name> <role name>", Short: "Revokes a role from a user", RunE: func(cmd *cobra.Command, args []string) error {
			return c.userRevokeRole(cmd.Context(), args)
		}},
	)
	return cmd
}

// headed is an answer that may have nothing but a header.
type headed interface {
	message
	GetHeader() *pb.ResponseHeader
}

// change makes a call and prints what was done.
func change[T headed](ctx context.Context, c *ctl, done string, call func(context.Context, *client.Client) (T, error)) error {
	if err := c.needForm(requestForms...); err != nil {
		return err
	}
	r, err := ask(ctx, c, call)
	if err != nil {
		return err
	}
	return c.print(answer{
		simple: func(p *page) { p.line(done) },
		fields: func(p *page) { p.headerFields(r.GetHeader()) },
		json:   r, proto: r,
	})
}

func (c *ctl) userAddCommand() *cobra.Command {
	var u client.NewUser
	var interactive bool
	cmd := &cobra.Command{
		Use:   "add <user name or user:password> [options]",
		Short: "Adds a new user",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("user add command requires user name as its argument")
			}
			if err := c.needForm(requestForms...); err != nil { // Before anybody types a password.
				return err
			}
			if err := c.nameAndPassword(&u, args[0], interactive); err != nil {
				return err
			}
			return change(cmd.Context(), c, fmt.Sprintf("User %s created", u.Name), func(ctx context.Context, cl *client.Client) (*pb.AuthUserAddResponse, error) {
				return cl.UserAdd(ctx, u)
			})
		},
	}
	cmd.Flags().BoolVar(&interactive, "interactive", true, "ask for the password twice at the terminal; false: read it from standard input once")
	cmd.Flags().StringVar(&u.Password, "new-user-password", "", "the password; others on this machine can see it while the command runs")
	cmd.Flags().BoolVar(&u.NoPassword, "no-password", false, "create a user without password, who comes in by the common name of a certificate only")
	return cmd
}

func (c *ctl) nameAndPassword(u *client.NewUser, arg string, interactive bool) (err error) {
	u.Name = arg
	if u.NoPassword || u.Password != "" {
		return nil
	}
	if name, password, given := strings.Cut(arg, ":"); given {
		if name == "" {
			return badArguments("empty user name is not allowed")
		}
		u.Name, u.Password = name, password
		return nil
	}
	if interactive {
		u.Password, err = c.newPassword(arg)
	} else {
		u.Password, err = c.readLine()
	}
	return err
}

func (c *ctl) userPasswordCommand() *cobra.Command {
	var interactive bool
	cmd := &cobra.Command{
		Use:   "passwd <user name> [options]",
		Short: "Changes password of user",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if len(args) != 1 {
				return badArguments("user passwd command requires user name as its argument")
			}
			if err := c.needForm(requestForms...); err != nil {
				return err
			}
			var password string
			if interactive {
				password, err = c.newPassword(args[0])
			} else {
				password, err = c.readLine()
			}
			if err != nil {
				return err
			}
			return change(cmd.Context(), c, "Password updated", func(ctx context.Context, cl *client.Client) (*pb.AuthUserChangePasswordResponse, error) {
				return cl.UserPassword(ctx, args[0], password)
			})
		},
	}
	cmd.Flags().BoolVar(&interactive, "interactive", true, "ask for the password twice at the terminal; false: read it from standard input once")
	return cmd
}

func (c *ctl) userDelete(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return badArguments("user delete command requires user name as its argument")
	}
	return change(ctx, c, fmt.Sprintf("User %s deleted", args[0]), func(ctx context.Context, cl *client.Client) (*pb.AuthUserDeleteResponse, error) {
		return cl.UserDelete(ctx, args[0])
	})
}

func (c *ctl) userGetCommand() *cobra.Command {
	var detail bool
	cmd := &cobra.Command{
		Use:   "get <user name> [options]",
		Short: "Gets detailed information of a user",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("user get command requires user name as its argument")
			}
			if err := c.needForm(requestForms...); err != nil {
				return err
			}
			if detail {
				return c.userDetail(cmd.Context(), args[0])
			}
			r, err := ask(cmd.Context(), c, func(ctx context.Context, cl *client.Client) (*pb.AuthUserGetResponse, error) {
				return cl.UserGet(ctx, args[0])
			})
			if err != nil {
				return err
			}
			return c.print(userAnswer(args[0], r))
		},
	}
	cmd.Flags().BoolVar(&detail, "detail", false, "show what the roles of the user permit")
	return cmd
}

func userAnswer(name string, r *pb.AuthUserGetResponse) answer {
	return answer{
		simple: func(p *page) {
			p.printf("User: %s\nRoles:", name)
			for _, role := range r.Roles {
				p.printf(" %s", role)
			}
			p.line()
		},
		fields: func(p *page) {
			p.headerFields(r.Header)
			p.names("Roles", r.Roles)
		},
		json: r, proto: r,
	}
}

// names prints a list in one line.
func (p *page) names(what string, list []string) {
	p.printf("%q :", what)
	for _, name := range list {
		p.printf(" %q", name)
	}
	p.line()
}

func (c *ctl) userDetail(ctx context.Context, name string) error {
	roles, err := ask(ctx, c, func(ctx context.Context, cl *client.Client) ([]answer, error) {
		user, err := cl.UserGet(ctx, name)
		if err != nil {
			return nil, err
		}
		var roles []answer
		for _, role := range user.Roles {
			r, err := cl.RoleGet(ctx, role)
			if err != nil {
				return nil, fmt.Errorf("role %s: %w", role, err)
			}
			roles = append(roles, roleAnswer(role, r))
		}
		return roles, nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "User: %s\n", name)
	for _, r := range roles {
		fmt.Fprintln(c.out)
		if err := c.print(r); err != nil {
			return err
		}
	}
	return nil
}

func (c *ctl) userList(ctx context.Context, args []string) error {
	if len(args) != 0 {
		return badArguments("user list command requires no arguments")
	}
	if err := c.needForm(requestForms...); err != nil {
		return err
	}
	r, err := ask(ctx, c, func(ctx context.Context, cl *client.Client) (*pb.AuthUserListResponse, error) {
		return cl.UserList(ctx)
	})
	if err != nil {
		return err
	}
	return c.print(listAnswer("Users", r.Users, r))
}

func listAnswer(what string, names []string, r headed) answer {
	return answer{
		simple: func(p *page) {
			for _, name := range names {
				p.line(name)
			}
		},
		fields: func(p *page) {
			p.headerFields(r.GetHeader())
			p.names(what, names)
		},
		json: r, proto: r,
	}
}

func (c *ctl) userGrantRole(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return badArguments("user grant command requires user name and role name as its argument")
	}
	return change(ctx, c, fmt.Sprintf("Role %s is granted to user %s", args[1], args[0]), func(ctx context.Context, cl *client.Client) (*pb.AuthUserGrantRoleResponse, error) {
		return cl.UserGrantRole(ctx, args[0], args[1])
	})
}

func (c *ctl) userRevokeRole(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return badArguments("user revoke-role requires user name and role name as its argument")
	}
	return change(ctx, c, fmt.Sprintf("Role %s is revoked from user %s", args[1], args[0]), func(ctx context.Context, cl *client.Client) (*pb.AuthUserRevokeRoleResponse, error) {
		return cl.UserRevokeRole(ctx, args[0], args[1])
	})
}
