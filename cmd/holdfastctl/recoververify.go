package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/snapshot/archive"
	"github.com/holdfast-db/holdfast/snapshot/recovery"
)

// recoveryReport says what was looked at on the new cluster.
type recoveryReport struct {
	Plan      string          `json:"plan"`
	At        string          `json:"at"`
	Cluster   string          `json:"cluster"`
	Timeline  uint64          `json:"timeline"`
	Endpoints []string        `json:"endpoints"`
	Loss      recovery.Loss   `json:"loss"`
	Kept      uint64          `json:"kept_to_index"`
	Uncertain int             `json:"uncertain_entries"`
	Checks    []recoveryCheck `json:"checks"`
	Fences    []string        `json:"fences"`
	OK        bool            `json:"ok"`
}

type recoveryCheck struct {
	What   string `json:"what"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

func (c *ctl) recoverVerifyCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "verify <plan>",
		Short: "Looks whether the new cluster runs and is what was planned",
		Long: `Writes and reads a key of its own on the new cluster, at --endpoints, and deletes it
again; compares identity, members and the hashes of all members. Prints a report in
Markdown, or with -w json.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("recover verify requires the file of 'recover plan --out'")
			}
			if err := c.needForm(formSimple, formJSON); err != nil {
				return err
			}
			plan, err := recovery.ReadPlan(vfs.OS(), args[0])
			if err != nil {
				return exit(exitFailed, err)
			}
			return c.verifyRecovery(cmd.Context(), plan, out)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "keep the report as this file with .json and .md added")
	return cmd
}

func (c *ctl) verifyRecovery(ctx context.Context, plan *recovery.Plan, out string) error {
	next, err := plan.Targets()
	if err != nil {
		return exit(exitFailed, err)
	}
	r := &recoveryReport{
		Plan: plan.ID, At: clock.Real().Wall().UTC().Format("2006-01-02T15:04:05Z"), Cluster: next.Cluster.String(), Timeline: uint64(next.Timeline),
		Endpoints: c.globals.endpoints, Loss: plan.Loss, Kept: uint64(plan.Keep.Index), Uncertain: len(plan.Uncertain), OK: true,
		Fences: []string{
			"members of the old cluster are refused by IDs and timeline: held",
			fmt.Sprintf("the old directory of %s is renamed aside and frozen: held", plan.Name),
			c.epochFence(ctx, plan, next),
		},
	}
	var want []uint64
	for _, m := range next.Members {
		want = append(want, uint64(m.ID))
	}
	revision := r.canary(ctx, c, plan)
	r.members(ctx, c, uint64(next.Cluster), want)
	r.hashes(ctx, c, revision)
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return exit(exitFailed, err)
	}
	if out != "" {
		err = errors.Join(c.keep(out+".json", append(text, '\n')), c.keep(out+".md", []byte(r.markdown())))
	}
	if c.globals.form == formJSON {
		fmt.Fprintf(c.out, "%s\n", text)
	} else {
		fmt.Fprint(c.out, r.markdown())
	}
	if err == nil && !r.OK {
		err = &exitError{code: exitFailed} // The report says why.
	}
	return err
}

// epochFence says whether the plan's epoch is in the archive, and what that is
// worth.
func (c *ctl) epochFence(ctx context.Context, plan *recovery.Plan, next *snapshot.Plan) string {
	const open = "; clients that reach a running old member are not kept from it"
	if plan.Fence == nil {
		return "an epoch in an archive: none was planned" + open
	}
	a, store, err := openFence(ctx, plan)
	if err != nil {
		return fmt.Sprintf("epoch %d in the archive: not known, %v", plan.Fence.Epoch, err)
	}
	defer store.Close()
	e, err := a.Epoch(ctx, plan.Fence.Epoch)
	if err == nil {
		err = a.IsNewest(ctx, plan.Fence.Epoch)
	}
	switch {
	case errors.Is(err, archive.ErrEpochTaken):
		return fmt.Sprintf("epoch %d in the archive: NOT held, %v: stop one of the two", plan.Fence.Epoch, err)
	case err != nil:
		return fmt.Sprintf("epoch %d in the archive: NOT held, %v%s", plan.Fence.Epoch, err, open)
	case e.Plan != plan.ID || e.Successor != next.Cluster.String():
		return fmt.Sprintf("epoch %d in the archive: NOT held, it is of plan %s for cluster %s: ANOTHER OPERATOR has recovered this cluster, stop one of the two", e.Number, e.Plan, e.Successor)
	case e.Fence != archive.FenceOn:
		return fmt.Sprintf("epoch %d in the archive: held since %s against a second operator; against old members NOT, as the one that archived last did not look for epochs (%s)%s", e.Number, e.Made, e.Fence, open)
	}
	return fmt.Sprintf("epoch %d in the archive: held since %s: an old member that reaches the archive acknowledged nothing 10 s after that, and neither did one that does not; this is true of those with --archive-epoch strict, as the one that archived last had", e.Number, e.Made)
}

