package placement

// leaning is a preference for domains by the pods in them: weight for each.
type leaning struct {
	weight int64
	tally  *tally
}

// readOthers finds what placed pods' own terms say of this pod.
func (c *Core) readOthers() {
	c.barred, c.leanings = c.barred[:0], c.leanings[:0]
	for _, t := range c.snapshot.carried {
		if !t.matches(c.pod) {
			continue
		}
		if t.hard {
			c.barred = append(c.barred, &t.tally)
		} else {
			c.leanings = append(c.leanings, leaning{t.weight, &t.tally})
		}
	}
	for _, t := range c.pod.soft {
		c.leanings = append(c.leanings, leaning{t.weight, &c.snapshot.counterOf(t.key, t.term).tally})
	}
}

// prepareAffinity finds the pods that this one must be near to, or far from. A pod
// that has to be near its own kind, and is the first of it, may begin anywhere.
func prepareAffinity(c *Core) bool {
	c.near, c.far = c.near[:0], c.far[:0]
	found := int64(0)
	for _, t := range c.pod.affinity {
		n := c.snapshot.counterOf(t.key, c.pod.affinity...)
		c.near = append(c.near, &n.tally)
		found += n.total
	}
	c.first = found == 0 && c.pod.matchesAll(c.pod.affinity)
	for _, t := range c.pod.anti {
		c.far = append(c.far, &c.snapshot.counterOf(t.key, t).tally)
	}
	return len(c.near)+len(c.far)+len(c.barred) > 0
}

func checkAffinity(c *Core, n *Node) {
	for _, t := range c.near {
		domain, ok := n.domain(t.key)
		if !ok || t.domains[domain] == 0 && !c.first {
			c.because(whyNear)
			return
		}
	}
	if anyIn(c.far, n) {
		c.because(whyFar)
	} else if anyIn(c.barred, n) {
		c.because(whyBarred)
	}
}

// anyIn reports whether one of the tallies has a pod in a domain of the node.
func anyIn(tallies []*tally, n *Node) bool {
	for _, t := range tallies {
		if domain, ok := n.domain(t.key); ok && t.domains[domain] > 0 {
			return true
		}
	}
	return false
}
