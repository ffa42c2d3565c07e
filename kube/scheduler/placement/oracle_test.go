package placement

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/holdfast-db/holdfast/kube/api"
)

// oracle knows the rules and nothing of how they are made fast: it walks over all
// pods and nodes for each question.
type oracle struct {
	nodes map[string]*corev1.Node
	pods  map[Key]*corev1.Pod // With their node.
}

func (o *oracle) fits(p *corev1.Pod, n *corev1.Node) bool {
	return o.open(p, n) && selected(p, n) && o.room(p, n) && o.spread(p, n) && o.company(p, n)
}

func (o *oracle) open(p *corev1.Pod, n *corev1.Node) bool {
	all := len(p.Spec.Tolerations) > 0 // The only one that is drawn tolerates everything.
	ready := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	return all || ready && !n.Spec.Unschedulable && len(n.Spec.Taints) == 0
}

func selected(p *corev1.Pod, n *corev1.Node) bool {
	return labels.SelectorFromSet(p.Spec.NodeSelector).Matches(labels.Set(n.Labels))
}

func (o *oracle) room(p *corev1.Pod, n *corev1.Node) bool {
	asks, offers := api.PodRequests(&p.Spec), api.NodeResources(n)
	var sum api.Resources
	sum.Add(asks)
	for _, other := range o.pods {
		if other.Spec.NodeName != n.Name {
			continue
		}
		theirs := api.PodRequests(&other.Spec)
		for _, a := range asks.HostPorts {
			if slices.ContainsFunc(theirs.HostPorts, a.Conflicts) {
				return false
			}
		}
		sum.Add(theirs)
	}
	// What a pod does not ask for may be short: a node can shrink.
	return (sum.MilliCPU <= offers.MilliCPU || asks.MilliCPU == 0) && (sum.Memory <= offers.Memory || asks.Memory == 0) && sum.Pods <= offers.Pods
}

func (o *oracle) count(namespace string, s *metav1.LabelSelector, key, domain string, living bool) int {
	selector, _ := metav1.LabelSelectorAsSelector(s)
	n := 0
	for _, p := range o.pods {
		node := o.nodes[p.Spec.NodeName]
		if node == nil || p.Namespace != namespace || living && p.DeletionTimestamp != nil || !selector.Matches(labels.Set(p.Labels)) {
			continue
		}
		if v, ok := node.Labels[key]; ok && (domain == "*" || v == domain) {
			n++
		}
	}
	return n
}

func (o *oracle) spread(p *corev1.Pod, n *corev1.Node) bool {
	for _, c := range p.Spec.TopologySpreadConstraints {
		domain, ok := n.Labels[c.TopologyKey]
		if !ok {
			return false
		}
		fewest := -1
		for _, other := range o.nodes {
			d, ok := other.Labels[c.TopologyKey]
			if !ok || !selected(p, other) {
				continue
			}
			// Only zones are drawn for pods that select nodes, and they select by zone: a
			// domain counts whole or not at all.
			if n := o.count(p.Namespace, c.LabelSelector, c.TopologyKey, d, true); fewest < 0 || n < fewest {
				fewest = n
			}
		}
		self := o.isOne(p, c.LabelSelector)
		if o.count(p.Namespace, c.LabelSelector, c.TopologyKey, domain, true)+self-fewest > int(c.MaxSkew) {
			return false
		}
	}
	return true
}

func (o *oracle) isOne(p *corev1.Pod, s *metav1.LabelSelector) int {
	if selector, _ := metav1.LabelSelectorAsSelector(s); selector.Matches(labels.Set(p.Labels)) {
		return 1
	}
	return 0
}

