package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/cmd/holdfastctl/hint"
	"github.com/holdfast-db/holdfast/internal/task"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Answers of several members have no protobuf form in etcdctl.
var endpointForms = []string{formSimple, formFields, formJSON, formTable}

func (c *ctl) endpointCommand() *cobra.Command {
	var cluster bool
	cmd := &cobra.Command{Use: "endpoint <subcommand>", Short: "Endpoint related commands"}
	cmd.PersistentFlags().BoolVar(&cluster, "cluster", false, "ask all endpoints of the cluster's members")
	cmd.AddCommand(c.endpointHealthCommand(&cluster), c.endpointStatusCommand(&cluster), c.endpointHashCommand(&cluster))
	return cmd
}

// eachEndpoint are the endpoints to ask one by one.
func (c *ctl) eachEndpoint(ctx context.Context, cluster bool) ([]string, error) {
	if !cluster {
		return c.globals.endpoints, nil
	}
	r, err := ask(ctx, c, func(ctx context.Context, cl *client.Client) (*pb.MemberListResponse, error) {
		return cl.MemberList(ctx, true)
	})
	if err != nil {
		return nil, exit(exitFailed, fmt.Errorf("failed to fetch endpoints from etcd cluster member list: %w", err))
	}
	var all []string
	for _, m := range r.Members {
		all = append(all, m.ClientURLs...)
	}
	return all, nil
}

// askOne asks one member, with the time of a short command. One that refuses the
// connection is not waited for.
func askOne[T any](ctx context.Context, c *ctl, endpoint string, call func(context.Context, *client.Client) (T, error)) (T, error) {
	var none T
	cl, err := c.quickClient(endpoint)
	if err != nil {
		return none, err
	}
	defer cl.Close()
	ctx, cancel := c.limited(ctx)
	defer cancel()
	return call(ctx, cl)
}

// short is an error without advice, for lists of them: of connections that could
// not be made the cause alone.
func short(err error) string {
	timeout, cause := context.DeadlineExceeded.Error(), err.Error()
	if errors.Is(err, client.ErrUnreachable) || strings.Contains(cause, "connection error: ") {
		cause = hint.Cause(cause)
	}
	switch late := errors.Is(err, context.DeadlineExceeded); {
	case late && (strings.Contains(cause, timeout) || !strings.Contains(err.Error(), "connection error: ")):
		return timeout
	case late:
		return timeout + ": " + cause
	}
	return cause
}

// health is how one endpoint does.
type health struct {
	Endpoint string `json:"endpoint"`
	Health   bool   `json:"health"`
	Took     string `json:"took"`
	Error    string `json:"error,omitempty"`
}

func (c *ctl) endpointHealthCommand(cluster *bool) *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "Checks the healthiness of endpoints specified in `--endpoints` flag",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.needForm(endpointForms...); err != nil {
				return err
			}
			endpoints, err := c.eachEndpoint(cmd.Context(), *cluster)
			if err != nil {
				return err
			}
			return c.endpointHealth(cmd.Context(), endpoints)
		},
	}
}

