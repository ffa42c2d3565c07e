package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/token"
	"github.com/holdfast-db/holdfast/pki"
)

func (c *ctl) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token <subcommand>",
		Short: "Join tokens: what a machine shows to become a node",
		Long: `Join tokens: what a machine shows to become a node. A token is good for one node
and one day unless it is made otherwise. It names the authority by its hash, so that
a machine knows the right cluster before it sends anything. It is printed once: the
store keeps a hash of it.
`,
	}
	cmd.AddCommand(c.tokenListCommand())
	cmd.AddCommand(c.textOnly(c.tokenCreateCommand(), c.tokenRevokeCommand())...)
	return cmd
}

// askTokens makes one call with the tokens of the store.
func askTokens[T any](cmd *cobra.Command, c *ctl, call func(context.Context, *token.Store) (T, error)) (T, error) {
	answer, err := ask(cmd.Context(), c, func(ctx context.Context, cl *client.Client) (T, error) {
		return call(ctx, token.New(token.Config{Client: cl, Clock: clock.Real()}))
	})
	if errors.Is(err, token.ErrRequest) || errors.Is(err, token.ErrFormat) || errors.Is(err, pki.ErrRequest) {
		return answer, exit(exitArguments, err)
	}
	return answer, err
}

func (c *ctl) tokenCreateCommand() *cobra.Command {
	var req token.Request
	var dir string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Makes a token and prints it",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArguments("token create takes no arguments: the node's name goes in --node")
			}
			var err error
			if req.Authority, err = authorityHash(dir); err != nil {
				return exit(exitFailed, err)
			}
			made, err := askTokens(cmd, c, func(ctx context.Context, s *token.Store) (token.Token, error) {
				t, _, err := s.Create(ctx, req)
				return t, err
			})
			if err != nil {
				return err
			}
			fmt.Fprintln(c.out, made.Text())
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&dir, "dir", ".", "folder of ca.pem, the authority of the cluster")
	fs.DurationVar(&req.Life, "ttl", 24*time.Hour, "how long it can be used")
	fs.IntVar(&req.Uses, "uses", 1, "how many nodes it lets in")
	fs.StringVar(&req.Node, "node", "", "the only node that it is for")
	fs.StringVar(&req.Description, "description", "", "for people")
	return cmd
}

// authorityHash is of the one that signs: the first of ca.pem.
func authorityHash(dir string) (hash [sha256.Size]byte, err error) {
	data, err := pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: dir}.Trusted()
	if err != nil {
		return hash, fmt.Errorf("%w; name the folder of ca.pem with --dir", err)
	}
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return hash, err
	}
	if !cert.IsCA {
		return hash, fmt.Errorf("%s: %w", filepath.Join(dir, "ca.pem"), pki.ErrNotAuthority)
	}
	return sha256.Sum256(cert.Raw), nil
}

func (c *ctl) tokenListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Lists tokens, without their secrets",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArguments("token list takes no arguments")
			}
			if err := c.needForm(formSimple, formTable, formJSON); err != nil {
				return err
			}
			records, err := askTokens(cmd, c, func(ctx context.Context, s *token.Store) ([]*token.Record, error) { return s.List(ctx) })
			if err != nil {
				return err
			}
			table := &grid{head: []string{"id", "expires", "uses left", "node", "used by", "description"}}
			for _, r := range records {
				var by []string
				for _, u := range r.Used {
					by = append(by, u.Node)
				}
				table.add(r.ID, r.Expires.Format(time.RFC3339), strconv.Itoa(r.Uses-len(r.Used)), r.Node, strings.Join(by, " "), r.Description)
			}
			return c.print(answer{table: table, json: records})
		},
	}
}

func (c *ctl) tokenRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke <id>",
		Short: "Ends a token; nodes that it let in stay",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("token revoke needs one argument, the ID: see 'token list'")
			}
			id := args[0]
			if t, err := token.Parse(id); err == nil {
				id = t.ID
			}
			if _, err := askTokens(cmd, c, func(ctx context.Context, s *token.Store) (struct{}, error) { return struct{}{}, s.Revoke(ctx, id) }); err != nil {
				return err
			}
			fmt.Fprintf(c.out, "token %s revoked\n", id)
			return nil
		},
	}
}
