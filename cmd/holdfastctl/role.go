package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/proto/authpb"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

func (c *ctl) roleCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "role <subcommand>", Short: "Role related commands"}
	cmd.AddCommand(
		&cobra.Command{Use: "add <role name>", Short: "Adds a new role", RunE: func(cmd *cobra.Command, args []string) error {
			return c.roleAdd(cmd.Context(), args)
		}},
		&cobra.Command{Use: "delete <role name>", Short: "Deletes a role", RunE: func(cmd *cobra.Command, args []string) error {
			return c.roleDelete(cmd.Context(), args)
		}},
		&cobra.Command{Use: "get <role name>", Short: "Gets detailed information of a role", RunE: func(cmd *cobra.Command, args []string) error {
			return c.roleGet(cmd.Context(), args)
		}},
		&cobra.Command{Use: "list", Short: "Lists all roles", RunE: func(cmd *cobra.Command, args []string) error {
			return c.roleList(cmd.Context(), args)
		}},
		c.roleGrantCommand(), c.roleRevokeCommand(),
	)
	return cmd
}

func (c *ctl) roleAdd(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return badArguments("role add command requires role name as its argument")
	}
	return change(ctx, c, fmt.Sprintf("Role %s created", args[0]), func(ctx context.Context, cl *client.Client) (*pb.AuthRoleAddResponse, error) {
		return cl.RoleAdd(ctx, args[0])
	})
}

func (c *ctl) roleDelete(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return badArguments("role delete command requires role name as its argument")
	}
	return change(ctx, c, fmt.Sprintf("Role %s deleted", args[0]), func(ctx context.Context, cl *client.Client) (*pb.AuthRoleDeleteResponse, error) {
		return cl.RoleDelete(ctx, args[0])
	})
}

func (c *ctl) roleGet(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return badArguments("role get command requires role name as its argument")
	}
	if err := c.needForm(requestForms...); err != nil {
		return err
	}
	r, err := ask(ctx, c, func(ctx context.Context, cl *client.Client) (*pb.AuthRoleGetResponse, error) {
		return cl.RoleGet(ctx, args[0])
	})
	if err != nil {
		return err
	}
	return c.print(roleAnswer(args[0], r))
}

func roleAnswer(name string, r *pb.AuthRoleGetResponse) answer {
	return answer{
		simple: func(p *page) {
			p.line("Role", name)
			p.line("KV Read:")
			p.permissions(r.Perm, authpb.Permission_READ)
			p.line("KV Write:")
			p.permissions(r.Perm, authpb.Permission_WRITE)
		},
		fields: func(p *page) {
			p.headerFields(r.Header)
			for _, perm := range r.Perm {
				p.line(`"PermType" : `, perm.PermType)
				p.quoted("Key", string(perm.Key))
				p.quoted("RangeEnd", string(perm.RangeEnd))
			}
		},
		json: r, proto: r,
	}
}

// permissions prints those of a kind.
func (p *page) permissions(list []*authpb.Permission, kind authpb.Permission_Type) {
	for _, perm := range list {
		if perm.PermType != kind && perm.PermType != authpb.Permission_READWRITE {
			continue
		}
		key, end := string(perm.Key), string(perm.RangeEnd)
		if end == "" {
			p.printf("\t%s\n", key)
			continue
		}
		p.printf("\t%s", rangeText(key, end))
		if client.Prefix(key).End == end && key != "" {
			p.printf(" (prefix %s)", key)
		}
		p.line()
	}
}

func rangeText(key, end string) string {
	if end == "\x00" {
		return fmt.Sprintf("[%s, <open ended>", key)
	}
	return fmt.Sprintf("[%s, %s)", key, end)
}

func (c *ctl) roleList(ctx context.Context, args []string) error {
	if len(args) != 0 {
		return badArguments("role list command requires no arguments")
	}
	if err := c.needForm(requestForms...); err != nil {
		return err
	}
	r, err := ask(ctx, c, func(ctx context.Context, cl *client.Client) (*pb.AuthRoleListResponse, error) {
		return cl.RoleList(ctx)
	})
	if err != nil {
		return err
	}
	return c.print(listAnswer("Roles", r.Roles, r))
}

// rangeFlags say which keys a permission is for.
type rangeFlags struct{ prefix, fromKey bool }

func (f *rangeFlags) declare(fs *pflag.FlagSet, verb string) {
	fs.BoolVar(&f.prefix, "prefix", false, verb+" a prefix permission")
	fs.BoolVar(&f.fromKey, "from-key", false, verb+" a permission of all keys from the given one on")
}

// of is the range that a key, perhaps an end, and the flags mean. No key at all
// is every key there is.
func (f *rangeFlags) of(args []string) (client.Range, error) {
	r := client.Range{Key: args[0]}
	if f.prefix && f.fromKey {
		return r, badArguments("--from-key and --prefix flags are mutually exclusive")
	}
	if len(args) > 1 {
		for flag, set := range map[string]bool{"--prefix": f.prefix, "--from-key": f.fromKey} {
			if set {
				return r, badArguments("unexpected endkey argument with %s flag", flag)
			}
		}
		r.End = args[1]
	}
	switch {
	case r.Key == "" && (f.prefix || f.fromKey):
		return client.Range{Key: "\x00", End: "\x00"}, nil
	case r.Key == "":
		r.Key = "\x00"
	case f.prefix:
		return client.Prefix(r.Key), nil
	case f.fromKey:
		return client.From(r.Key), nil
	}
	return r, nil
}

func (c *ctl) roleGrantCommand() *cobra.Command {
	var f rangeFlags
	cmd := &cobra.Command{
		Use:   "grant-permission [options] <role name> <permission type> <key> [endkey]",
		Short: "Grants a key to a role",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < 3 {
				return badArguments("role grant command requires role name, permission type, and key [endkey] as its argument")
			}
			kind, ok := authpb.Permission_Type_value[strings.ToUpper(args[1])]
			if !ok {
				return badArguments("invalid permission type %q: use read, write or readwrite", args[1])
			}
			keys, err := f.of(args[2:])
			if err != nil {
				return err
			}
			return change(cmd.Context(), c, fmt.Sprintf("Role %s updated", args[0]), func(ctx context.Context, cl *client.Client) (*pb.AuthRoleGrantPermissionResponse, error) {
				return cl.RoleGrant(ctx, args[0], keys, authpb.Permission_Type(kind))
			})
		},
	}
	f.declare(cmd.Flags(), "grant")
	return cmd
}

func (c *ctl) roleRevokeCommand() *cobra.Command {
	var f rangeFlags
	cmd := &cobra.Command{
		Use:   "revoke-permission <role name> <key> [endkey]",
		Short: "Revokes a key from a role",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return badArguments("role revoke-permission command requires role name and key [endkey] as its argument")
			}
			keys, err := f.of(args[1:])
			if err != nil {
				return err
			}
			done := fmt.Sprintf("Permission of key %s is revoked from role %s", keys.Key, args[0])
			if keys.End != "" {
				done = fmt.Sprintf("Permission of range %s is revoked from role %s", rangeText(keys.Key, keys.End), args[0])
			}
			return change(cmd.Context(), c, done, func(ctx context.Context, cl *client.Client) (*pb.AuthRoleRevokePermissionResponse, error) {
				return cl.RoleRevoke(ctx, args[0], keys)
			})
		},
	}
	f.declare(cmd.Flags(), "revoke")
	return cmd
}
