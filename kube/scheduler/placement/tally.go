package placement

import "slices"

// tally counts pods by node, and by the domains of one label key. Only nodes that are
// known and carry the label have a domain. Counts of zero are not kept.
type tally struct {
	key     string
	total   int64 // In domains.
	nodes   map[*Node]int64
	domains map[string]int64
}

func newTally(key string) tally {
	return tally{key: key, nodes: map[*Node]int64{}, domains: map[string]int64{}}
}

func (t *tally) add(n *Node, sign int64) {
	bump(t.nodes, n, sign)
	if domain, ok := n.domain(t.key); ok {
		bump(t.domains, domain, sign)
		t.total += sign
	}
}

func bump[K comparable](m map[K]int64, k K, by int64) {
	if m[k] += by; m[k] == 0 {
		delete(m, k)
	}
}

// domain is the node's value of a label key.
func (n *Node) domain(key string) (string, bool) {
	if !n.known {
		return "", false
	}
	v, ok := n.labels[key]
	return v, ok
}

// counter tallies the placed pods that all of some terms select.
type counter struct {
	tally
	id    string
	terms []*term
	used  int64 // When it was last asked for, in decisions.
}

// countersMax bounds what is kept counted: terms of pods that come no more are
// forgotten, and counted anew should they come again.
const countersMax = 1024

// counterOf counts the pods that all of the terms select, by domains of a key. The
// first time it walks over all pods; from then on each change keeps it true.
func (s *Snapshot) counterOf(key string, terms ...*term) *counter {
	id := key
	if len(terms) == 1 && terms[0].key == key {
		id = terms[0].id
	} else {
		for _, t := range terms {
			id += "&" + t.id
		}
	}
	c := s.counters[id]
	if c == nil {
		s.forgetCounters()
		c = &counter{tally: newTally(key), id: id, terms: terms}
		s.counters[id] = c
		for _, at := range s.pods {
			if at.pod.matchesAll(terms) {
				c.add(at.node, 1)
			}
		}
	}
	c.used = s.asked
	return c
}

// forgetCounters makes room for one more: the half that was not used for longest goes.
func (s *Snapshot) forgetCounters() {
	if len(s.counters) < countersMax {
		return
	}
	used := make([]int64, 0, len(s.counters))
	for _, c := range s.counters {
		used = append(used, c.used)
	}
	slices.Sort(used)
	for id, c := range s.counters {
		if c.used < s.asked && c.used <= used[len(used)/2] {
			delete(s.counters, id)
		}
	}
}

// carried is a term that placed pods have themselves, with where they are: it speaks
// of pods that come after them.
type carried struct {
	tally
	*term
	pods   int64
	weight int64 // Of a preference; 0: they do not bear a pod that matches in their domain.
	hard   bool
}

// carriedID tells carried terms apart.
type carriedID struct {
	term   string
	weight int64
	hard   bool
}

// nearWeight is the preference of a pod for the domain of one that must be near it,
// as in Kubernetes.
const nearWeight = 1

// eachCarried calls fn for each term of a pod that speaks of others.
func eachCarried(p *Pod, fn func(t *term, weight int64, hard bool)) {
	for _, t := range p.anti {
		fn(t, 0, true)
	}
	for _, t := range p.affinity {
		fn(t, nearWeight, false)
	}
	for _, t := range p.soft {
		fn(t.term, t.weight, false)
	}
}

func (s *Snapshot) carry(p *Pod, n *Node, sign int64) {
	eachCarried(p, func(t *term, weight int64, hard bool) {
		id := carriedID{t.id, weight, hard}
		c := s.carried[id]
		if c == nil {
			c = &carried{tally: newTally(t.key), term: t, weight: weight, hard: hard}
			s.carried[id] = c
		}
		c.add(n, sign)
		if c.pods += sign; c.pods == 0 {
			delete(s.carried, id)
		}
	})
}
