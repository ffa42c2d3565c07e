package placement

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
)

// filter is a plugin that refuses nodes.
type filter struct {
	plugin Plugin
	// prepare is asked once a decision; false: it has nothing against this pod anywhere.
	prepare func(c *Core) bool
	// check puts why the node cannot take the pod into c.why, and nothing if it can.
	check func(c *Core, n *Node)
}

// filters are all of them, the cheapest and most telling first: a node that one
// refuses is not shown to the next.
var filters = []filter{
	{NodeReady, always, checkReady},
	{NodeUnschedulable, always, checkUnschedulable},
	{TaintToleration, always, checkTaints},
	{NodeAffinity, func(c *Core) bool { return c.pod.nodes != nil }, checkNodeAffinity},
	{NodeResourcesFit, always, checkResources},
	{NodePorts, func(c *Core) bool { return len(c.pod.ports) > 0 }, checkPorts},
	{PodTopologySpread, prepareSpread, checkSpread},
	{InterPodAffinity, prepareAffinity, checkAffinity},
}

// The words of Kubernetes, for those who know them.
const (
	whyNotReady      = "node(s) were not ready"
	whyLeaves        = "node(s) were being deleted"
	whyUnschedulable = "node(s) were unschedulable"
	whyNodeAffinity  = "node(s) didn't match Pod's node affinity/selector"
	whyPods          = "Too many pods"
	whyCPU           = "Insufficient cpu"
	whyMemory        = "Insufficient memory"
	whyStorage       = "Insufficient ephemeral-storage"
	whyRefused       = "node(s) had less room than it seems"
	whyPorts         = "node(s) didn't have free ports for the requested pod ports"
	whySpread        = "node(s) didn't match pod topology spread constraints"
	whySpreadLabel   = "node(s) didn't match pod topology spread constraints (missing required label)"
	whyNear          = "node(s) didn't match pod affinity rules"
	whyFar           = "node(s) didn't match pod anti-affinity rules"
	whyBarred        = "node(s) didn't satisfy existing pods anti-affinity rules"
)

func always(*Core) bool { return true }

func (c *Core) because(why string) { c.why = append(c.why, why) }

// A node that is not ready carries, in Kubernetes, a taint that says so. Here its
// condition alone is enough; what tolerates the taint may go there.
var (
	notReady      = corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	unreachable   = corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoSchedule}
	unschedulable = corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}
)

func checkReady(c *Core, n *Node) {
	switch {
	case n.leaves:
		c.because(whyLeaves)
	case n.ready == corev1.ConditionTrue:
	case n.ready == corev1.ConditionUnknown && tolerates(c.pod.tolerations, &unreachable):
	case n.ready != corev1.ConditionUnknown && tolerates(c.pod.tolerations, &notReady):
	default:
		c.because(whyNotReady)
	}
}

func checkUnschedulable(c *Core, n *Node) {
	if n.unschedulable && !tolerates(c.pod.tolerations, &unschedulable) {
		c.because(whyUnschedulable)
	}
}

func checkTaints(c *Core, n *Node) {
	for i := range n.hard {
		if !tolerates(c.pod.tolerations, &n.hard[i].Taint) {
			c.because(n.hard[i].reason)
			return
		}
	}
}

func checkNodeAffinity(c *Core, n *Node) {
	if !c.pod.nodes.matches(n) {
		c.because(whyNodeAffinity)
	}
}

func checkResources(c *Core, n *Node) {
	if c.pod.refusedBy[n.Name] {
		c.because(whyRefused)
		return
	}
	asks := &c.pod.requests
	if n.taken.pods+asks.pods > n.offers.pods {
		c.because(whyPods)
	}
	if asks.milliCPU > 0 && n.taken.milliCPU+asks.milliCPU > n.offers.milliCPU {
		c.because(whyCPU)
	}
	if asks.memory > 0 && n.taken.memory+asks.memory > n.offers.memory {
		c.because(whyMemory)
	}
	if asks.storage > 0 && n.taken.storage+asks.storage > n.offers.storage {
		c.because(whyStorage)
	}
	for i := range asks.extended {
		if a := &asks.extended[i]; a.n > 0 && n.taken.of(a.name)+a.n > n.offers.of(a.name) {
			c.because(a.shortage)
		}
	}
}

func checkPorts(c *Core, n *Node) {
	if portsConflict(c.pod.ports, n.ports) {
		c.because(whyPorts)
	}
}

func portsConflict(a, b []api.HostPort) bool {
	for _, x := range a {
		for _, y := range b {
			if x.Conflicts(y) {
				return true
			}
		}
	}
	return false
}