func (o *oracle) company(p *corev1.Pod, n *corev1.Node) bool {
	if a := p.Spec.Affinity; a != nil && a.PodAffinity != nil {
		for _, t := range a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			domain, ok := n.Labels[t.TopologyKey]
			first := o.count(p.Namespace, t.LabelSelector, t.TopologyKey, "*", false) == 0 && o.isOne(p, t.LabelSelector) == 1
			if !ok || o.count(p.Namespace, t.LabelSelector, t.TopologyKey, domain, false) == 0 && !first {
				return false
			}
		}
	}
	if a := p.Spec.Affinity; a != nil && a.PodAntiAffinity != nil {
		for _, t := range a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			if domain, ok := n.Labels[t.TopologyKey]; ok && o.count(p.Namespace, t.LabelSelector, t.TopologyKey, domain, false) > 0 {
				return false
			}
		}
	}
	for _, other := range o.pods {
		node := o.nodes[other.Spec.NodeName]
		if a := other.Spec.Affinity; node == nil || a == nil || a.PodAntiAffinity == nil || other.Namespace != p.Namespace {
			continue
		}
		for _, t := range other.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			theirs, ok := node.Labels[t.TopologyKey]
			if ours, has := n.Labels[t.TopologyKey]; ok && has && ours == theirs && o.isOne(p, t.LabelSelector) == 1 {
				return false
			}
		}
	}
	return true
}

// world is a cluster that changes by chance, in a snapshot and before the oracle.
type world struct {
	*testing.T
	rand     *rand.Rand
	oracle   oracle
	snapshot *Snapshot
	core     *Core
	twin     *Core // The same seed, and a snapshot that is made anew each time.
	serial   int
}

const zoneLabel = "zone"

func (w *world) oneIn(n int) bool { return w.rand.IntN(n) == 0 }

func (w *world) drawNode() *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", w.rand.IntN(12)), Labels: map[string]string{}}}
	n.Labels["host"] = n.Name
	if !w.oneIn(6) {
		n.Labels[zoneLabel] = fmt.Sprintf("z%d", w.rand.IntN(3))
	}
	n.Spec.Unschedulable = w.oneIn(8)
	if w.oneIn(8) {
		n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}}
	}
	status := corev1.ConditionTrue
	if w.oneIn(8) {
		status = corev1.ConditionUnknown
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(int64(w.rand.IntN(5000)), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(int64(w.rand.IntN(8))<<30, resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(int64(w.rand.IntN(9)), resource.DecimalSI),
	}
	return n
}

func (w *world) drawPod() *corev1.Pod {
	w.serial++
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprintf("ns%d", w.rand.IntN(2)), Name: fmt.Sprintf("p%d", w.serial)}}
	p.Labels = map[string]string{"app": fmt.Sprintf("a%d", w.rand.IntN(3))}
	requests := corev1.ResourceList{}
	if !w.oneIn(4) {
		requests[corev1.ResourceCPU] = *resource.NewMilliQuantity(int64(w.rand.IntN(2000)), resource.DecimalSI)
		requests[corev1.ResourceMemory] = *resource.NewQuantity(int64(w.rand.IntN(3))<<30, resource.BinarySI)
	}
	p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: requests}}}
	if w.oneIn(5) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80, Protocol: corev1.ProtocolTCP}}
	}
	if w.oneIn(6) {
		p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	}
	key := []string{zoneLabel, "host"}[w.rand.IntN(2)]
	if w.oneIn(6) {
		p.Spec.NodeSelector = map[string]string{zoneLabel: fmt.Sprintf("z%d", w.rand.IntN(3))}
		key = zoneLabel
	}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("a%d", w.rand.IntN(3))}}
	if w.oneIn(3) {
		selector.MatchLabels = p.Labels
	}
	switch w.rand.IntN(6) {
	case 0:
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: int32(1 + w.rand.IntN(2)), TopologyKey: key, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: selector}}
	case 1:
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: key, LabelSelector: selector}}}}
	case 2:
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: key, LabelSelector: selector}}}}
	}
	return p
}

func (w *world) set(p *corev1.Pod) {
	w.oracle.pods[Key{p.Namespace, p.Name}] = p
	w.snapshot.SetPod(w.compile(p), p.Spec.NodeName)
}

func (w *world) compile(p *corev1.Pod) *Pod {
	compiled, err := NewPod(p)
	if err != nil {
		w.Fatal(err)
	}
	return compiled
}