func (r *recoveryReport) check(what string, err error, detail string) {
	if err != nil {
		detail = err.Error()
	}
	r.Checks = append(r.Checks, recoveryCheck{what, err == nil, detail})
	r.OK = r.OK && err == nil
}

// canary writes, reads and deletes a key, and returns the revision after that.
func (r *recoveryReport) canary(ctx context.Context, c *ctl, plan *recovery.Plan) int64 {
	key := "holdfast-recovery-canary/" + plan.ID
	var revision int64
	_, err := ask(ctx, c, func(ctx context.Context, cl *client.Client) (any, error) {
		put, err := cl.Put(ctx, client.Put{Key: key, Value: []byte(r.At)})
		if err != nil {
			return nil, err
		}
		got, err := cl.Get(ctx, client.Get{Range: client.One(key)})
		if err != nil {
			return nil, err
		}
		if len(got.Kvs) != 1 || string(got.Kvs[0].Value) != r.At || got.Kvs[0].ModRevision != put.Header.Revision {
			return nil, fmt.Errorf("what was written at revision %d is read as %v", put.Header.Revision, got.Kvs)
		}
		if put.Header.Revision <= plan.Revision {
			return nil, fmt.Errorf("it got revision %d, the source had %d", put.Header.Revision, plan.Revision)
		}
		del, err := cl.Delete(ctx, client.Delete{Range: client.One(key)})
		revision = del.GetHeader().GetRevision()
		return nil, err
	})
	r.check("a write is stored and read back", err, fmt.Sprintf("up to revision %d", revision))
	return revision
}

func (r *recoveryReport) members(ctx context.Context, c *ctl, cluster uint64, want []uint64) {
	list, err := ask(ctx, c, func(ctx context.Context, cl *client.Client) (*pb.MemberListResponse, error) {
		return cl.MemberList(ctx, true)
	})
	if err != nil {
		r.check("identity and members", err, "")
		return
	}
	if got := list.Header.ClusterId; got != cluster {
		err = fmt.Errorf("the cluster is %x, planned was %x", got, cluster)
	}
	r.check("the cluster has the planned identity, and so the new timeline", err, r.Cluster)
	var got []uint64
	for _, m := range list.Members {
		got = append(got, m.ID)
	}
	slices.Sort(got)
	slices.Sort(want)
	err = nil
	for _, id := range want {
		if !slices.Contains(got, id) {
			err = fmt.Errorf("member %x is missing, there are %x", id, got)
		}
	}
	r.check("the planned members are there", err, fmt.Sprintf("%x", got))
}

// hashes compares what the members hold at one revision.
func (r *recoveryReport) hashes(ctx context.Context, c *ctl, revision int64) {
	var words []string
	seen := map[uint32]bool{}
	var failed error
	for _, e := range c.globals.endpoints {
		h, err := askOne(ctx, c, e, func(ctx context.Context, cl *client.Client) (*pb.HashKVResponse, error) {
			return cl.HashKV(ctx, revision)
		})
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", e, err))
			continue
		}
		seen[h.Hash] = true
		words = append(words, fmt.Sprintf("%s %08x", e, h.Hash))
	}
	if len(seen) > 1 {
		failed = errors.Join(failed, fmt.Errorf("they differ: %s", strings.Join(words, ", ")))
	}
	r.check(fmt.Sprintf("all members have the same hash at revision %d", revision), failed, strings.Join(words, ", "))
}

func (r *recoveryReport) markdown() string {
	var b strings.Builder
	verdict := "as planned"
	if !r.OK {
		verdict = "NOT as planned"
	}
	fmt.Fprintf(&b, "# Recovery %s: %s\n\nAt %s, cluster %s on timeline %d, endpoints %s.\n\n", r.Plan, verdict, r.At, r.Cluster, r.Timeline, strings.Join(r.Endpoints, ", "))
	for _, k := range r.Checks {
		mark := "ok"
		if !k.OK {
			mark = "FAILED"
		}
		fmt.Fprintf(&b, "- %s: %s (%s)\n", mark, k.What, k.Detail)
	}
	fmt.Fprintf(&b, "\nKept: all entries up to %d, %d of them uncertain. ", r.Kept, r.Uncertain)
	if r.Loss.Possible {
		fmt.Fprintf(&b, "Acknowledged writes proposed between %s and %s may be lost: %s.\n",
			r.Loss.From.UTC().Format("15:04:05.000"), r.Loss.Until.UTC().Format("15:04:05.000"), strings.Join(r.Loss.Why, "; "))
	} else {
		b.WriteString("Nothing that was acknowledged is lost.\n")
	}
	b.WriteString("\nFences:\n\n")
	for _, f := range r.Fences {
		fmt.Fprintf(&b, "- %s\n", f)
	}
	return b.String()
}
