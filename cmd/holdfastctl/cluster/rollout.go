package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/controller/rollout"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Annotations of deployments and their sets, as Kubernetes has them.
const (
	causeNote     = "kubernetes.io/change-cause"
	restartedNote = "kubectl.kubernetes.io/restartedAt"
)

type rolloutFlags struct {
	watch    bool
	timeout  time.Duration
	revision int64
}

func (s *session) rolloutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rollout status|history|undo|pause|resume|restart DEPLOYMENT", Short: "Follows and steers how a deployment changes over",
		RunE: func(_ *cobra.Command, args []string) error {
			return usage("rollout %s: there are status, history, undo, pause, resume and restart", strings.Join(args, " "))
		},
	}
	var status, history, undo rolloutFlags
	sub := func(use, short string, f *rolloutFlags, run func(context.Context, target, *rolloutFlags) error) *cobra.Command {
		c := &cobra.Command{Use: use + " deployment NAME | deployment/NAME", Short: short, RunE: s.connected(func(ctx context.Context, args []string) error {
			t, err := one(args, api.Deployment)
			if err != nil {
				return err
			}
			return run(ctx, t, f)
		})}
		cmd.AddCommand(c)
		return c
	}
	c := sub("status", "Waits until a rollout is done", &status, s.rolloutStatus)
	c.Flags().BoolVarP(&status.watch, "watch", "w", true, "until it is done")
	c.Flags().DurationVar(&status.timeout, "timeout", 0, "how long to wait; 0: as long as it takes")
	c.Flags().Int64Var(&status.revision, "revision", 0, "fail when another revision than this is rolled out")
	c = sub("history", "Lists the revisions that there are", &history, s.rolloutHistory)
	c.Flags().Int64Var(&history.revision, "revision", 0, "show the pod template of this revision")
	c = sub("undo", "Goes back to an earlier revision", &undo, s.rolloutUndo)
	c.Flags().Int64Var(&undo.revision, "to-revision", 0, "which; 0: the one before")
	sub("pause", "Has changes of the template wait", nil, func(ctx context.Context, t target, _ *rolloutFlags) error { return s.rolloutPause(ctx, t, true) })
	sub("resume", "Rolls out what waits", nil, func(ctx context.Context, t target, _ *rolloutFlags) error { return s.rolloutPause(ctx, t, false) })
	sub("restart", "Replaces all pods", nil, s.rolloutRestart)
	return cmd
}

func (s *session) deployment(ctx context.Context, t target) (*appsv1.Deployment, error) {
	o, err := s.get(ctx, t)
	if err != nil {
		return nil, err
	}
	return o.(*appsv1.Deployment), nil
}

// progressOf says how far a rollout is, in kubectl's words.
func progressOf(d *appsv1.Deployment) (text string, done bool, err error) {
	if d.Generation > d.Status.ObservedGeneration {
		return "Waiting for deployment spec update to be observed...", false, nil
	}
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentProgressing && c.Reason == "ProgressDeadlineExceeded" {
			return "", false, fmt.Errorf("deployment %q exceeded its progress deadline; 'describe' and 'why' its pods, or 'rollout undo'", d.Name)
		}
	}
	st, wait := &d.Status, fmt.Sprintf("Waiting for deployment %q rollout to finish: ", d.Name)
	switch want := deref(d.Spec.Replicas, 1); {
	case st.UpdatedReplicas < want:
		return wait + fmt.Sprintf("%d out of %d new replicas have been updated...", st.UpdatedReplicas, want), false, nil
	case st.Replicas > st.UpdatedReplicas:
		return wait + fmt.Sprintf("%d old replicas are pending termination...", st.Replicas-st.UpdatedReplicas), false, nil
	case st.AvailableReplicas < st.UpdatedReplicas:
		return wait + fmt.Sprintf("%d of %d updated replicas are available...", st.AvailableReplicas, st.UpdatedReplicas), false, nil
	}
	return fmt.Sprintf("deployment %q successfully rolled out", d.Name), true, nil
}

func (s *session) rolloutStatus(ctx context.Context, t target, f *rolloutFlags) error {
	d, err := s.deployment(ctx, t)
	if err != nil {
		return err
	}
	if !f.watch {
		text, _, err := progressOf(d)
		if err == nil {
			s.printf("%s\n", text)
		}
		return err
	}
	limited, cancel := patience(ctx, f.timeout)
	defer cancel()
	over, last := errors.New("done"), ""
	o := objects.ListOptions{Namespace: s.home, Fields: "metadata.name=" + t.name, Limit: listPage}
	w := &watched{session: s, options: o, kind: api.Deployment, seen: map[string]string{}}
	w.show = func(o api.Object) error {
		d := o.(*appsv1.Deployment)
		if f.revision != 0 && d.Annotations[rollout.Revision] != strconv.FormatInt(f.revision, 10) {
			return fmt.Errorf("desired revision (%d) is different from the running revision (%s)", f.revision, d.Annotations[rollout.Revision])
		}
		text, done, err := progressOf(d)
		if err != nil {
			return err
		}
		if text != last {
			s.printf("%s\n", text)
			last = text
		}
		if done {
			return over
		}
		return nil
	}
	w.each = func() error {
		if len(w.seen) == 0 {
			return fmt.Errorf("deployment %q was deleted while its rollout was waited for", t.name)
		}
		return nil
	}
	switch err = w.run(limited); {
	case err == over:
		return nil
	case limited.Err() != nil && ctx.Err() == nil:
		return fmt.Errorf("%w: %s", errWaited, last)
	}
	return err
}

