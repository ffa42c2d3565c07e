package placement

import "slices"

// spreading is a hard constraint with what is counted now.
type spreading struct {
	*constraint
	counts  map[string]int64 // By domain. One that is missing has none.
	fewest  int64            // In the domain that has the fewest.
	private map[string]int64 // The counts, where they are of this decision alone.
}

// prepareSpread finds, for each hard constraint, how many pods each domain has. What
// is counted for everybody serves, unless the pod does not count all nodes.
func prepareSpread(c *Core) bool {
	c.spread = c.spread[:0]
	for i := range c.pod.spread {
		if k := &c.pod.spread[i]; k.hard {
			c.spread = append(c.spread, spreading{constraint: k})
		}
	}
	if len(c.spread) == 0 {
		return false
	}
	if c.spreadPartly() {
		c.walkSpread()
		return true
	}
	for i := range c.spread {
		k := &c.spread[i]
		k.counts = c.snapshot.counterOf(k.key, k.term).domains
		k.fewest = fewest(k.counts, len(c.snapshot.topologyOf(k.key).domains), k.domainsMin)
	}
	return true
}

// fewest is the smallest count of any domain, of which there are so many: 0 if one
// has no pod, or if there are fewer domains than there should be.
func fewest(counts map[string]int64, domains, domainsMin int) int64 {
	if len(counts) < domains || domains < domainsMin || domains == 0 {
		return 0
	}
	least := int64(-1)
	for _, n := range counts {
		if least < 0 || n < least {
			least = n
		}
	}
	return least
}

// spreadPartly reports whether some nodes do not count for the pod's constraints:
// those it does not select, whose taints it does not tolerate, or that lack one of
// several labels.
func (c *Core) spreadPartly() bool {
	all := len(c.snapshot.known())
	for i := range c.spread {
		k := &c.spread[i]
		if c.pod.nodes != nil && !k.anyNode || k.withoutTaints {
			return true
		}
		if len(c.spread) > 1 && c.snapshot.topologyOf(k.key).nodes < all {
			return true
		}
	}
	return false
}

// walkSpread counts by a walk over the nodes.
func (c *Core) walkSpread() {
	counters := make([]*counter, len(c.spread))
	for i := range c.spread {
		k := &c.spread[i]
		counters[i] = c.snapshot.counterOf(k.key, k.term)
		k.private = make(map[string]int64)
		k.counts = k.private
	}
	all := slices.ContainsFunc(c.spread, func(k spreading) bool { return k.anyNode })
	for _, n := range c.snapshot.known() {
		selected := c.pod.nodes.matches(n)
		if !selected && !all || !c.hasDomains(n) {
			continue
		}
		for i := range c.spread {
			k := &c.spread[i]
			if !selected && !k.anyNode || k.withoutTaints && !c.toleratesAll(n) {
				continue
			}
			k.private[n.labels[k.key]] += counters[i].nodes[n]
		}
	}
	for i := range c.spread {
		k := &c.spread[i]
		k.fewest = fewest(k.counts, len(k.counts), k.domainsMin)
	}
}

func (c *Core) hasDomains(n *Node) bool {
	for i := range c.spread {
		if _, ok := n.domain(c.spread[i].key); !ok {
			return false
		}
	}
	return true
}

func (c *Core) toleratesAll(n *Node) bool {
	for i := range n.hard {
		if !tolerates(c.pod.tolerations, &n.hard[i].Taint) {
			return false
		}
	}
	return !n.unschedulable || tolerates(c.pod.tolerations, &unschedulable)
}

func checkSpread(c *Core, n *Node) {
	for i := range c.spread {
		k := &c.spread[i]
		domain, ok := n.domain(k.key)
		if !ok {
			c.because(whySpreadLabel)
			return
		}
		if k.counts[domain]+k.self-k.fewest > k.skew {
			c.because(whySpread)
			return
		}
	}
}
