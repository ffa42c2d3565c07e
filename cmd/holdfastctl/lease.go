package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Answers about leases have no protobuf form in etcdctl.
var leaseForms = []string{formSimple, formFields, formJSON}

func (c *ctl) leaseCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "lease <subcommand>", Short: "Lease related commands"}
	cmd.AddCommand(c.leaseGrantCommand(), c.leaseRevokeCommand(), c.leaseTimeToLiveCommand(), c.leaseListCommand(), c.leaseKeepAliveCommand())
	return cmd
}

func (c *ctl) leaseGrantCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "grant <ttl>",
		Short: "Creates leases",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("lease grant command needs TTL argument")
			}
			ttl, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return badArguments("bad TTL (%w), expecting seconds", err)
			}
			if err := c.needForm(leaseForms...); err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c, func(ctx context.Context, cl *client.Client) (*pb.LeaseGrantResponse, error) {
				return wrapped(cl.Grant(ctx, ttl, 0))("failed to grant lease (%w)")
			})
			if err != nil {
				return err
			}
			return c.print(answer{
				simple: func(p *page) { p.printf("lease %016x granted with TTL(%ds)\n", r.ID, r.TTL) },
				fields: func(p *page) { p.ttlFields(r.Header, r.ID, r.TTL) },
				json: struct {
					*pb.ResponseHeader
					ID, TTL int64
					Error   string
				}{r.Header, r.ID, r.TTL, r.Error},
			})
		},
	}
}

// wrapped puts an error into a sentence.
func wrapped[T any](answer T, err error) func(format string) (T, error) {
	return func(format string) (T, error) {
		if err != nil {
			err = fmt.Errorf(format, err)
		}
		return answer, err
	}
}

func (p *page) ttlFields(h *pb.ResponseHeader, id, ttl int64) {
	p.headerFields(h)
	p.lease("ID", id)
	p.field("TTL", ttl)
}

func (c *ctl) leaseRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke <leaseID>",
		Short: "Revokes leases",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("lease revoke command needs 1 argument")
			}
			id, err := leaseID(args[0])
			if err != nil {
				return err
			}
			if err := c.needForm(requestForms...); err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c, func(ctx context.Context, cl *client.Client) (*pb.LeaseRevokeResponse, error) {
				return wrapped(cl.Revoke(ctx, id))("failed to revoke lease (%w)")
			})
			if err != nil {
				return err
			}
			return c.print(answer{
				simple: func(p *page) { p.printf("lease %016x revoked\n", id) },
				fields: func(p *page) { p.headerFields(r.Header) },
				json:   r, proto: r,
			})
		},
	}
}

func (c *ctl) leaseTimeToLiveCommand() *cobra.Command {
	var keys bool
	cmd := &cobra.Command{
		Use:   "timetolive <leaseID> [options]",
		Short: "Get lease information",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("lease timetolive command needs lease ID as argument")
			}
			id, err := leaseID(args[0])
			if err != nil {
				return err
			}
			if err := c.needForm(leaseForms...); err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c, func(ctx context.Context, cl *client.Client) (*pb.LeaseTimeToLiveResponse, error) {
				return cl.TimeToLive(ctx, id, keys)
			})
			if err != nil {
				return recode(err, exitConnection)
			}
			return c.print(timeToLiveAnswer(r, keys))
		},
	}
	cmd.Flags().BoolVar(&keys, "keys", false, "print also the keys attached to this lease")
	return cmd
}

// recode gives an error another exit code, where etcdctl has one.
func recode(err error, code int) error {
	var e *exitError
	if errors.As(err, &e) && e.code == exitFailed {
		return &exitError{code, e.err}
	}
	return err
}

