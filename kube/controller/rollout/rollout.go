// Package rollout decides how a Deployment goes from one template to the next, and
// back.
//
// It is a pure function from a Deployment and its ReplicaSets to a plan: one write
// of sets at a time, then a status. The controller beside it carries it out and the
// command line takes Undo from here.
//
// Always true, at every revision of the store, whatever lags: the active pods of all
// sets are at most replicas + maxSurge, and no plan takes pods that are available
// below replicas - maxUnavailable. For the first, a set counts for as many pods as
// it may still have: until its controller has observed a change of its size, nothing
// grows. For the second it counts for no more than it will keep.
//
// What is kept lies in annotations, with Kubernetes' own names: the revision on sets
// and Deployment, the size that a set was last scaled for.
package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/controller/replica"
)

// Annotations and labels.
const (
	Revision        = "deployment.kubernetes.io/revision"
	RevisionHistory = "deployment.kubernetes.io/revision-history"
	DesiredReplicas = "deployment.kubernetes.io/desired-replicas"
	MaxReplicas     = "deployment.kubernetes.io/max-replicas"
	HashLabel       = appsv1.DefaultDeploymentUniqueLabelKey

	// RollbackTo on a Deployment asks for an undo, to the revision it names; 0: to the
	// one before. It is taken off once done.
	RollbackTo = "holdfast.dev/rollback-to"
	// RollbackOnDeadline: "true" asks for an undo once a rollout misses its deadline.
	RollbackOnDeadline = "holdfast.dev/rollback-on-deadline"
	// RolledBack tells the hash of the template that such an undo went back to: it is
	// not undone again.
	RolledBack = "holdfast.dev/rolled-back-to"

	lastApplied = "kubectl.kubernetes.io/last-applied-configuration"
)

const (
	deadlineDefault = 600 // Seconds.
	historyDefault  = 10
)

// Facts are what a plan is made from.
type Facts struct {
	Deployment *appsv1.Deployment
	Sets       []*appsv1.ReplicaSet // That it owns, none that is being deleted.
	Now        time.Time
}

// Size is what a set shall have.
type Size struct {
	Set      *appsv1.ReplicaSet
	Replicas int32
}

// Plan is what to do next. Of its writes, in this order, each is guarded by the
// resource version of what it changes and of the Deployment.
type Plan struct {
	Undo     *appsv1.Deployment   // Update the Deployment to this and plan anew; nothing else is set.
	Update   []*appsv1.ReplicaSet // Changed annotations, or a changed minReadySeconds.
	Create   *appsv1.ReplicaSet
	Sizes    []Size
	Delete   []*appsv1.ReplicaSet // Beyond the history.
	Revision string               // For the Deployment's annotation.
	Status   appsv1.DeploymentStatus
	Notes    []Note
	Again    time.Duration // Until the progress deadline. 0: nothing to wait for.
}

// Note is to become an event.
type Note struct {
	Warning         bool
	Reason, Message string
}

