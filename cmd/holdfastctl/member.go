package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Answers to changes have no fields in etcdctl.
var memberChangeForms = []string{formSimple, formJSON, formProtobuf}

func (c *ctl) memberCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "member <subcommand>", Short: "Membership related commands"}
	cmd.AddCommand(c.memberAddCommand(), c.memberRemoveCommand(), c.memberUpdateCommand(), c.memberListCommand(), c.memberPromoteCommand())
	return cmd
}

func (c *ctl) memberAddCommand() *cobra.Command {
	var peerURLs string
	var learner bool
	cmd := &cobra.Command{
		Use:   "add <memberName> [options]",
		Short: "Adds a member into the cluster",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return badArguments("member name not provided")
			}
			if len(args) > 1 {
				text := "too many arguments"
				for _, arg := range args {
					if strings.HasPrefix(strings.ToLower(arg), "http") {
						text += ", did you mean --peer-urls=" + arg
					}
				}
				return badArguments("%s", text)
			}
			if peerURLs == "" {
				return badArguments("member peer urls not provided: add --peer-urls")
			}
			return c.memberAdd(cmd.Context(), args[0], peerURLs, learner)
		},
	}
	cmd.Flags().StringVar(&peerURLs, "peer-urls", "", "peer URLs of the new member, comma-separated")
	cmd.Flags().BoolVar(&learner, "learner", false, "add it as a learner, which receives everything and has no vote")
	return cmd
}

func (c *ctl) memberAdd(ctx context.Context, name, peerURLs string, learner bool) error {
	if err := c.needForm(memberChangeForms...); err != nil {
		return err
	}
	r, err := ask(ctx, c, func(ctx context.Context, cl *client.Client) (*pb.MemberAddResponse, error) {
		return cl.MemberAdd(ctx, strings.Split(peerURLs, ","), learner)
	})
	if err != nil {
		return err
	}
	return c.print(answer{
		simple: func(p *page) {
			as := " "
			if r.Member.GetIsLearner() {
				as = " as learner "
			}
			p.printf("Member %16x added%sto cluster %16x\n", r.Member.GetID(), as, r.Header.GetClusterId())
			var cluster []string
			for _, m := range r.Members {
				for _, u := range m.PeerURLs {
					if m.ID == r.Member.GetID() {
						cluster = append(cluster, name+"="+u)
					} else {
						cluster = append(cluster, m.Name+"="+u)
					}
				}
			}
			// To paste into the environment of the new member.
			p.printf("\nETCD_NAME=%q\nETCD_INITIAL_CLUSTER=%q\n", name, strings.Join(cluster, ","))
			p.printf("ETCD_INITIAL_ADVERTISE_PEER_URLS=%q\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n", peerURLs)
		},
		json:  memberJSON{r.Header, r.Member, r.Members, c.globals.hex}.value(),
		proto: r,
	})
}

// memberID takes the only argument of a command for an ID.
func memberID(args []string) (uint64, error) {
	if len(args) != 1 {
		return 0, badArguments("member ID is not provided")
	}
	id, err := strconv.ParseUint(args[0], 16, 64)
	if err != nil {
		return 0, badArguments("bad member ID arg (%w), expecting ID in Hex", err)
	}
	return id, nil
}

func (c *ctl) memberRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove <memberID>",
		Short: "Removes a member from the cluster",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := memberID(args)
			if err != nil {
				return err
			}
			if err := c.needForm(memberChangeForms...); err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c, func(ctx context.Context, cl *client.Client) (*pb.MemberRemoveResponse, error) {
				return cl.MemberRemove(ctx, id)
			})
			if err != nil {
				return err
			}
			return c.print(c.memberChanged(id, "removed from", r.Header, r.Members, r))
		},
	}
}

// memberChanged is the answer to every change of one member.
func (c *ctl) memberChanged(id uint64, what string, h *pb.ResponseHeader, members []*pb.Member, m message) answer {
	return answer{
		simple: func(p *page) { p.printf("Member %16x %s cluster %16x\n", id, what, h.GetClusterId()) },
		json:   memberJSON{h, nil, members, c.globals.hex}.value(),
		proto:  m,
	}
}

func (c *ctl) memberUpdateCommand() *cobra.Command {
	var peerURLs string
	cmd := &cobra.Command{
		Use:   "update <memberID> [options]",
		Short: "Updates a member in the cluster",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := memberID(args)
			if err != nil {
				return err
			}
			if peerURLs == "" {
				return badArguments("member peer urls not provided: add --peer-urls")
			}
			if err := c.needForm(memberChangeForms...); err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c, func(ctx context.Context, cl *client.Client) (*pb.MemberUpdateResponse, error) {
				return cl.MemberUpdate(ctx, id, strings.Split(peerURLs, ","))
			})
			if err != nil {
				return err
			}
			return c.print(c.memberChanged(id, "updated in", r.Header, r.Members, r))
		},
	}
	cmd.Flags().StringVar(&peerURLs, "peer-urls", "", "new peer URLs of the member, comma-separated")
	return cmd
}

