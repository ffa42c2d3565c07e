// Package nodelife decides what follows when nodes fall silent: what they are marked
// with, which pods are to run elsewhere, and when it is wiser to do nothing.
//
// It is a pure function from facts to a plan. Times are kept where every controller
// finds them, in the taint: tolerations count from its timeAdded, whoever leads.
//
// Always true: while the brake is on, nobody is evicted because a node is silent. A
// singleton is taken from the store only once its node's lease has ended and the
// bound has passed within which its kubelet has stopped it, by the taint's time and by the
// clock of who plans.
package nodelife

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/controller/replica"
)

// Limits are how patient a plan is. Zero fields mean the defaults.
type Limits struct {
	Tolerance time.Duration // Of a pod that says nothing. Default 15 s.
	// SingletonBound is how long after the end of its lease a kubelet may still be about
	// to stop a singleton: clocks of different rates, and the kill. Default 5 s.
	SingletonBound time.Duration
	Window         time.Duration // Deaths within it are counted for the brake. Default 60 s.
	Calm           time.Duration // The brake stays on for so long after its cause. Default 60 s.
	Register       time.Duration // A new node may be silent for so long. Default 30 s.
}

// Defaults fills in what is not set.
func (l Limits) Defaults() Limits {
	set := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	set(&l.Tolerance, 15*time.Second)
	set(&l.SingletonBound, 5*time.Second)
	set(&l.Window, time.Minute)
	set(&l.Calm, time.Minute)
	set(&l.Register, 30*time.Second)
	return l
}

// deathsMin: with fewer silent nodes there is no brake: of two nodes one may die.
const deathsMin = 3

// Node is a node and whether its heartbeat key is there.
type Node struct {
	Object *corev1.Node
	Alive  bool

	// Silent is for how long whoever plans has seen that it is not, by a clock that never
	// jumps. The time of its taint is another's, or that of a clock that was set since.
	Silent time.Duration
}

// Brake is what is remembered from one plan to the next.
type Brake struct {
	Until time.Time // Zero: off.
	Why   string
	Told  bool // Somebody was kept from being evicted, and an event said so.
}

// On reports whether evictions stop.
func (b Brake) On() bool { return !b.Until.IsZero() }

// Facts are what a plan is made from.
type Facts struct {
	Nodes   []Node
	Pods    []*corev1.Pod // At least those on nodes that are silent or tainted.
	Brake   Brake
	Trouble time.Time // When the control plane was last without a quorum; zero: never.
	Limits  Limits
	Now     time.Time

	// Held: the store was restored, and it is not settled what runs. Unreported are nodes
	// that have not told since then whether they run the singletons that are theirs.
	Held       bool
	Unreported map[string]bool
}

// Plan is what to do.
type Plan struct {
	Nodes   []*corev1.Node // As they shall be: conditions, and taints.
	Unready []*corev1.Pod  // Ready no more, for all anybody knows.
	Evict   []Eviction
	Brake   Brake
	Notes   []Note
	Again   time.Duration // Until something is due. 0: nothing is.
}

// Eviction is the deletion of a pod. Force: its node cannot say that it has ended,
// and need not.
type Eviction struct {
	Pod   *corev1.Pod
	Force bool
	Why   string
}

// Note is to become an event of a node; of none: of the cluster.
type Note struct {
	Node            string
	Reason, Message string
}

type state struct {
	Facts
	plan      *Plan
	silentFor map[string]time.Duration // For how long each node is silent.
	due       time.Time                // The earliest time to look again.
}

// Make plans for all nodes.
func Make(f Facts) Plan {
	f.Limits = f.Limits.Defaults()
	p := Plan{}
	s := &state{Facts: f, plan: &p, silentFor: map[string]time.Duration{}}
	nodes := map[string]*corev1.Node{}
	silent := map[string]bool{}
	for _, n := range f.Nodes {
		s.silentFor[n.Object.Name] = n.Silent
		next, dead := s.mark(n)
		nodes[next.Name], silent[next.Name] = next, dead
	}
	s.brake(nodes, silent)
	for _, pod := range f.Pods {
		node := nodes[pod.Spec.NodeName]
		if node == nil || replica.Finished(pod) {
			continue
		}
		if _, ready := replica.Ready(pod); ready && silent[node.Name] {
			p.Unready = append(p.Unready, pod)
		}
		s.evict(node, pod)
	}
	if !s.due.IsZero() {
		p.Again = max(s.due.Sub(f.Now), time.Millisecond)
	}
	return p
}

func (s *state) again(at time.Time) {
	if at.After(s.Now) && (s.due.IsZero() || at.Before(s.due)) {
		s.due = at
	}
}