// sets are the replica sets of a deployment.
func (s *session) sets(ctx context.Context, d *appsv1.Deployment) ([]*appsv1.ReplicaSet, error) {
	all, err := ask(ctx, s, func(ctx context.Context) ([]*appsv1.ReplicaSet, error) {
		all, _, err := objects.List[*appsv1.ReplicaSet](ctx, s.client, objects.ListOptions{
			Namespace: d.Namespace, Labels: metav1.FormatLabelSelector(d.Spec.Selector), Limit: listPage,
		})
		return all, err
	})
	return slices.DeleteFunc(all, func(r *appsv1.ReplicaSet) bool { return !metav1.IsControlledBy(r, d) }), err
}

func (s *session) rolloutHistory(ctx context.Context, t target, f *rolloutFlags) error {
	d, err := s.deployment(ctx, t)
	if err != nil {
		return err
	}
	sets, err := s.sets(ctx, d)
	if err != nil {
		return err
	}
	sets = rollout.History(sets)
	if f.revision != 0 {
		i := slices.IndexFunc(sets, func(r *appsv1.ReplicaSet) bool { return rollout.RevisionOf(r) == f.revision })
		if i < 0 {
			return fmt.Errorf("unable to find revision %d of %s; there are %s", f.revision, titled(d), revisionsOf(sets))
		}
		s.printf("%s with revision #%d\n", titled(d), f.revision)
		describeTemplate(s.Out, &sets[i].Spec.Template)
		return nil
	}
	s.printf("%s \n", titled(d))
	g := &grid{out: s.Out}
	g.add("REVISION", "CHANGE-CAUSE")
	for _, r := range sets {
		g.add(strconv.FormatInt(rollout.RevisionOf(r), 10), orNone(printable(r.Annotations[causeNote])))
	}
	g.flush()
	return nil
}

func revisionsOf(sets []*appsv1.ReplicaSet) string {
	var words []string
	for _, r := range sets {
		words = append(words, strconv.FormatInt(rollout.RevisionOf(r), 10))
	}
	if words == nil {
		return "none"
	}
	return strings.Join(words, ", ")
}

// rolloutUndo gives a deployment the template of an earlier set, unless it is changed
// meanwhile.
func (s *session) rolloutUndo(ctx context.Context, t target, f *rolloutFlags) error {
	d, err := s.deployment(ctx, t)
	if err != nil {
		return err
	}
	sets, err := s.sets(ctx, d)
	if err != nil {
		return err
	}
	back, to, err := rollout.Undo(d, sets, f.revision)
	if errors.Is(err, rollout.ErrSame) {
		s.printf("%s skipped rollback (current template already matches revision %d)\n", titled(d), f.revision)
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := s.within(ctx)
	defer cancel()
	if _, _, err := s.client.Update(ctx, back); err != nil {
		return fmt.Errorf("undo to revision %d: %w", to, err)
	}
	s.printf("%s rolled back\n", titled(d))
	return nil
}

func (s *session) rolloutPause(ctx context.Context, t target, pause bool) error {
	d, err := s.deployment(ctx, t)
	if err != nil {
		return err
	}
	word := map[bool]string{true: "paused", false: "resumed"}[pause]
	if d.Spec.Paused == pause {
		if !pause {
			return fmt.Errorf("%s is not paused", titled(d))
		}
		return fmt.Errorf("%s is already paused", titled(d))
	}
	return s.patched(ctx, d, fmt.Sprintf(`{"spec":{"paused":%t}}`, pause), word)
}

func (s *session) rolloutRestart(ctx context.Context, t target, _ *rolloutFlags) error {
	d, err := s.deployment(ctx, t)
	if err != nil {
		return err
	}
	if d.Spec.Paused {
		return fmt.Errorf("%s is paused and cannot restart: 'rollout resume' it first", titled(d))
	}
	at, err := json.Marshal(s.Clock.Wall().UTC().Format(time.RFC3339))
	if err != nil {
		return err
	}
	return s.patched(ctx, d, fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{%q:%s}}}}}`, restartedNote, at), "restarted")
}

// patched merges a change into an object and says so.
func (s *session) patched(ctx context.Context, o api.Object, patch, word string, options ...objects.Option) error {
	k := api.KindOf(o)
	ctx, cancel := s.within(ctx)
	defer cancel()
	made, _, err := s.client.Patch(ctx, k, o.GetNamespace(), o.GetName(), kubepb.PatchRequest_MERGE, []byte(patch),
		append(options, objects.Option{UID: string(o.GetUID())})...)
	if err != nil {
		return err
	}
	s.printf("%s %s\n", titled(made), word)
	return nil
}
