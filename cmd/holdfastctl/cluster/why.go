package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/scheduler/placement"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func (s *session) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "why POD",
		Short: "Tells why a pod is where it is, or nowhere, and what keeps it from running",
		RunE: s.connected(func(ctx context.Context, args []string) error {
			if len(args) == 1 && !strings.Contains(args[0], "/") {
				args = []string{"pods", args[0]}
			}
			t, err := one(args, api.Pod)
			if err != nil {
				return err
			}
			return s.why(ctx, t)
		}),
	}
}

func (s *session) why(ctx context.Context, t target) error {
	o, err := s.get(ctx, t)
	if err != nil {
		return err
	}
	p := o.(*corev1.Pod)
	now := s.Clock.Wall()
	s.printf("pod/%s: %s\n", p.Name, s.inWords(p, now))
	for _, line := range troubles(p, now) {
		s.printf("  %s\n", printable(line))
	}
	decided, err := ask(ctx, s, func(ctx context.Context) (*kubepb.ExplainResponse, error) {
		return s.client.Explain(ctx, p.Namespace, p.Name)
	})
	switch {
	case status.Code(unwrapped(err)) == codes.Unimplemented:
		s.printf("\nThe scheduler cannot be asked: it does not run beside the server that answered.\n")
	case errors.Is(err, objects.ErrNotFound) || err == nil && len(decided.GetDecisions()) == 0:
		s.printf("\nThe scheduler has no decision in memory about it: it decided before it was started, or has not yet.\n")
	case err != nil:
		return err
	default:
		s.decisions(decided.Decisions, now)
	}
	events, err := s.eventsOf(ctx, p)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		s.printf("\nNo events about it.\n")
		return nil
	}
	s.printf("\nWhat happened:\n")
	g := &grid{out: s.Out}
	for _, e := range events {
		cells := eventCells(e, now)
		often := ""
		if e.Count > 1 {
			often = fmt.Sprintf(" (%d times)", e.Count)
		}
		g.add("  "+cells[0]+" ago", e.Type, e.Reason, cells[4]+often)
	}
	g.flush()
	return nil
}

// inWords is one sentence about a pod.
func (s *session) inWords(p *corev1.Pod, now time.Time) string {
	at := ""
	if p.Spec.NodeName != "" {
		at = " on node " + p.Spec.NodeName
	}
	switch {
	case p.DeletionTimestamp != nil:
		return fmt.Sprintf("it ends%s; deletion was asked for %s ago", at, since(now, *p.DeletionTimestamp))
	case p.Status.Phase == corev1.PodSucceeded:
		return "it ran to its end" + at
	case p.Status.Phase == corev1.PodFailed:
		return "it failed" + at
	case p.Spec.NodeName == "":
		return fmt.Sprintf("it has no node, for %s", since(now, p.CreationTimestamp))
	case p.Status.Phase == corev1.PodRunning && api.IsReady(p):
		return "it runs" + at + " and is ready"
	case p.Status.Phase == corev1.PodRunning:
		return "it runs" + at + " and is not ready"
	}
	return "it was given to" + strings.TrimPrefix(at, " on") + " and does not run yet"
}

// troubles are what a pod's status says keeps it.
func troubles(p *corev1.Pod, now time.Time) []string {
	var lines []string
	if p.Status.Reason != "" || p.Status.Message != "" {
		lines = append(lines, strings.TrimSpace(p.Status.Reason+": "+p.Status.Message))
	}
	for _, c := range p.Status.Conditions {
		if c.Status != corev1.ConditionTrue && (c.Reason != "" || c.Message != "") {
			lines = append(lines, fmt.Sprintf("%s is %s: %s", c.Type, c.Status, strings.TrimPrefix(c.Reason+": "+c.Message, ": ")))
		}
	}
	for _, st := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		name := "container " + st.Name
		if w := st.State.Waiting; w != nil && w.Reason != "" {
			lines = append(lines, fmt.Sprintf("%s waits: %s", name, strings.TrimSuffix(w.Reason+": "+w.Message, ": ")))
		}
		if e := st.State.Terminated; e != nil && e.ExitCode != 0 {
			lines = append(lines, name+" ended: "+ended(e, now))
		}
		if e := st.LastTerminationState.Terminated; e != nil {
			lines = append(lines, fmt.Sprintf("%s has %s, the last after it ended: %s", name, times(st.RestartCount, "restart"), ended(e, now)))
		}
	}
	lines = append(lines, notAsked(p)...)
	if len(p.Finalizers) > 0 && p.DeletionTimestamp != nil {
		lines = append(lines, "finalizers hold it: "+strings.Join(p.Finalizers, ", "))
	}
	return lines
}

// notAsked is why the scheduler does not look at a pod that has no node.
func notAsked(p *corev1.Pod) (lines []string) {
	if p.Spec.NodeName != "" || p.DeletionTimestamp != nil {
		return nil
	}
	var gates []string
	for _, g := range p.Spec.SchedulingGates {
		gates = append(gates, g.Name)
	}
	if gates != nil {
		lines = append(lines, "scheduling gates hold it, until somebody takes them out: "+strings.Join(gates, ", "))
	}
	switch name := p.Spec.SchedulerName; name {
	case "", corev1.DefaultSchedulerName, placement.Binpack.Name:
	default:
		lines = append(lines, fmt.Sprintf("it waits for a scheduler called %s; here are %s and %s", name, corev1.DefaultSchedulerName, placement.Binpack.Name))
	}
	return lines
}

func ended(e *corev1.ContainerStateTerminated, now time.Time) string {
	text := fmt.Sprintf("exit code %d", e.ExitCode)
	if e.Reason != "" {
		text = e.Reason + ", " + text
	}
	if !e.FinishedAt.IsZero() {
		text += ", " + since(now, e.FinishedAt) + " ago"
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// reasonsShownMax of one decision, and as many nodes.
const reasonsShownMax = 10

// decisions are attempts to place the pod, the newest in full.
func (s *session) decisions(all []*kubepb.Decision, now time.Time) {
	for i, d := range all {
		age := since(now, metav1.NewTime(time.Unix(0, d.Time)))
		where := "found no node"
		if d.Node != "" {
			where = "chose node " + d.Node
		}
		s.printf("\nThe scheduler %s %s ago, of %s that it looked at.\n", where, age, times(d.Nodes, "node"))
		if d.Note != "" {
			s.printf("  %s\n", printable(d.Note))
		}
		for _, r := range d.Reasons[:min(len(d.Reasons), reasonsShownMax)] {
			s.printf("  %s: %s (%s)\n", times(r.Nodes, "node"), printable(r.Text), r.Plugin)
		}
		if len(d.Scores) > 0 {
			g := &grid{out: s.Out}
			g.add("  NODE", "SCORE", "OF")
			for _, sc := range d.Scores[:min(len(d.Scores), reasonsShownMax)] {
				g.add("  "+sc.Node, fmt.Sprint(sc.Total), parts(sc.Plugins))
			}
			g.flush()
		}
		if i == 0 && len(all) > 1 {
			s.printf("\nIt had tried before, %d times that it remembers; the last:\n", len(all)-1)
		}
		if i == 1 {
			return
		}
	}
}

// times is so many of a thing.
func times(n int32, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func parts(plugins map[string]int64) string {
	var words []string
	for name, n := range plugins { //tidy:ordered sorted below
		words = append(words, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}