// mark decides conditions and taints of one node.
func (s *state) mark(n Node) (next *corev1.Node, dead bool) {
	ready := api.NodeReady(n.Object)
	if !n.Alive && ready == nil {
		if limit := n.Object.CreationTimestamp.Add(s.Limits.Register); s.Now.Before(limit) {
			s.again(limit)
			return n.Object, false
		}
	}
	if n.Alive && len(n.Object.Spec.Taints) == 0 && (ready == nil || ready.Status != corev1.ConditionFalse) {
		return n.Object, false // Almost all, almost always.
	}
	next = n.Object.DeepCopy()
	if s.remark(next, n.Alive, ready) {
		s.plan.Nodes = append(s.plan.Nodes, next)
	}
	return next, !n.Alive
}

// remark changes conditions and taints to what they should be.
func (s *state) remark(n *corev1.Node, alive bool, ready *corev1.NodeCondition) (changed bool) {
	switch {
	case !alive:
		changed = s.unknown(n)
		changed = s.taint(n, corev1.TaintNodeUnreachable) || changed
		return untaint(n, corev1.TaintNodeNotReady) || changed
	case ready != nil && ready.Status == corev1.ConditionFalse:
		changed = s.taint(n, corev1.TaintNodeNotReady)
		return untaint(n, corev1.TaintNodeUnreachable) || changed
	}
	changed = untaint(n, corev1.TaintNodeUnreachable)
	changed = untaint(n, corev1.TaintNodeNotReady) || changed
	if changed {
		s.note(n.Name, "NodeAlive", "it beats again, and is ready as far as it says")
	}
	return changed
}

func (s *state) note(node, reason, format string, args ...any) {
	s.plan.Notes = append(s.plan.Notes, Note{node, reason, fmt.Sprintf(format, args...)})
}

// unknown says of all conditions that nobody knows.
func (s *state) unknown(n *corev1.Node) (changed bool) {
	if api.NodeReady(n) == nil {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeReady})
	}
	for i := range n.Status.Conditions {
		c := &n.Status.Conditions[i]
		if c.Status == corev1.ConditionUnknown {
			continue
		}
		c.Status, c.Reason, c.Message = corev1.ConditionUnknown, "NodeStatusUnknown", "its heartbeat ended"
		c.LastTransitionTime = metav1.NewTime(s.Now)
		changed = true
	}
	if changed {
		s.note(n.Name, "NodeSilent", "its heartbeat ended")
	}
	return changed
}

func (s *state) taint(n *corev1.Node, key string) bool {
	if findTaint(n, key) != nil {
		return false
	}
	now := metav1.NewTime(s.Now)
	n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute, TimeAdded: &now})
	return true
}

func untaint(n *corev1.Node, key string) bool {
	before := len(n.Spec.Taints)
	n.Spec.Taints = slices.DeleteFunc(n.Spec.Taints, func(t corev1.Taint) bool {
		return t.Key == key && t.Effect == corev1.TaintEffectNoExecute
	})
	return len(n.Spec.Taints) != before
}

func findTaint(n *corev1.Node, key string) *corev1.Taint {
	for i := range n.Spec.Taints {
		if t := &n.Spec.Taints[i]; t.Key == key && t.Effect == corev1.TaintEffectNoExecute {
			return t
		}
	}
	return nil
}

// brake decides whether silence means death.
func (s *state) brake(nodes map[string]*corev1.Node, silent map[string]bool) {
	b := s.Brake
	until, why := s.cause(nodes, silent)
	switch {
	case why != "":
		b = Brake{until, why, b.Told && b.On()}
	case b.On() && !s.Now.Before(b.Until):
		if b.Told {
			s.note("", "EvictionsResumed", "calm for %v since: %s", s.Limits.Calm, b.Why)
		}
		b = Brake{}
	case b.On() && s.Now.Add(s.Limits.Calm).Before(b.Until):
		b.Until = s.Now.Add(s.Limits.Calm) // The cause is gone earlier than its time.
	}
	if b.On() {
		s.again(b.Until)
		if !b.Told && anyOf(silent) {
			s.note("", "EvictionsStopped", "%s: no pod is evicted before that is over for %v", b.Why, s.Limits.Calm)
			b.Told = true
		}
	}
	s.plan.Brake = b
}

// cause is why the brake has to be on now, and until when.
func (s *state) cause(nodes map[string]*corev1.Node, silent map[string]bool) (until time.Time, why string) {
	until, why = s.massDeath(nodes, silent)
	if calm := s.Trouble.Add(s.Limits.Calm); !s.Trouble.IsZero() && s.Now.Before(calm) {
		if why == "" {
			why = "a short time ago the control plane had no quorum, or nobody looked"
		}
		if until.Before(calm) {
			until = calm
		}
	}
	if s.Held {
		until, why = s.Now.Add(s.Limits.Calm), "the store was restored, and it is not settled what runs"
	}
	return until, why
}

