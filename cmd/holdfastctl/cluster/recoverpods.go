package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/recovery"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// recoverFlags are those of "recover pods".
type recoverFlags struct {
	form             string
	adopt, prune     bool
	asTold           bool
	giveUp, distrust []string
}

// recoverCommand is the part of the program's "recover" that is about objects.
func (s *session) recoverCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "recover pods", Short: "Shows and decides what becomes of pods after a restore"}
	cmd.AddCommand(s.recoverPodsCommand())
	return cmd
}

// RecoverPods is that command, for the help of the program.
func RecoverPods() *cobra.Command { return (&session{}).recoverPodsCommand() }

func (s *session) recoverPodsCommand() *cobra.Command {
	f := &recoverFlags{}
	cmd := &cobra.Command{
		Use:   "pods [--adopt [--as-told] | --prune] [--give-up NODE] [--distrust NODE]",
		Short: "Shows and decides what becomes of the pods of a cluster whose store was restored",
		Long: `Shows and decides what becomes of the pods of a cluster whose store was restored.

After a restore the objects are older than what runs. Nodes go on with everything and
tell what they have; nothing is started or ended, and nobody is evicted. This lists

  both      recorded, and its node has it: it goes on as it is
  running   its node has it, and it is not recorded
  recorded  recorded on a node that does not have it

--adopt records what runs, with its uid and its node; nothing of it is started anew.
Owners that are not recorded are left out; a Deployment or ReplicaSet of which more
pods run than it is recorded to have is scaled up to them. --prune lets what is not
recorded end. Both end the hold, if every node has told and nothing is undecided.

What a node tells is its word. --adopt takes it where the objects that were restored
say the same of the pod: its labels, owners, secrets and all else that makes it what it
is. Of others the list says why not, and what adopting them would mean: their labels
may put them behind a service, and their node may read the secrets that they name. With
--as-told they are adopted too, and it is your word then.

A node that has not told may run what must not run twice: singletons are not started
meanwhile. --give-up says that it does not run. --distrust says so of a node that tells
what is wrong: nothing that it tells is heard until the next restore, and what runs
there and is not recorded is ended by the node, if that does as it is told. Make sure
that no singleton runs there.
`,
		RunE: s.connected(func(ctx context.Context, args []string) error {
			switch {
			case len(args) > 0:
				return usage("recover pods takes no arguments")
			case f.adopt && f.prune:
				return usage("--adopt and --prune: give one of them")
			case f.asTold && !f.adopt:
				return usage("--as-told goes with --adopt")
			case f.form != "table" && f.form != "json":
				return usage("-w %s: there are table and json", f.form)
			}
			return s.recoverPods(ctx, f)
		}),
	}
	cmd.Flags().StringVarP(&f.form, "write-out", "w", "table", "form: table, json")
	cmd.Flags().BoolVar(&f.adopt, "adopt", false, "record pods that run and are not recorded")
	cmd.Flags().BoolVar(&f.asTold, "as-told", false, "with --adopt: also those of which only their node says what they are")
	cmd.Flags().BoolVar(&f.prune, "prune", false, "let all pods end that run and are not recorded")
	cmd.Flags().StringSliceVar(&f.giveUp, "give-up", nil, "node that is not waited for; may be repeated")
	cmd.Flags().StringSliceVar(&f.distrust, "distrust", nil, "node of which nothing is believed; may be repeated")
	return cmd
}

// recoverMax bounds a command: each pod is a write of its own.
const recoverMax = 10 * time.Minute

func (s *session) recoverPods(ctx context.Context, f *recoverFlags) error {
	ctx, cancel := atMost(ctx, recoverMax)
	defer cancel()
	if err := recovery.GiveUp(ctx, s.client, f.giveUp); err != nil {
		return err
	}
	if err := recovery.Distrust(ctx, s.client, f.distrust); err != nil {
		return err
	}
	if !f.adopt && !f.prune {
		is, err := s.client.Recovery(ctx, true)
		if err != nil {
			return err
		}
		return s.showRecovery(is, f.form)
	}
	var r *recovery.Report
	var err error
	if f.prune {
		r, err = recovery.Prune(ctx, s.client)
	} else {
		r, err = recovery.Adopt(ctx, s.client, f.asTold)
	}
	if r != nil {
		s.showReport(r, f.form)
	}
	if err != nil {
		return err
	}
	if len(r.Refused) > 0 {
		return fmt.Errorf("%d pods are left as they are: see above, then repeat the command, or use --adopt --as-told, or --prune", len(r.Refused))
	}
	return nil
}

