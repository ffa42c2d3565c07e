package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

type drainFlags struct {
	labels, podLabels           string
	dry                         dryRun
	force, emptyDir, ignoreSets bool
	disableEviction             bool
	grace                       int64
	timeout                     time.Duration
}

// evictRetry is how long a budget is waited for between attempts, as in kubectl.
const evictRetry = 5 * time.Second

func (s *session) drainCommand() *cobra.Command {
	var f drainFlags
	cmd := &cobra.Command{
		Use:   "drain NODE...",
		Short: "Cordons nodes and evicts their pods, as disruption budgets allow it",
		RunE:  s.connected(func(ctx context.Context, args []string) error { return s.drainAll(ctx, &f, args) }),
	}
	fs := cmd.Flags()
	fs.StringVarP(&f.labels, "selector", "l", "", "labels that the nodes must have")
	fs.StringVar(&f.podLabels, "pod-selector", "", "only pods with these labels")
	fs.BoolVar(&f.force, "force", false, "also pods that no controller makes anew")
	fs.BoolVar(&f.emptyDir, "delete-emptydir-data", false, "also pods with emptyDir volumes, whose data is deleted")
	fs.BoolVar(&f.ignoreSets, "ignore-daemonsets", false, "accepted: there are no daemon sets here")
	fs.BoolVar(&f.disableEviction, "disable-eviction", false, "not supported: it would pass disruption budgets by")
	fs.Int64Var(&f.grace, "grace-period", -1, "seconds that a pod may take to end; negative: its own")
	fs.DurationVar(&f.timeout, "timeout", 0, "how long it may take in all; 0: as long as it takes")
	f.dry.declare(cmd)
	return cmd
}

func (s *session) drainAll(ctx context.Context, f *drainFlags, args []string) error {
	if err := f.dry.check(); err != nil {
		return err
	}
	if f.disableEviction {
		return usage("--disable-eviction is not supported: it would pass disruption budgets by; change the budget, or delete the pods")
	}
	nodes, err := s.nodes(ctx, args, f.labels)
	if err != nil {
		return err
	}
	for _, n := range nodes { // All first: else the pods of one would move to the next.
		if err := s.cordon(ctx, n, true, &f.dry); err != nil {
			return err
		}
	}
	limited, cancel := patience(ctx, f.timeout)
	defer cancel()
	for _, n := range nodes {
		err := s.drain(limited, f, n)
		if limited.Err() != nil && ctx.Err() == nil {
			return fmt.Errorf("unable to drain %s within --timeout=%v: %w; it stays cordoned, 'uncordon' it or drain on", titled(n), f.timeout, errOr(err, errWaited))
		}
		if err != nil {
			return err
		}
		s.printf("%s drained%s\n", titled(n), f.dry.note())
	}
	return nil
}

// errOr is what a wait ended with, unless that is only that its time was over.
func errOr(err, otherwise error) error {
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		return otherwise
	}
	return err
}

func (s *session) drain(ctx context.Context, f *drainFlags, n *corev1.Node) error {
	pods, err := ask(ctx, s, func(ctx context.Context) ([]*corev1.Pod, error) {
		pods, _, err := objects.List[*corev1.Pod](ctx, s.client, objects.ListOptions{Fields: "spec.nodeName=" + n.Name, Labels: f.podLabels, Limit: listPage})
		return pods, err
	})
	if err != nil {
		return err
	}
	pods = slices.DeleteFunc(pods, mirrored)
	if err := f.permits(n, pods); err != nil {
		return err
	}
	for _, p := range pods {
		s.printf("evicting pod %s/%s%s\n", p.Namespace, p.Name, f.dry.note())
	}
	if f.dry.client() {
		return nil
	}
	if err := s.evictAll(ctx, f, pods); err != nil {
		return err
	}
	if f.dry.mode != "none" {
		return nil
	}
	for _, p := range pods {
		if err := s.awaitGone(ctx, 0, []api.Object{p}); err != nil {
			return fmt.Errorf("pod/%s was evicted and has not ended: %w", p.GetName(), err)
		}
		s.printf("pod/%s evicted\n", p.GetName())
	}
	return nil
}

// mirrored reports whether a pod is the node's own, and no one else's to end.
func mirrored(p *corev1.Pod) bool { return api.IsMirror(p) }

// permits refuses before anything is evicted what flags must permit.
func (f *drainFlags) permits(n *corev1.Node, pods []*corev1.Pod) error {
	var data, bare []string
	for _, p := range pods {
		if finished(p) {
			continue
		}
		name := p.Namespace + "/" + p.Name
		if !f.emptyDir && slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.EmptyDir != nil }) {
			data = append(data, name)
		}
		if !f.force && metav1.GetControllerOf(p) == nil {
			bare = append(bare, name)
		}
	}
	var reasons []string
	if data != nil {
		reasons = append(reasons, "cannot delete Pods with local storage (use --delete-emptydir-data to override): "+strings.Join(data, ", "))
	}
	if bare != nil {
		reasons = append(reasons, "cannot delete Pods that declare no controller (use --force to override): "+strings.Join(bare, ", "))
	}
	if reasons == nil {
		return nil
	}
	return fmt.Errorf("unable to drain node %q, it stays cordoned: %s", n.Name, strings.Join(reasons, "; "))
}

// evictAll asks until all may go. One whose disruption budget allows none now holds up
// none of the others.
func (s *session) evictAll(ctx context.Context, f *drainFlags, pods []*corev1.Pod) error {
	for {
		var left []*corev1.Pod
		for _, p := range pods {
			again, err := s.evict(ctx, f, p)
			if again {
				fmt.Fprintf(s.Err, "error when evicting pods/%q -n %q (will retry after %v): %v\n", p.Name, p.Namespace, evictRetry, err)
				left = append(left, p)
			} else if err != nil {
				return err
			}
		}
		if len(left) == 0 {
			return nil
		}
		pods = left
		if err := s.sleep(ctx, evictRetry); err != nil {
			return fmt.Errorf("pod %s/%s could not be evicted: %w", left[0].Namespace, left[0].Name, errWaited)
		}
	}
}

// evict asks once, and tells whether it may be another answer later.
func (s *session) evict(ctx context.Context, f *drainFlags, p *corev1.Pod) (again bool, err error) {
	r := &kubepb.EvictRequest{
		Pod:    &kubepb.Ref{Kind: api.Pod.Name, Namespace: p.Namespace, Name: p.Name},
		DryRun: f.dry.server(), Preconditions: &kubepb.Preconditions{Uid: string(p.UID)},
	}
	if f.grace >= 0 { // As with delete, none would leave the node alone with its pod.
		r.GraceSet, r.GraceSeconds = true, max(f.grace, 1)
	}
	_, err = ask(ctx, s, func(ctx context.Context) (*kubepb.WriteResponse, error) { return s.client.Evict(ctx, r) })
	switch {
	case err == nil || isNotFound(err):
		return false, nil
	case errors.Is(err, objects.ErrGuard):
		if now, e := s.getIn(ctx, api.Pod, p.Namespace, p.Name); isNotFound(e) || e == nil && now.GetUID() != p.UID {
			return false, nil // Another of its name.
		}
		return false, err
	}
	return errors.Is(err, objects.ErrFull) || broken(err), err
}

func (s *session) getIn(ctx context.Context, k *api.Kind, namespace, name string) (api.Object, error) {
	return ask(ctx, s, func(ctx context.Context) (api.Object, error) { return s.client.Get(ctx, k, namespace, name) })
}
