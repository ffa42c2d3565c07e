package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

func (c *ctl) alarmCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "alarm <subcommand>", Short: "Alarm related commands"}
	cmd.AddCommand(c.alarmListCommand(), c.alarmDisarmCommand())
	return cmd
}

func (c *ctl) alarmListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Lists all alarms",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.alarms(cmd.Context(), "list", args, func(ctx context.Context, cl *client.Client) (*pb.AlarmResponse, error) {
				return cl.Alarms(ctx)
			})
		},
	}
}

func (c *ctl) alarmDisarmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "disarm",
		Short: "Disarms all alarms",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.alarms(cmd.Context(), "disarm", args, disarmAll)
		},
	}
}

// disarmAll turns off every alarm that is on, and answers with them.
func disarmAll(ctx context.Context, cl *client.Client) (*pb.AlarmResponse, error) {
	on, err := cl.Alarms(ctx)
	if err != nil {
		return nil, err
	}
	all := &pb.AlarmResponse{Header: on.Header}
	for _, a := range on.Alarms {
		r, err := cl.DisarmAlarm(ctx, a.MemberID, a.Alarm)
		if err != nil {
			return nil, err
		}
		all.Header, all.Alarms = r.Header, append(all.Alarms, r.Alarms...)
	}
	return all, nil
}

func (c *ctl) alarms(ctx context.Context, what string, args []string, call func(context.Context, *client.Client) (*pb.AlarmResponse, error)) error {
	if len(args) > 0 {
		return badArguments("alarm %s command accepts no arguments", what)
	}
	if err := c.needForm(requestForms...); err != nil {
		return err
	}
	r, err := ask(ctx, c, call)
	if err != nil {
		return err
	}
	if c.is(etcdctl) && what == "disarm" {
		r.Header = nil // That program gives none.
	}
	return c.print(answer{
		simple: func(p *page) {
			for _, a := range r.Alarms {
				p.printf("memberID:%d alarm:%s\n", a.MemberID, a.Alarm)
			}
		},
		fields: func(p *page) {
			p.headerFields(r.Header)
			for _, a := range r.Alarms {
				p.id("MemberID", a.MemberID)
				p.field("AlarmType", a.Alarm)
				p.line()
			}
		},
		json: r, proto: r,
	})
}