// showRecovery prints the three lists.
func (s *session) showRecovery(is *kubepb.RecoveryResponse, form string) error {
	if form == "json" {
		return s.asJSON(recoveryView(is))
	}
	if is.State == kubepb.RecoveryResponse_SETTLED && is.Hold == kubepb.Hold_HOLD_NONE {
		s.printf("All is settled since the store was restored last, or it never was.\n")
		return nil
	}
	now := s.Clock.Wall()
	s.printf("The store was restored %s ago (timeline %d); %s.\n", since(now, metav1.Unix(is.Since, 0)), is.Timeline, stateWords[is.State])
	g := &grid{out: s.Out}
	s.printf("\n")
	g.add("NODE", "TOLD", "PODS", "CLAIMS", "DOUBTFUL", "NOTE")
	for _, n := range is.Nodes {
		told := "not yet"
		switch {
		case n.Distrusted:
			told = "distrusted"
		case n.Reported != 0:
			told = since(now, metav1.Unix(n.Reported, 0)) + " ago"
		case n.GivenUp:
			told = "given up"
		}
		g.add(n.Node, told, fmt.Sprint(n.Pods), fmt.Sprint(n.Claims), fmt.Sprint(n.Doubtful), printable(n.Doubt))
	}
	g.flush()
	s.printf("\n")
	g = &grid{out: s.Out}
	g.add("LIST", "NAMESPACE", "NAME", "NODE", "RUNS", "RESTARTS", "CONTROLLER", "NOTE")
	for _, p := range is.Pods {
		note := noteOn(p)
		g.add(strings.ToLower(p.List.String()), p.Namespace, p.Name, p.Node, yesNo(p.Running), fmt.Sprint(p.Restarts), orNone(p.Controller), printable(note))
	}
	g.flush()
	if is.State == kubepb.RecoveryResponse_SETTLED {
		s.printf("\nThis ends as those in the list %q end; for a node that you know to run none, --distrust NODE ends it.\n", "running")
		return nil
	}
	s.printf("\n%d pods to be decided about: --adopt records them, --prune lets them end.\n", is.Undecided)
	return nil
}

// noteOn is what an operator should know before he decides about a pod.
func noteOn(p *kubepb.RecoveredPod) string {
	if p.Pruned {
		return "it is to end"
	}
	notes := []string{}
	if p.Note != "" {
		notes = append(notes, p.Note)
	}
	if p.Doubt != "" {
		notes = append(notes, p.Doubt+" (--as-told)")
		var labels []string
		for _, k := range slices.Sorted(maps.Keys(p.Labels)) {
			labels = append(labels, k+"="+p.Labels[k])
		}
		if len(labels) > 0 {
			notes = append(notes, "labels "+strings.Join(labels, ","))
		}
		if len(p.Names) > 0 {
			notes = append(notes, "may read "+strings.Join(p.Names, ","))
		}
	}
	return strings.Join(notes, "; ")
}

// HoldWord is what a hold is called in JSON.
func HoldWord(h kubepb.Hold) string {
	return strings.ToLower(strings.TrimPrefix(h.String(), "HOLD_"))
}