func (p *Plan) note(reason, format string, args ...any) {
	p.Notes = append(p.Notes, Note{Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// state is what the steps of a plan share.
type state struct {
	Facts
	plan     *Plan
	current  *appsv1.ReplicaSet   // Of the Deployment's template; nil: not there yet.
	old      []*appsv1.ReplicaSet // The others, oldest first.
	desired  int32
	surge    int32
	minimum  int32 // Of available pods.
	recreate bool
}

// Make plans the next step of one Deployment.
func Make(f Facts) (Plan, error) {
	p := Plan{}
	s := &state{Facts: f, plan: &p, desired: wanted(f.Deployment.Spec.Replicas), recreate: recreates(f.Deployment)}
	unavailable := int32(0)
	if !s.recreate {
		var err error
		if s.surge, unavailable, err = Bounds(f.Deployment); err != nil {
			return p, err
		}
	}
	s.minimum = s.desired - unavailable
	s.sort()
	if f.Deployment.DeletionTimestamp != nil {
		s.status()
		return p, nil
	}
	if done, err := s.undo(); done || err != nil {
		return p, err
	}
	s.number()
	switch {
	case len(s.plan.Update) > 0 || s.plan.Create != nil: // One kind of write at a time: what comes next counts on it.
	case s.scaling():
		s.scale()
	case f.Deployment.Spec.Paused:
		s.revive()
	case s.recreate:
		s.replace()
	default:
		s.roll()
	}
	s.status()
	if s.complete() {
		s.history()
	}
	s.deadlineMissed()
	return p, nil
}

func wanted(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

// recreates: a singleton has no surge, and its next copy waits for the last.
func recreates(d *appsv1.Deployment) bool {
	return d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || replica.IsSingleton(d.Spec.Template.Annotations)
}

// Bounds are maxSurge and maxUnavailable in pods. They are never both 0: a rollout
// could not begin.
func Bounds(d *appsv1.Deployment) (surge, unavailable int32, err error) {
	quarter := intstr.FromString("25%")
	wantSurge, wantUnavailable := &quarter, &quarter
	if r := d.Spec.Strategy.RollingUpdate; r != nil {
		wantSurge, wantUnavailable = cmp.Or(r.MaxSurge, wantSurge), cmp.Or(r.MaxUnavailable, wantUnavailable)
	}
	desired := int(wanted(d.Spec.Replicas))
	up, err := intstr.GetScaledValueFromIntOrPercent(wantSurge, desired, true)
	if err != nil {
		return 0, 0, fmt.Errorf("spec.strategy.rollingUpdate.maxSurge: %w", err)
	}
	down, err := intstr.GetScaledValueFromIntOrPercent(wantUnavailable, desired, false)
	if err != nil {
		return 0, 0, fmt.Errorf("spec.strategy.rollingUpdate.maxUnavailable: %w", err)
	}
	if up == 0 && down == 0 {
		down = 1
	}
	// Whoever says more than can be counted means no bound.
	return int32(min(max(up, 0), math.MaxInt32-desired)), int32(min(max(down, 0), desired)), nil
}

// sort finds the set of the present template. Of several the oldest is it.
func (s *state) sort() {
	sets := slices.Clone(s.Sets)
	slices.SortFunc(sets, func(a, b *appsv1.ReplicaSet) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	for _, set := range sets {
		if s.current == nil && sameTemplate(&set.Spec.Template, &s.Deployment.Spec.Template) {
			s.current = set
		} else {
			s.old = append(s.old, set)
		}
	}
}

func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	x, y := a.DeepCopy(), b.DeepCopy()
	delete(x.Labels, HashLabel)
	delete(y.Labels, HashLabel)
	return equality.Semantic.DeepEqual(x, y)
}

// number gives the present template its set and the set its revision.
func (s *state) number() {
	latest := int64(0)
	for _, set := range s.old {
		latest = max(latest, RevisionOf(set))
	}
	next := strconv.FormatInt(latest+1, 10)
	if s.current == nil {
		if s.Deployment.Spec.Paused {
			s.plan.Revision = s.Deployment.Annotations[Revision]
			return
		}
		s.create(next)
		return
	}
	changed := s.current.DeepCopy()
	if RevisionOf(s.current) <= latest {
		if old := changed.Annotations[Revision]; old != "" {
			changed.Annotations[RevisionHistory] = joined(changed.Annotations[RevisionHistory], old)
		}
		annotate(changed, Revision, next)
		s.plan.note("Undone", "%s is revision %s again", changed.Name, next)
	}
	s.annotations(changed)
	changed.Spec.MinReadySeconds = s.Deployment.Spec.MinReadySeconds
	s.plan.Revision = changed.Annotations[Revision]
	if !equality.Semantic.DeepEqual(changed, s.current) {
		s.plan.Update = append(s.plan.Update, changed)
	}
}

func joined(list, item string) string {
	if list == "" {
		return item
	}
	return list + "," + item
}

func annotate(o metav1.Object, key, value string) {
	a := o.GetAnnotations()
	if a == nil {
		a = map[string]string{}
	}
	a[key] = value
	o.SetAnnotations(a)
}

// own are annotations that are not copied between a Deployment and its sets.
var own = []string{Revision, RevisionHistory, DesiredReplicas, MaxReplicas, RollbackTo, RollbackOnDeadline, RolledBack, lastApplied}

// annotations copies the Deployment's, so that an undo brings back such as the
// cause of a change.
func (s *state) annotations(set *appsv1.ReplicaSet) {
	for k, v := range s.Deployment.Annotations {
		if !slices.Contains(own, k) {
			annotate(set, k, v)
		}
	}
}

// sized tells in a set for what size of the Deployment it was scaled.
func (s *state) sized(set *appsv1.ReplicaSet) {
	annotate(set, DesiredReplicas, strconv.Itoa(int(s.desired)))
	annotate(set, MaxReplicas, strconv.Itoa(int(s.desired+s.surge)))
}

// RevisionOf is the revision that a set or a Deployment has; 0: none yet.
func RevisionOf(o metav1.Object) int64 {
	n, err := strconv.ParseInt(o.GetAnnotations()[Revision], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// setNameMax bytes of the name of a deployment are in those of its sets: there is room for a
// hash, and in the names of their pods for another.
const setNameMax = api.NameBytesMax - 11 - 6

// create plans the set of the present template.
func (s *state) create(revision string) {
	d := s.Deployment
	hash := Hash(&d.Spec.Template, d.Status.CollisionCount)
	template := *d.Spec.Template.DeepCopy()
	template.Labels = with(template.Labels, HashLabel, hash)
	selector := d.Spec.Selector.DeepCopy()
	selector.MatchLabels = with(selector.MatchLabels, HashLabel, hash)
	replicas := int32(0)
	switch total, settled := s.total(); {
	case s.recreate && (total > 0 || !settled || s.leaving() > 0): // The old ones first.
	case settled:
		replicas = max(0, min(s.desired, s.desired+s.surge-total))
	}
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: d.Namespace, Name: api.ClipName(d.Name, setNameMax) + "-" + hash, Labels: maps.Clone(template.Labels),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: &replicas, MinReadySeconds: d.Spec.MinReadySeconds, Selector: selector, Template: template},
	}
	s.annotations(set)
	annotate(set, Revision, revision)
	s.sized(set)
	s.plan.Create, s.plan.Revision = set, revision
	s.plan.note("NewReplicaSet", "created %s with %d replicas as revision %s", set.Name, replicas, revision)
}

func with(m map[string]string, key, value string) map[string]string {
	c := maps.Clone(m)
	if c == nil {
		c = map[string]string{}
	}
	c[key] = value
	return c
}

// Hash tells templates apart. collisions is how often it failed to.
func Hash(t *corev1.PodTemplateSpec, collisions *int32) string {
	raw, err := t.Marshal()
	if err != nil { // Protobuf of a struct in memory; a template that is not UTF-8 still has a hash.
		raw = []byte(t.String())
	}
	return replica.Word(10, string(raw), strconv.Itoa(int(wantedOr0(collisions))))
}

func wantedOr0(n *int32) int32 {
	if n == nil {
		return 0
	}
	return *n
}