// change lets something happen that the scheduler is told of.
func (w *world) change() {
	switch w.rand.IntN(6) {
	case 0, 1, 2:
		n := w.drawNode()
		w.oracle.nodes[n.Name] = n
		w.snapshot.SetNode(n)
	case 3:
		name := fmt.Sprintf("n%d", w.rand.IntN(12))
		delete(w.oracle.nodes, name)
		w.snapshot.RemoveNode(name)
	default:
		p := w.any()
		if p == nil {
			return
		}
		if w.oneIn(2) {
			dying := p.DeepCopy()
			dying.DeletionTimestamp = &metav1.Time{}
			w.set(dying)
			return
		}
		k := Key{p.Namespace, p.Name}
		delete(w.oracle.pods, k)
		w.snapshot.RemovePod(k)
	}
}

func (w *world) any() *corev1.Pod {
	keys := make([]Key, 0, len(w.oracle.pods))
	for k := range w.oracle.pods {
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil
	}
	slices.SortFunc(keys, func(a, b Key) int {
		return slices.Compare([]string{a.Namespace, a.Name}, []string{b.Namespace, b.Name})
	})
	return w.oracle.pods[keys[w.rand.IntN(len(keys))]]
}

// fresh is a snapshot of what the oracle knows, made in one go.
func (w *world) fresh() *Snapshot {
	s := New()
	for _, p := range w.oracle.pods {
		s.SetPod(w.compile(p), p.Spec.NodeName)
	}
	for _, n := range w.oracle.nodes {
		s.SetNode(n)
	}
	return s
}

func (w *world) decide() {
	p := w.drawPod()
	d := w.core.Decide(w.snapshot, w.compile(p), Spread)
	twin := w.twin.Decide(w.fresh(), w.compile(p), Spread)
	if got, want := fmt.Sprintf("%+v", d), fmt.Sprintf("%+v", twin); got != want {
		w.Fatalf("pod %s\nhere %s\na snapshot made anew gives %s", brief(p), got, want)
	}
	if d.Node == "" {
		for _, n := range w.oracle.nodes {
			if w.oracle.fits(p, n) {
				w.Fatalf("%s; but it fits %s\npod %s\nnode %+v", d.Message(), n.Name, brief(p), n)
			}
		}
		return
	}
	if n := w.oracle.nodes[d.Node]; n == nil || !w.oracle.fits(p, n) {
		w.Fatalf("it does not fit %s\npod %s\nnode %+v", d.Node, brief(p), n)
	}
	for _, n := range w.oracle.nodes {
		if fits := w.core.Refused(w.snapshot, w.compile(p), n.Name) == 0; fits != w.oracle.fits(p, n) {
			w.Fatalf("that it fits %s is %v\npod %s\nnode %+v", n.Name, fits, brief(p), n)
		}
	}
	p.Spec.NodeName = d.Node
	w.set(p)
}

// brief is what a pod says, without what it does not say.
func brief(p *corev1.Pod) string {
	text, _ := json.Marshal(p)
	return string(text)
}

// TestADecisionNeverOvercommitsAndAPodWithoutANodeFitsNowhere: against an oracle, and
// against a snapshot that was not brought up to date step by step.
func TestADecisionNeverOvercommitsAndAPodWithoutANodeFitsNowhere(t *testing.T) {
	for range 60 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { play(t, seed) })
	}
}

func play(t *testing.T, seed uint64) {
	w := &world{
		T: t, rand: rand.New(rand.NewPCG(seed, 1)), snapshot: New(), core: NewCore(seed), twin: NewCore(seed),
		oracle: oracle{nodes: map[string]*corev1.Node{}, pods: map[Key]*corev1.Pod{}},
	}
	placed := 0
	for range 150 {
		if w.oneIn(3) {
			w.change()
		} else {
			w.decide()
		}
		placed = max(placed, len(w.oracle.pods))
	}
	if placed == 0 {
		t.Error("no pod was ever placed")
	}
}