var stateWords = map[kubepb.RecoveryResponse_State]string{
	kubepb.RecoveryResponse_OPEN:       "nothing is started or ended before it is settled what runs",
	kubepb.RecoveryResponse_SETTLED:    "all is settled, but singletons that a node may still run are not started elsewhere",
	kubepb.RecoveryResponse_PROCEEDING: "controllers go on, and singletons and what is not recorded wait for a decision",
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (s *session) showReport(r *recovery.Report, form string) {
	if form == "json" {
		_ = s.asJSON(reportView(r)) // Of plain values: it cannot fail but by the writer.
		return
	}
	for _, x := range r.Scaled {
		s.printf("%s/%s scaled from %d to %d, as many as run\n", strings.ToLower(x.Object.Kind), x.Object.Name, x.Before, x.After)
	}
	for _, p := range r.Adopted {
		s.printf("pod/%s adopted on node %s\n", p.Name, p.Node)
	}
	for _, p := range r.Pruned {
		s.printf("pod/%s of node %s ends\n", p.Name, p.Node)
	}
	for _, name := range r.Removed {
		s.printf("pod/%s is on no node: its record is gone\n", name)
	}
	for _, x := range r.Refused {
		s.printf("pod/%s of node %s is left as it is: %s\n", x.Pod.Name, x.Pod.Node, printable(x.Err.Error()))
	}
	s.warn(r.Warned...)
	if r.Settled {
		s.printf("settled: %d adopted, %d pruned\n", len(r.Adopted), len(r.Pruned))
	} else {
		s.printf("not settled: %s\n", printable(r.Waits))
	}
}

func (s *session) asJSON(v any) error {
	e := json.NewEncoder(s.Out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// recoveredPod is a pod in JSON.
type recoveredPod struct {
	List       string `json:"list"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
	Node       string `json:"node"`
	Running    bool   `json:"running"`
	Singleton  bool   `json:"singleton"`
	Pruned     bool   `json:"pruned"`
	Restarts   int64  `json:"restarts"`
	Controller string `json:"controller,omitempty"`
	Note       string `json:"note,omitempty"`
	Doubt      string `json:"doubt,omitempty"`

	Labels map[string]string `json:"labels,omitempty"` // Of those with a doubt.
	Names  []string          `json:"names,omitempty"`
}

func podViews(pods []*kubepb.RecoveredPod) []recoveredPod {
	all := []recoveredPod{}
	for _, p := range pods {
		all = append(all, recoveredPod{
			strings.ToLower(p.List.String()), p.Namespace, p.Name, p.Uid, p.Node, p.Running, p.Singleton, p.Pruned, p.Restarts, p.Controller, p.Note,
			p.Doubt, p.Labels, p.Names,
		})
	}
	return all
}

func recoveryView(is *kubepb.RecoveryResponse) any {
	type node struct {
		Node       string `json:"node"`
		Reported   int64  `json:"reported"`
		GivenUp    bool   `json:"givenUp"`
		Distrusted bool   `json:"distrusted"`
		Pods       int64  `json:"pods"`
		Claims     int64  `json:"claims"`
		Doubtful   int64  `json:"doubtful"`
		Doubt      string `json:"doubt,omitempty"`
	}
	nodes := []node{}
	for _, n := range is.Nodes {
		nodes = append(nodes, node{n.Node, n.Reported, n.GivenUp, n.Distrusted, n.Pods, n.Claims, n.Doubtful, n.Doubt})
	}
	return map[string]any{
		"state": strings.ToLower(is.State.String()), "hold": HoldWord(is.Hold), "timeline": is.Timeline, "since": is.Since, "undecided": is.Undecided, "nodes": nodes, "pods": podViews(is.Pods),
	}
}

func reportView(r *recovery.Report) any {
	refused := []map[string]string{}
	for _, x := range r.Refused {
		refused = append(refused, map[string]string{"namespace": x.Pod.Namespace, "name": x.Pod.Name, "uid": x.Pod.Uid, "why": x.Err.Error()})
	}
	scaled := []map[string]any{}
	for _, x := range r.Scaled {
		scaled = append(scaled, map[string]any{"kind": x.Object.Kind, "namespace": x.Object.Namespace, "name": x.Object.Name, "before": x.Before, "after": x.After})
	}
	return map[string]any{
		"adopted": podViews(r.Adopted), "pruned": podViews(r.Pruned), "refused": refused, "scaled": scaled, "removed": append([]string{}, r.Removed...),
		"warnings": append([]string{}, r.Warned...), "settled": r.Settled, "waits": r.Waits,
	}
}