// massDeath reports whether more than half of the nodes fell silent within the window. The
// brake is then on until it is calm for long enough after that, whenever the next plan is
// made and by whom: neither a controller that stood still meanwhile nor the next that leads
// must find that all is over.
func (s *state) massDeath(nodes map[string]*corev1.Node, silent map[string]bool) (until time.Time, why string) {
	var deaths []time.Time // When each is out of the window.
	for name, n := range nodes {
		t := findTaint(n, corev1.TaintNodeUnreachable)
		if !silent[name] || t == nil {
			continue
		}
		ends := s.since(n, t).Add(s.Limits.Window)
		deaths = append(deaths, ends)
		s.again(ends)
	}
	slices.SortFunc(deaths, time.Time.Compare)
	enough := max(deathsMin, len(nodes)/2+1)
	for last := len(deaths) - 1; last >= enough-1; last-- {
		together := func(i int) bool { return deaths[last].Sub(deaths[i]) < s.Limits.Window }
		first := last - enough + 1
		if !together(first) {
			continue
		}
		if until = deaths[first].Add(s.Limits.Calm); !s.Now.Before(until) {
			break
		}
		for first > 0 && together(first-1) {
			first--
		}
		return until, fmt.Sprintf("%d of %d nodes fell silent within %v", last-first+1, len(nodes), s.Limits.Window)
	}
	return time.Time{}, ""
}

func anyOf(set map[string]bool) bool {
	for _, in := range set {
		if in {
			return true
		}
	}
	return false
}

// evict decides about one pod.
func (s *state) evict(node *corev1.Node, pod *corev1.Pod) {
	due, because := s.driven(node, pod)
	unreachable := findTaint(node, corev1.TaintNodeUnreachable)
	force := unreachable != nil && replica.IsSingleton(pod.Annotations) && !s.plan.Brake.On()
	if force {
		stopped := s.since(node, unreachable).Add(s.Limits.SingletonBound)
		if seen := s.Now.Add(s.Limits.SingletonBound - s.silentFor[node.Name]); stopped.Before(seen) {
			stopped = seen
		}
		if pod.DeletionTimestamp != nil { // Somebody wants it gone, and its node does not answer.
			due, because = stopped, unreachable
		}
		if due.Before(stopped) {
			due = stopped
		}
	}
	switch {
	case s.Unreported[node.Name] && replica.IsSingleton(pod.Annotations): // It may run there.
	case because == nil || pod.DeletionTimestamp != nil && !force:
	case due.After(s.Now):
		s.again(due)
	default:
		s.plan.Evict = append(s.plan.Evict, Eviction{pod, force, fmt.Sprintf("node %s has the taint %s", node.Name, because.Key)})
	}
}

// driven is which taint drives a pod out first, and when. Nil: none does.
func (s *state) driven(node *corev1.Node, pod *corev1.Pod) (due time.Time, because *corev1.Taint) {
	for i := range node.Spec.Taints {
		t := &node.Spec.Taints[i]
		if t.Effect != corev1.TaintEffectNoExecute || ours(t) && s.plan.Brake.On() {
			continue
		}
		wait, ends := s.patience(pod, t)
		if !ends {
			continue
		}
		if at := s.since(node, t).Add(wait); because == nil || at.Before(due) {
			due, because = at, t
		}
	}
	return due, because
}

// since is when a taint was put. One that does not say so was put now: patience
// begins anew with each look, and nothing happens too early. Where the time is to come, it
// is that of another clock, or of this one before it was set: a silent node has been so for
// as long as that is seen.
func (s *state) since(n *corev1.Node, t *corev1.Taint) time.Time {
	if t.TimeAdded == nil {
		return s.Now
	}
	at := t.TimeAdded.Time
	if t.Key == corev1.TaintNodeUnreachable && at.After(s.Now) {
		return s.Now.Add(-s.silentFor[n.Name])
	}
	return at
}

func ours(t *corev1.Taint) bool {
	return t.Key == corev1.TaintNodeUnreachable || t.Key == corev1.TaintNodeNotReady
}

// patience is how long a pod bears a taint, unless forever.
func (s *state) patience(pod *corev1.Pod, t *corev1.Taint) (wait time.Duration, ends bool) {
	tolerated := false
	for i := range pod.Spec.Tolerations {
		o := &pod.Spec.Tolerations[i]
		if !tolerates(o, t) {
			continue
		}
		tolerated = true
		if o.TolerationSeconds == nil {
			continue
		}
		if d := api.Seconds(*o.TolerationSeconds); !ends || d < wait {
			wait, ends = d, true
		}
	}
	switch {
	case tolerated:
		return wait, ends
	case ours(t):
		return s.Limits.Tolerance, true
	}
	return 0, true
}

func tolerates(o *corev1.Toleration, t *corev1.Taint) bool {
	if o.Effect != "" && o.Effect != t.Effect || o.Key != "" && o.Key != t.Key {
		return false
	}
	if o.Operator == corev1.TolerationOpExists {
		return true
	}
	return o.Key != "" && o.Value == t.Value
}
