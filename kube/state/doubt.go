package state

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// What a node tells of a pod that is not recorded is a claim: after the restore of an old
// store nobody can look it up, and the node may lie, or be confused. What a claim does
// follows from what it costs to believe it, and to disbelieve it.
//
//   - That the node goes on with what it has is believed at once. It costs nobody else
//     anything, and the contrary would end pods because a backup was old.
//   - That a singleton runs there is believed of the one that the claim names, by uid,
//     name or controller, and of no other: to disbelieve it could start it twice. A lie
//     holds up one singleton until an operator prunes the claim and the node has ended
//     it, or distrusts the node.
//   - What the pod is (labels, which choose Services and ReplicaSets; secrets, which the
//     node of a pod may read; owners, which grow) is believed where the store's own
//     objects say the same: a record of this uid, or the template of its ReplicaSet.
//     Else only the operator's word counts, for which he is shown it.
//   - What contradicts a fact that never changes, or another node, is not believed
//     without that word either: a pod keeps its node for life, a uid is on one node,
//     a singleton runs once.
//
// How many pods a node tells of is bounded (inventoryPodsMax), and that they are more
// than it has room for is shown.

// singletonKeys are what two pods share that may be copies of one singleton. A ReplicaSet
// of the same Deployment is called the same up to its last part.
func singletonKeys(p *corev1.Pod) []string {
	keys := []string{"uid " + string(p.UID), "pod " + full(p.Namespace, p.Name)}
	if owner := metav1.GetControllerOf(p); owner != nil {
		stem := owner.Name
		if i := strings.LastIndexByte(stem, '-'); i > 0 && owner.Kind == api.ReplicaSet.Name {
			stem = stem[:i]
		}
		keys = append(keys, "of "+string(owner.UID), owner.Kind+" "+full(p.Namespace, stem))
	}
	return keys
}

// anySingleton is the key of a pod that may be any, as its node has lost what it is.
const anySingleton = "any"

// claim is where a singleton is told to be, and reserved.
type claim struct{ node, uid string }

// reserve notes what an entry reserves, or that it does no more.
func (v *inventories) reserve(c claim, t *told, is bool) {
	if !t.entry.Reserved || !api.IsSingleton(t.pod) {
		return
	}
	keys := singletonKeys(t.pod)
	if api.IsUnreadable(t.pod) {
		keys = append(keys, anySingleton)
	}
	for _, key := range keys {
		if is {
			if v.reserved[key] == nil {
				v.reserved[key] = map[claim]bool{}
			}
			v.reserved[key][c] = true
		} else if delete(v.reserved[key], c); len(v.reserved[key]) == 0 {
			delete(v.reserved, key)
		}
	}
}

// rival is where a copy of a singleton is told to be, other than this pod on its node.
func (v *inventories) rival(p *corev1.Pod) (claim, bool) {
	for _, key := range append(singletonKeys(p), anySingleton) {
		for c := range v.reserved[key] { //tidy:ordered one is enough
			if c != (claim{p.Spec.NodeName, string(p.UID)}) {
				return c, true
			}
		}
	}
	return claim{}, false
}

// rival is where a copy of a singleton may run. What this service wrote and has not heard
// of yet does not count.
func (c *cache) rival(p *corev1.Pod) (claim, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.inventories.rival(p)
}

// holdOf is how much a node shall refrain from. Once all is settled only those hold that
// were given a singleton of which a copy may still run elsewhere.
func (s *Service) holdOf(is standing, node string) kubepb.Hold {
	if is.hold != kubepb.Hold_HOLD_SINGLETONS {
		return is.hold
	}
	c := s.cache
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, e := range c.mu.shelves[api.Pod].byNode[node] { //tidy:ordered one is enough
		p, err := api.Decode(api.Pod, e.stored.Value, e.revision)
		if err != nil {
			return is.hold
		}
		if p := p.(*corev1.Pod); api.IsSingleton(p) && !ended(p) {
			if _, found := c.mu.inventories.rival(p); found {
				return is.hold
			}
		}
	}
	return kubepb.Hold_HOLD_NONE
}

// onlyTold says what of a pod its node alone says. Empty: the record of this uid, or the
// template of its controller, says the same. Either may be nil.
func onlyTold(p, record *corev1.Pod, set *appsv1.ReplicaSet) string {
	var want *corev1.Pod
	var by string
	switch {
	case record != nil:
		want, by = record.DeepCopy(), "its record"
	case set != nil:
		t := set.Spec.Template.DeepCopy()
		want, by = &corev1.Pod{ObjectMeta: t.ObjectMeta, Spec: t.Spec}, "the template of ReplicaSet "+set.Name
		want.OwnerReferences = []metav1.OwnerReference{api.ControlledBy(set)}
		want.Name, want.Namespace = p.Name, p.Namespace
	default:
		return "only its node says what it is"
	}
	is := p.DeepCopy()
	for _, x := range []*corev1.Pod{want, is} {
		api.Default(x)
		x.Spec.NodeName, x.Spec.Priority, x.Spec.PreemptionPolicy = "", nil, nil
		if want.Spec.PriorityClassName == "" {
			x.Spec.PriorityClassName = "" // It is that of the class for those without.
		}
	}
	switch {
	case !equality.Semantic.DeepEqual(is.Labels, want.Labels):
		return "its labels are not those of " + by
	case !equality.Semantic.DeepEqual(is.Annotations, want.Annotations):
		return "its annotations are not those of " + by
	case !equality.Semantic.DeepEqual(is.OwnerReferences, want.OwnerReferences):
		return "its owners are not those of " + by
	case !equality.Semantic.DeepEqual(is.Finalizers, want.Finalizers):
		return "its finalizers are not those of " + by
	case !equality.Semantic.DeepEqual(is.Spec, want.Spec):
		return "its spec is not that of " + by
	}
	return ""
}

