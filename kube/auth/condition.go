package auth

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/holdfast-db/holdfast/kube/api"
)

// condition is what a row asks for beside who, verb and kind.
type condition struct {
	text  string // "..., ask that TEXT".
	holds func(r *Request, f Facts) bool
}

var (
	itsOwnNode = &condition{"it is the caller's own Node (a list: by metadata.name)", func(r *Request, _ Facts) bool {
		return r.isNode(r.Name)
	}}
	allNodes = &condition{"all nodes are listed, of which the caller sees where they are and no more", func(r *Request, _ Facts) bool {
		return r.Name == ""
	}}
	itsOwnNodePlain = &condition{"it is the caller's own Node, without taints but NotReady, with labels of a machine only, and without owners and finalizers", func(r *Request, _ Facts) bool {
		n, ok := r.New.(*corev1.Node)
		return ok && r.isNode(r.Name) && labelsKept(nil, n.Labels) && taintsKept(nil, n.Spec.Taints) && len(n.OwnerReferences)+len(n.Finalizers) == 0
	}}
	itsOwnNodeLabels = &condition{"it is the caller's own Node, and only labels of a machine, annotations or the taint NotReady change", func(r *Request, _ Facts) bool {
		before, ok := r.Old.(*corev1.Node)
		after, is := r.New.(*corev1.Node)
		if !ok || !is || !r.isNode(r.Name) || !labelsKept(before.Labels, after.Labels) || !taintsKept(before.Spec.Taints, after.Spec.Taints) {
			return false
		}
		// Beside these, the spec stays, and so do owners and finalizers.
		a, b := before.Spec.DeepCopy(), after.Spec.DeepCopy()
		a.Taints, b.Taints = nil, nil
		return equality.Semantic.DeepEqual(a, b) && equality.Semantic.DeepEqual(before.OwnerReferences, after.OwnerReferences) &&
			equality.Semantic.DeepEqual(before.Finalizers, after.Finalizers)
	}}
	podsOnIt = &condition{"the pod is bound to the caller's node (a list: by spec.nodeName)", func(r *Request, f Facts) bool {
		if r.Verb == List || r.Verb == Watch {
			return r.isNode(r.NodeName)
		}
		if p, ok := r.Old.(*corev1.Pod); ok {
			return r.isNode(p.Spec.NodeName)
		}
		return r.Old == nil && r.Verb == Get && r.isNode(f.PodNode(r.Namespace, r.Name))
	}}
	podsOnItThatEnd = &condition{"the pod is bound to the caller's node and is being deleted", func(r *Request, _ Facts) bool {
		p, ok := r.Old.(*corev1.Pod)
		return ok && r.isNode(p.Spec.NodeName) && p.DeletionTimestamp != nil
	}}
	mirrorOfItsOwn = &condition{"the pod is a mirror, bound to the caller's node, and names nothing that the node may not read", func(r *Request, _ Facts) bool {
		p, ok := r.New.(*corev1.Pod)
		return ok && api.IsMirror(p) && r.isNode(p.Spec.NodeName) && len(api.Named(p)) == 0 && p.Spec.ServiceAccountName == "" &&
			len(p.OwnerReferences)+len(p.Finalizers) == 0
	}}
	mirrorsOnIt = &condition{"the pod is a mirror and bound to the caller's node", func(r *Request, _ Facts) bool {
		p, ok := r.Old.(*corev1.Pod)
		return ok && api.IsMirror(p) && r.isNode(p.Spec.NodeName)
	}}
	namedByItsPods = &condition{"a pod on the caller's node names it (a list: by metadata.name)", func(r *Request, f Facts) bool {
		n, ok := r.Identity.NodeName()
		return ok && r.Namespace != "" && r.Name != "" && f.Names(n, r.Kind, r.Namespace, r.Name)
	}}
	aboutItself = &condition{"the event is about the caller's node or a pod on it", func(r *Request, f Facts) bool {
		e, ok := r.New.(*corev1.Event)
		if !ok || !about(r, f, e) {
			return false
		}
		before, ok := r.Old.(*corev1.Event)
		return r.Old == nil || ok && about(r, f, before)
	}}
	inItsOwnName = &condition{"it is in the name of the caller's own node", func(r *Request, _ Facts) bool { return r.isNode(r.NodeName) }}

	conditionsOnly = &condition{"only conditions and the nominated node change", func(r *Request, _ Facts) bool {
		before, ok := r.Old.(*corev1.Pod)
		after, is := r.New.(*corev1.Pod)
		if !ok || !is {
			return false
		}
		a, b := before.Status.DeepCopy(), after.Status.DeepCopy()
		a.Conditions, b.Conditions, a.NominatedNodeName, b.NominatedNodeName = nil, nil, "", ""
		return equality.Semantic.DeepEqual(a, b)
	}}
	unboundPods = &condition{"a pod is not put on a node by hand, nor by a template", func(r *Request, _ Facts) bool {
		if p, ok := r.New.(*corev1.Pod); ok {
			return r.Verb != Create || p.Spec.NodeName == ""
		}
		node := templateNode(r.New)
		return node == "" || node == templateNode(r.Old)
	}}
)

// templateNode is where all pods of a Deployment or ReplicaSet shall be. Empty: where
// the scheduler puts them.
func templateNode(o api.Object) string {
	switch o := o.(type) {
	case *appsv1.Deployment:
		return o.Spec.Template.Spec.NodeName
	case *appsv1.ReplicaSet:
		return o.Spec.Template.Spec.NodeName
	}
	return ""
}

// isNode reports whether the caller is that node.
func (r *Request) isNode(name string) bool {
	own, ok := r.Identity.NodeName()
	return ok && name == own
}

func about(r *Request, f Facts, e *corev1.Event) bool {
	o := &e.InvolvedObject
	switch o.Kind {
	case api.Node.Name:
		return r.isNode(o.Name)
	case api.Pod.Name:
		return o.Namespace == e.Namespace && r.isNode(f.PodNode(o.Namespace, o.Name))
	}
	return false
}

// machineLabels are those that a node may give itself: what it measures. Others
// decide where pods go, and a stolen node must not attract them.
var machineLabels = []string{
	corev1.LabelHostname, corev1.LabelOSStable, corev1.LabelArchStable, corev1.LabelTopologyZone, corev1.LabelTopologyRegion,
	"beta.kubernetes.io/os", "beta.kubernetes.io/arch", "node.kubernetes.io/instance-type",
}

// machinePrefix is that of labels that a node may set besides.
const machinePrefix = "machine.holdfast.io/"

func labelsKept(before, after map[string]string) bool {
	for k, v := range after { //tidy:ordered all are looked at
		if was, ok := before[k]; (!ok || was != v) && !machineLabel(k) {
			return false
		}
	}
	for k := range before { //tidy:ordered all are looked at
		if _, ok := after[k]; !ok && !machineLabel(k) {
			return false
		}
	}
	return true
}

func machineLabel(k string) bool {
	if strings.HasPrefix(k, machinePrefix) {
		return true
	}
	for _, own := range machineLabels {
		if k == own {
			return true
		}
	}
	return false
}

// taintsKept reports whether all taints stay, and none comes but NotReady.
func taintsKept(before, after []corev1.Taint) bool {
	left := map[corev1.Taint]int{}
	for _, t := range before {
		t.TimeAdded = nil
		left[t]++
	}
	for _, t := range after {
		t.TimeAdded = nil
		if left[t] == 0 && t.Key != corev1.TaintNodeNotReady {
			return false
		}
		left[t]--
	}
	for _, n := range left { //tidy:ordered all are looked at
		if n > 0 {
			return false
		}
	}
	return true
}