func (c *ctl) memberPromoteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "promote <memberID>",
		Short: "Promotes a non-voting member in the cluster",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := memberID(args)
			if err != nil {
				return err
			}
			if err := c.needForm(memberChangeForms...); err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c, func(ctx context.Context, cl *client.Client) (*pb.MemberPromoteResponse, error) {
				return cl.MemberPromote(ctx, id)
			})
			if err != nil {
				return err
			}
			return c.print(c.memberChanged(id, "promoted in", r.Header, r.Members, r))
		},
	}
}

func (c *ctl) memberListCommand() *cobra.Command {
	var consistency string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Lists all members in the cluster",
		Long: `In the form "simple" each line is a member: ID, Status, Name, Peer Addrs, Client Addrs, Is Learner.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			serializable, err := isSerializable(consistency)
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c, func(ctx context.Context, cl *client.Client) (*pb.MemberListResponse, error) {
				return cl.MemberList(ctx, !serializable)
			})
			if err != nil {
				return err
			}
			return c.print(answer{
				table:  memberTable(r.Members),
				fields: func(p *page) { p.memberFields(r) },
				json:   memberJSON{r.Header, nil, r.Members, c.globals.hex}.value(),
				proto:  r,
			})
		},
	}
	cmd.Flags().StringVar(&consistency, "consistency", "l", "Linearizable(l) or Serializable(s)")
	return cmd
}

func memberTable(members []*pb.Member) *grid {
	g := &grid{head: []string{"ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"}}
	for _, m := range members {
		status := "started"
		if m.Name == "" {
			status = "unstarted"
		}
		g.add(fmt.Sprintf("%x", m.ID), status, m.Name, strings.Join(m.PeerURLs, ","), strings.Join(m.ClientURLs, ","), fmt.Sprint(m.IsLearner))
	}
	return g
}

func (p *page) memberFields(r *pb.MemberListResponse) {
	p.headerFields(r.Header)
	for _, m := range r.Members {
		p.id("ID", m.ID)
		p.quoted("Name", m.Name)
		for _, u := range m.PeerURLs {
			p.quoted("PeerURL", u)
		}
		for _, u := range m.ClientURLs {
			p.quoted("ClientURL", u)
		}
		p.field("IsLearner", m.IsLearner)
		p.line()
	}
}

// memberJSON is an answer about members; with hex its IDs are hexadecimal texts.
type memberJSON struct {
	header  *pb.ResponseHeader
	member  *pb.Member
	members []*pb.Member
	hex     bool
}

func (j memberJSON) value() any {
	if !j.hex {
		return struct {
			Header  *pb.ResponseHeader `json:"header,omitempty"`
			Member  *pb.Member         `json:"member,omitempty"`
			Members []*pb.Member       `json:"members,omitempty"`
		}{j.header, j.member, j.members}
	}
	type hexMember struct {
		ID         string   `json:"ID"`
		Name       string   `json:"name,omitempty"`
		PeerURLs   []string `json:"peerURLs,omitempty"`
		ClientURLs []string `json:"clientURLs,omitempty"`
		IsLearner  bool     `json:"isLearner,omitempty"`
	}
	var v struct {
		Header struct {
			ClusterID string `json:"cluster_id"`
			MemberID  string `json:"member_id"`
			Revision  int64  `json:"revision,omitempty"`
			RaftTerm  uint64 `json:"raft_term,omitempty"`
		} `json:"header"`
		Member  *hexMember  `json:"member,omitempty"`
		Members []hexMember `json:"members"`
	}
	hexed := func(m *pb.Member) hexMember {
		return hexMember{fmt.Sprintf("%x", m.ID), m.Name, m.PeerURLs, m.ClientURLs, m.IsLearner}
	}
	v.Header.ClusterID, v.Header.MemberID = fmt.Sprintf("%x", j.header.GetClusterId()), fmt.Sprintf("%x", j.header.GetMemberId())
	v.Header.Revision, v.Header.RaftTerm = j.header.GetRevision(), j.header.GetRaftTerm()
	if j.member != nil {
		m := hexed(j.member)
		v.Member = &m
	}
	for _, m := range j.members {
		v.Members = append(v.Members, hexed(m))
	}
	return v
}
