package placement

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/holdfast-db/holdfast/kube/api"
)

// Node is a node, what its pods take from it, and what decisions look at, prepared.
type Node struct {
	Name string

	// Of the object; known is false while only pods have named the node.
	known         bool
	labels        labels.Set
	unschedulable bool
	leaves        bool // Its object is being deleted: no bind to it is taken.
	ready         corev1.ConditionStatus
	hard          []taint // NoSchedule and NoExecute.
	soft          []corev1.Taint
	offers        resources
	images        map[string]struct{}

	// Of the pods.
	pods   map[Key]*Pod
	taken  resources
	weighs [2]int64
	ports  []api.HostPort
}

// taint is one that keeps pods away, with the words for it.
type taint struct {
	corev1.Taint
	reason string
}

// read takes over what the object says.
func (n *Node) read(o *corev1.Node) {
	n.known = true
	n.labels = o.Labels
	n.unschedulable = o.Spec.Unschedulable
	n.leaves = o.DeletionTimestamp != nil
	n.ready = corev1.ConditionFalse
	if c := api.NodeReady(o); c != nil {
		n.ready = c.Status
	}
	n.hard, n.soft = nil, nil
	for _, c := range o.Status.Conditions {
		if c.Type == corev1.NodeDiskPressure && c.Status == corev1.ConditionTrue { // In Kubernetes a controller writes the taint.
			n.hard = append(n.hard, taint{corev1.Taint{Key: corev1.TaintNodeDiskPressure, Effect: corev1.TaintEffectNoSchedule}, "node(s) had disk pressure"})
		}
	}
	for _, t := range o.Spec.Taints {
		switch {
		case t.Effect == corev1.TaintEffectPreferNoSchedule:
			n.soft = append(n.soft, t)
		case t.Key == corev1.TaintNodeUnschedulable && t.Effect == corev1.TaintEffectNoSchedule: // Says again what the field says.
			n.unschedulable = true
		default:
			n.hard = append(n.hard, taint{t, "node(s) had untolerated taint {" + t.Key + ": " + t.Value + "}"})
		}
	}
	n.offers = resourcesFrom(api.NodeResources(o))
	n.images = make(map[string]struct{})
	for _, image := range o.Status.Images {
		for _, name := range image.Names {
			n.images[imageName(name)] = struct{}{}
		}
	}
}

// count takes a pod in (sign 1) or out (-1).
func (n *Node) count(p *Pod, sign int64) {
	n.taken.add(&p.requests, sign)
	n.weighs[0] += sign * p.weighs[0]
	n.weighs[1] += sign * p.weighs[1]
	if sign > 0 {
		n.pods[p.Key] = p
		n.ports = append(n.ports, p.ports...)
		return
	}
	delete(n.pods, p.Key)
	for _, port := range p.ports {
		if i := slices.Index(n.ports, port); i >= 0 {
			n.ports = slices.Delete(n.ports, i, i+1)
		}
	}
}

// betterThan is which plugins may say yes now where they said no to what the node was.
func (n *Node) betterThan(old *Node) Set {
	if !old.known {
		return Any
	}
	var s Set
	if n.ready == corev1.ConditionTrue && old.ready != corev1.ConditionTrue {
		s |= Plugins(NodeReady)
	}
	if !n.unschedulable && old.unschedulable {
		s |= Plugins(NodeUnschedulable)
	}
	if !slices.Equal(n.hard, old.hard) {
		s |= Plugins(TaintToleration, PodTopologySpread)
	}
	if n.offers.moreThan(&old.offers) {
		s |= Plugins(NodeResourcesFit)
	}
	if !maps.Equal(n.labels, old.labels) {
		s |= Plugins(NodeAffinity, PodTopologySpread, InterPodAffinity)
	}
	return s
}