func timeToLiveAnswer(r *pb.LeaseTimeToLiveResponse, keys bool) answer {
	return answer{
		simple: func(p *page) {
			if r.GrantedTTL == 0 && r.TTL == -1 {
				p.printf("lease %016x already expired\n", r.ID)
				return
			}
			p.printf("lease %016x granted with TTL(%ds), remaining(%ds)", r.ID, r.GrantedTTL, r.TTL)
			if keys {
				names := make([]string, len(r.Keys))
				for i, k := range r.Keys {
					names[i] = string(k)
				}
				p.printf(", attached keys(%v)", names)
			}
			p.line()
		},
		fields: func(p *page) {
			p.ttlFields(r.Header, r.ID, r.TTL)
			p.field("GrantedTTL", r.GrantedTTL)
			for _, k := range r.Keys {
				p.quoted("Key", string(k))
			}
		},
		json: struct {
			*pb.ResponseHeader
			ID         int64    `json:"id"`
			TTL        int64    `json:"ttl"`
			GrantedTTL int64    `json:"granted-ttl"`
			Keys       [][]byte `json:"keys"`
		}{r.Header, r.ID, r.TTL, r.GrantedTTL, r.Keys},
	}
}

func (c *ctl) leaseListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List all active leases",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.needForm(leaseForms...); err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c, func(ctx context.Context, cl *client.Client) (*pb.LeaseLeasesResponse, error) {
				return cl.Leases(ctx)
			})
			if err != nil {
				return recode(err, exitConnection)
			}
			return c.print(leaseListAnswer(r))
		},
	}
}

func leaseListAnswer(r *pb.LeaseLeasesResponse) answer {
	type leaseJSON struct {
		ID int64 `json:"id"`
	}
	list := make([]leaseJSON, len(r.Leases))
	for i, l := range r.Leases {
		list[i].ID = l.ID
	}
	return answer{
		simple: func(p *page) {
			p.printf("found %d leases\n", len(r.Leases))
			for _, l := range r.Leases {
				p.printf("%016x\n", l.ID)
			}
		},
		fields: func(p *page) {
			p.headerFields(r.Header)
			for _, l := range r.Leases {
				p.lease("ID", l.ID)
			}
		},
		json: struct {
			*pb.ResponseHeader
			Leases []leaseJSON `json:"leases"`
		}{r.Header, list},
	}
}

func (c *ctl) leaseKeepAliveCommand() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:   "keep-alive [options] <leaseID>",
		Short: "Keeps leases alive (renew)",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("lease keep-alive command needs lease ID as argument")
			}
			id, err := leaseID(args[0])
			if err != nil {
				return err
			}
			if err := c.needForm(leaseForms...); err != nil {
				return err
			}
			if once {
				r, err := ask(cmd.Context(), c, func(ctx context.Context, cl *client.Client) (*pb.LeaseKeepAliveResponse, error) {
					return cl.KeepAliveOnce(ctx, id)
				})
				if err != nil {
					return recode(err, exitConnection)
				}
				return c.print(keepAliveAnswer(r))
			}
			return c.keepAlive(cmd.Context(), id)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "renew once and exit")
	return cmd
}

// keepAlive renews a lease until it is gone or the user ends it.
func (c *ctl) keepAlive(ctx context.Context, id int64) error {
	cl, err := c.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	defer c.tellUnreached(ctx, cl)()
	k := cl.KeepAlive(ctx, id)
	defer k.Stop()
	for r := range k.Renewals() {
		if err := c.print(keepAliveAnswer(r)); err != nil {
			return err
		}
	}
	switch err := k.Err(); {
	case errors.Is(err, client.ErrLeaseNotFound):
		if c.globals.form == formSimple {
			fmt.Fprintf(c.out, "lease %016x expired or revoked.\n", id)
		}
		return nil
	case err != nil:
		return exit(exitConnection, err)
	}
	return nil
}

func keepAliveAnswer(r *pb.LeaseKeepAliveResponse) answer {
	return answer{
		simple: func(p *page) { p.printf("lease %016x keepalived with TTL(%d)\n", r.ID, r.TTL) },
		fields: func(p *page) { p.ttlFields(r.Header, r.ID, r.TTL) },
		json: struct {
			*pb.ResponseHeader
			ID, TTL int64
		}{r.Header, r.ID, r.TTL},
	}
}