// contradicted says what is against a claim. The record is that of its uid, or nil.
func (v *comparison) contradicted(node string, p, record *corev1.Pod, running bool) string {
	if record != nil && record.Spec.NodeName != "" && record.Spec.NodeName != node {
		return "it is recorded on node " + record.Spec.NodeName + ", and a pod keeps its node"
	}
	for _, other := range slices.Sorted(maps.Keys(v.entries)) {
		if other != node && v.entries[other][string(p.UID)] != nil {
			return "node " + other + " tells of it too"
		}
	}
	if running && api.IsSingleton(p) {
		return v.secondCopy(p)
	}
	return ""
}

// secondCopy says where a node runs, as it tells, another pod of the same singleton.
func (v *comparison) secondCopy(p *corev1.Pod) string {
	owner := metav1.GetControllerOf(p)
	if owner == nil {
		return ""
	}
	for _, node := range slices.Sorted(maps.Keys(v.entries)) {
		for uid, t := range v.entries[node] { //tidy:ordered one is enough
			if o := metav1.GetControllerOf(t.pod); o != nil && o.UID == owner.UID && t.entry.Running && uid != string(p.UID) {
				return fmt.Sprintf("pod %s of the same singleton runs on node %s, as that tells", t.pod.Name, node)
			}
		}
	}
	return ""
}

// doubt says why a pod is not recorded without the operator's word.
func (v *comparison) doubt(node string, t *told, record *corev1.Pod) string {
	if api.IsUnreadable(t.pod) {
		return ""
	}
	if against := v.contradicted(node, t.pod, record, t.entry.Running); against != "" {
		return "not plausible because " + against
	}
	var set *appsv1.ReplicaSet
	if owner := metav1.GetControllerOf(t.pod); owner != nil {
		set = v.sets[string(owner.UID)]
	}
	if set != nil && set.Namespace != t.pod.Namespace {
		set = nil
	}
	return onlyTold(t.pod, record, set)
}

// overfull says what of a node's claims it has no room for.
func (v *comparison) overfull(n *corev1.Node) string {
	sum := &api.Resources{}
	for _, t := range v.entries[n.Name] { //tidy:ordered sums
		if !ended(t.pod) {
			sum.Add(api.PodRequests(&t.pod.Spec))
		}
	}
	sum.HostPorts = nil
	if short := shortage(n.Name, &kubepb.Ledger{}, api.NodeResources(n), sum); len(short) > 0 {
		return "not plausible because it tells of more than it has room for: " + strings.Join(short, "; ")
	}
	return ""
}

// nodeDoubt says what is against all that a node tells.
func (v *comparison) nodeDoubt(node string) string {
	n := v.machines[node]
	switch {
	case v.heads[node] == nil:
		return ""
	case n == nil:
		return "it is not recorded"
	case n.CreationTimestamp.Unix() >= v.state.GetSince():
		return "it was not recorded when the store was saved"
	}
	return v.overfull(n)
}

// weigh sums up, node by node, what only it tells.
func (v *comparison) weigh(answer *kubepb.RecoveryResponse) {
	claims, doubtful := map[string]int64{}, map[string]int64{}
	for _, p := range answer.Pods {
		if p.List == kubepb.RecoveredPod_RUNNING {
			claims[p.Node]++
			if p.Doubt != "" {
				doubtful[p.Node]++
			}
		}
	}
	for _, n := range answer.Nodes {
		n.Claims, n.Doubtful, n.Doubt = claims[n.Node], doubtful[n.Node], v.nodeDoubt(n.Node)
	}
}

// shownMax labels, and names, of a claim are shown: a node that makes up more of them
// must not make the answer longer than a message may be.
const shownMax = 20

// show adds to a claim with a doubt what it would mean to believe it.
func show(d *kubepb.RecoveredPod, p *corev1.Pod) {
	d.Labels = map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(p.Labels))[:min(len(p.Labels), shownMax)] {
		d.Labels[shorten(k)] = shorten(p.Labels[k])
	}
	for _, name := range namesOf(p) {
		if len(d.Names) < shownMax {
			d.Names = append(d.Names, shorten(name))
		}
	}
}

// namesOf are the secrets and config maps that a pod lets its node read.
func namesOf(p *corev1.Pod) []string {
	var all []string
	for _, key := range api.Named(p) {
		if k := kindOfKey(key); k != nil {
			_, name, _ := k.ParseKey(key)
			all = append(all, k.Name+"/"+name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