func (c *ctl) endpointHealth(ctx context.Context, endpoints []string) error {
	list := make([]health, len(endpoints))
	g := task.New(ctx)
	for i, e := range endpoints {
		g.Go("health", func(ctx context.Context) error {
			list[i] = c.healthOf(ctx, e)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	table := &grid{head: []string{"endpoint", "health", "took", "error"}}
	sick := false
	for _, h := range list {
		table.add(h.Endpoint, fmt.Sprint(h.Health), h.Took, h.Error)
		sick = sick || h.Error != ""
	}
	err := c.print(answer{
		simple: func(p *page) {
			for _, h := range list {
				if h.Error == "" {
					p.printf("%s is healthy: successfully committed proposal: took = %v\n", h.Endpoint, h.Took)
				} else {
					fmt.Fprintf(c.err, "%s is unhealthy: failed to commit proposal: %v\n", h.Endpoint, h.Error)
				}
			}
		},
		fields: func(p *page) {
			for _, h := range list {
				p.quoted("Endpoint", h.Endpoint)
				p.field("Health", h.Health)
				p.field("Took", h.Took)
				p.field("Error", h.Error)
				p.line()
			}
		},
		table: table, json: list,
	})
	if sick && err == nil {
		err = exit(exitFailed, errors.New("unhealthy cluster"))
	}
	return err
}

// healthOf reads through a quorum, and asks for alarms.
func (c *ctl) healthOf(ctx context.Context, endpoint string) health {
	start := time.Now()
	h := health{Endpoint: endpoint}
	_, err := askOne(ctx, c, endpoint, func(ctx context.Context, cl *client.Client) (*pb.AlarmResponse, error) {
		_, err := cl.Get(ctx, client.Get{Range: client.One("health")})
		h.Took = time.Since(start).String()
		// Whoever denies it has asked a quorum.
		if err != nil && !errors.Is(err, client.ErrPermissionDenied) {
			return nil, err
		}
		r, err := cl.Alarms(ctx)
		switch {
		case err != nil:
			h.Error = "Unable to fetch the alarm list"
		case len(r.Alarms) > 0:
			h.Error = "Active Alarm(s): "
			for _, a := range r.Alarms {
				h.Error += a.Alarm.String() + " "
			}
		}
		return r, nil
	})
	if err != nil {
		h.Error = short(err)
	}
	h.Health = h.Error == ""
	return h
}

// status is what one member says of itself.
type status struct {
	Endpoint string
	Status   *pb.StatusResponse
}

func (c *ctl) endpointStatusCommand(cluster *bool) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Prints out the status of endpoints specified in `--endpoints` flag",
		Long: `In the form "simple" each line is an endpoint: endpoint, ID, version, storage version, db size, in use,
percentage not in use, quota, is leader, is learner, raft term, raft index, raft applied index, errors,
downgrade target version, downgrade enabled.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.needForm(endpointForms...); err != nil {
				return err
			}
			endpoints, err := c.eachEndpoint(cmd.Context(), *cluster)
			if err != nil {
				return err
			}
			list, err := askAll(cmd.Context(), c, endpoints, "status", (*client.Client).Status)
			statuses := []status{}
			for _, a := range list {
				statuses = append(statuses, status{a.endpoint, a.answer})
			}
			if e := c.print(statusAnswer(statuses)); e != nil {
				return e
			}
			if err != nil {
				return &exitError{code: exitFailed} // Said already, for each endpoint.
			}
			return nil
		},
	}
}

type endpointAnswer[T any] struct {
	endpoint string
	answer   T
}

// askAll asks all members at a time. It says who failed as soon as that is known,
// and returns one of these errors.
func askAll[T any](
	ctx context.Context, c *ctl, endpoints []string, what string, call func(*client.Client, context.Context) (T, error),
) (list []endpointAnswer[T], failed error) {
	var mu sync.Mutex // Guards what is said, and failed.
	answers := make([]*endpointAnswer[T], len(endpoints))
	g := task.New(ctx)
	for i, e := range endpoints {
		g.Go(what, func(ctx context.Context) error {
			r, err := askOne(ctx, c, e, func(ctx context.Context, cl *client.Client) (T, error) { return call(cl, ctx) })
			if err == nil {
				answers[i] = &endpointAnswer[T]{e, r}
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintf(c.err, "Failed to get the %s of endpoint %s (%s)\n", what, e, short(err))
			failed = err
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, a := range answers {
		if a != nil {
			list = append(list, *a)
		}
	}
	return list, failed
}

func statusAnswer(list []status) answer {
	table := &grid{head: []string{
		"endpoint", "ID", "version", "storage version", "db size", "in use", "percentage not in use", "quota", "is leader", "is learner",
		"raft term", "raft index", "raft applied index", "errors", "downgrade target version", "downgrade enabled",
	}}
	for _, s := range list {
		r := s.Status
		unused := int64(0)
		if r.DbSize > 0 {
			unused = 100 - r.DbSizeInUse*100/r.DbSize
		}
		table.add(s.Endpoint, fmt.Sprintf("%x", r.Header.GetMemberId()), r.Version, r.StorageVersion,
			sizeText(r.DbSize), sizeText(r.DbSizeInUse), fmt.Sprintf("%d%%", unused), sizeText(r.DbSizeQuota),
			fmt.Sprint(r.Leader == r.Header.GetMemberId()), fmt.Sprint(r.IsLearner),
			fmt.Sprint(r.RaftTerm), fmt.Sprint(r.RaftIndex), fmt.Sprint(r.RaftAppliedIndex), strings.Join(r.Errors, ", "),
			r.GetDowngradeInfo().GetTargetVersion(), strconv.FormatBool(r.GetDowngradeInfo().GetEnabled()))
	}
	return answer{table: table, json: list, fields: func(p *page) {
		for _, s := range list {
			r := s.Status
			p.headerFields(r.Header)
			p.quoted("Version", r.Version)
			p.quoted("StorageVersion", r.StorageVersion)
			p.field("DBSize", r.DbSize)
			p.field("DBSizeInUse", r.DbSizeInUse)
			p.field("DBSizeQuota", r.DbSizeQuota)
			p.field("Leader", r.Leader)
			p.field("IsLearner", r.IsLearner)
			p.field("RaftIndex", r.RaftIndex)
			p.field("RaftAppliedIndex", r.RaftAppliedIndex)
			p.field("Errors", r.Errors)
			p.quoted("Endpoint", s.Endpoint)
			p.quoted("DowngradeTargetVersion", r.GetDowngradeInfo().GetTargetVersion())
			p.field("DowngradeEnabled", r.GetDowngradeInfo().GetEnabled())
			p.line()
		}
	}}
}

// hashKV is the hash that one member has.
type hashKV struct {
	Endpoint string
	HashKV   *pb.HashKVResponse
}

func (c *ctl) endpointHashCommand(cluster *bool) *cobra.Command {
	var revision int64
	cmd := &cobra.Command{
		Use:   "hashkv",
		Short: "Prints the KV history hash for each endpoint in --endpoints",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.needForm(endpointForms...); err != nil {
				return err
			}
			endpoints, err := c.eachEndpoint(cmd.Context(), *cluster)
			if err != nil {
				return err
			}
			list, err := askAll(cmd.Context(), c, endpoints, "hash", func(cl *client.Client, ctx context.Context) (*pb.HashKVResponse, error) {
				return cl.HashKV(ctx, revision)
			})
			hashes := []hashKV{}
			for _, a := range list {
				hashes = append(hashes, hashKV{a.endpoint, a.answer})
			}
			if e := c.print(hashAnswer(hashes)); e != nil {
				return e
			}
			if err != nil {
				return exit(exitFailed, errors.New(short(err)))
			}
			return nil
		},
	}
	cmd.PersistentFlags().Int64Var(&revision, "rev", 0, "greatest revision to hash (default: the latest)")
	return cmd
}

func hashAnswer(list []hashKV) answer {
	table := &grid{head: []string{"endpoint", "hash", "hash_revision"}}
	for _, h := range list {
		table.add(h.Endpoint, fmt.Sprint(h.HashKV.Hash), fmt.Sprint(h.HashKV.HashRevision))
	}
	return answer{table: table, json: list, fields: func(p *page) {
		for _, h := range list {
			p.headerFields(h.HashKV.Header)
			p.quoted("Endpoint", h.Endpoint)
			p.field("Hash", h.HashKV.Hash)
			p.field("HashRevision", h.HashKV.HashRevision)
			p.line()
		}
	}}
}
