package placement

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Snapshot is the cluster as a decision sees it.
type Snapshot struct {
	nodes map[string]*Node
	order []*Node // The known ones, zones taking turns; nil: to be made anew.
	pods  map[Key]place

	// Invariant: what is counted here is what walking over pods and nodes would give.
	counters   map[string]*counter
	carried    map[carriedID]*carried
	owners     map[types.UID]*tally // Pods of one controller; domains are zones.
	topologies map[string]*topology

	asked int64 // Decisions so far.
}

// place is where a pod is.
type place struct {
	pod  *Pod
	node *Node
}

// topology is the domains that a label key makes.
type topology struct {
	key     string
	nodes   int            // That carry the label.
	domains map[string]int // Nodes of each.
}

// New returns an empty snapshot.
func New() *Snapshot {
	return &Snapshot{
		nodes: map[string]*Node{}, pods: map[Key]place{}, counters: map[string]*counter{}, carried: map[carriedID]*carried{},
		owners: map[types.UID]*tally{}, topologies: map[string]*topology{},
	}
}

// SetNode takes in a node as it is now. It returns which plugins may say yes to the
// node where they said no before.
func (s *Snapshot) SetNode(o *corev1.Node) Set {
	n := s.node(o.Name)
	old := *n
	same := old.known && maps.Equal(old.labels, labels.Set(o.Labels))
	if !same {
		s.uncount(n)
	}
	n.read(o)
	if !same {
		s.recount(n)
		s.order = nil
	}
	return n.betterThan(&old)
}

// RemoveNode forgets a node. Its pods stay where they are, in no domain, until they
// are removed or another node takes the name.
func (s *Snapshot) RemoveNode(name string) {
	n := s.nodes[name]
	if n == nil || !n.known {
		return
	}
	s.uncount(n)
	*n = Node{Name: name, pods: n.pods, taken: n.taken, weighs: n.weighs, ports: n.ports}
	s.recount(n)
	s.order = nil
	s.dropEmpty(n)
}

// Freed is which plugins may say yes where a pod goes.
var Freed = Plugins(NodeResourcesFit, NodePorts, PodTopologySpread, InterPodAffinity)

// company is which plugins may say yes where a pod comes: others want to be near it,
// and its domain has no longer the fewest.
var company = Plugins(PodTopologySpread, InterPodAffinity)

// SetPod puts a pod on a node, in place of what was known of it. It returns which
// plugins may say yes to another pod, on this node or elsewhere, where they said no.
func (s *Snapshot) SetPod(p *Pod, node string) Set {
	was, existed := s.pods[p.Key]
	s.RemovePod(p.Key)
	n := s.node(node)
	s.pods[p.Key] = place{p, n}
	n.count(p, 1)
	s.tally(p, n, 1)
	switch {
	case !existed:
		return company
	case was.node != n:
		return company | Freed
	}
	var changed Set
	if was.pod.terminating != p.terminating || !maps.Equal(was.pod.labels, p.labels) {
		changed = company
	}
	if was.pod.requests.moreThan(&p.requests) {
		changed |= Plugins(NodeResourcesFit)
	}
	return changed
}

// RemovePod takes a pod out. It reports from where, or "" if it was nowhere.
func (s *Snapshot) RemovePod(k Key) (node string) {
	at, ok := s.pods[k]
	if !ok {
		return ""
	}
	delete(s.pods, k)
	at.node.count(at.pod, -1)
	s.tally(at.pod, at.node, -1)
	s.dropEmpty(at.node)
	return at.node.Name
}

// NodeOf is where a pod is, or "".
func (s *Snapshot) NodeOf(k Key) string {
	if at, ok := s.pods[k]; ok {
		return at.node.Name
	}
	return ""
}

// PodsOn lists the pods of a node, in no order.
func (s *Snapshot) PodsOn(node string) []*Pod {
	n := s.nodes[node]
	if n == nil {
		return nil
	}
	pods := make([]*Pod, 0, len(n.pods))
	for _, p := range n.pods {
		pods = append(pods, p)
	}
	return pods
}

func (s *Snapshot) node(name string) *Node {
	n := s.nodes[name]
	if n == nil {
		n = &Node{Name: name, pods: map[Key]*Pod{}}
		s.nodes[name] = n
	}
	return n
}

func (s *Snapshot) dropEmpty(n *Node) {
	if !n.known && len(n.pods) == 0 {
		delete(s.nodes, n.Name)
	}
}

// uncount takes a node and its pods out of everything that goes by labels; recount
// brings them back under those of now.
func (s *Snapshot) uncount(n *Node) { s.countNode(n, -1) }
func (s *Snapshot) recount(n *Node) { s.countNode(n, 1) }

func (s *Snapshot) countNode(n *Node, sign int) {
	for _, t := range s.topologies {
		t.add(n, sign)
	}
	for _, p := range n.pods {
		s.tally(p, n, int64(sign))
	}
}

func (t *topology) add(n *Node, sign int) {
	domain, ok := n.domain(t.key)
	if !ok {
		return
	}
	t.nodes += sign
	if t.domains[domain] += sign; t.domains[domain] == 0 {
		delete(t.domains, domain)
	}
}

// topologyOf is that of a label key, kept from when it is first asked for.
func (s *Snapshot) topologyOf(key string) *topology {
	t := s.topologies[key]
	if t == nil {
		t = &topology{key: key, domains: map[string]int{}}
		s.topologies[key] = t
		for _, n := range s.nodes {
			t.add(n, 1)
		}
	}
	return t
}

// tally counts a placed pod wherever such pods are counted.
func (s *Snapshot) tally(p *Pod, n *Node, sign int64) {
	for _, c := range s.counters {
		if p.matchesAll(c.terms) {
			c.add(n, sign)
		}
	}
	s.carry(p, n, sign)
	if p.owner == "" {
		return
	}
	t := s.owners[p.owner]
	if t == nil {
		fresh := newTally(corev1.LabelTopologyZone)
		t = &fresh
		s.owners[p.owner] = t
	}
	if t.add(n, sign); len(t.nodes) == 0 {
		delete(s.owners, p.owner)
	}
}

// known is the known nodes, those of different zones taking turns, so that a sample
// of neighbours is one of all zones.
func (s *Snapshot) known() []*Node {
	if s.order != nil {
		return s.order
	}
	zones := map[string][]*Node{}
	var names []string
	for _, n := range s.nodes {
		if !n.known {
			continue
		}
		zone := n.labels[corev1.LabelTopologyZone]
		if zones[zone] == nil {
			names = append(names, zone)
		}
		zones[zone] = append(zones[zone], n)
	}
	slices.Sort(names)
	longest := 0
	for _, nodes := range zones {
		slices.SortFunc(nodes, func(a, b *Node) int { return strings.Compare(a.Name, b.Name) })
		longest = max(longest, len(nodes))
	}
	s.order = make([]*Node, 0, len(s.nodes))
	for i := range longest {
		for _, zone := range names {
			if nodes := zones[zone]; i < len(nodes) {
				s.order = append(s.order, nodes[i])
			}
		}
	}
	return s.order
}
