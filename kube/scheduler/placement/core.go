package placement

import "slices"

// Core makes decisions, one after the other.
//
// It has more fields than most types: one for each thing that a filter prepares for
// a decision, kept so that the next one needs no memory.
type Core struct {
	profile Profile
	chance  uint64
	next    int // The node with which the next decision begins.

	// Of the decision that is being made.
	snapshot *Snapshot
	pod      *Pod
	active   []filter
	why      []string
	reasons  []Reason
	refused  Set
	spread   []spreading
	near     []*tally
	far      []*tally
	barred   []*tally
	first    bool
	leanings []leaning
	soft     []leaning

	fitting []*Node
	rated   Set
	points  [plugins][]int64
	totals  []int64
	best    []int // Places in fitting.
}

// NewCore returns a core whose ties are broken by seed.
func NewCore(seed uint64) *Core { return &Core{chance: seed} }

// Enough nodes are looked at, not all: what Kubernetes looks at, half of 100 nodes
// down to a twentieth of many, and never fewer than 100.
const (
	sampleMin        = 100
	samplePercentMin = 5
)

// sample is how many fitting nodes of so many are enough.
func sample(nodes int) int {
	if nodes < sampleMin {
		return nodes
	}
	percent := max(samplePercentMin, 50-nodes/125)
	return max(sampleMin, nodes*percent/100)
}

// bestMax is how many of the best nodes a decision tells of.
const bestMax = 3

// Decide chooses a node for a pod. The snapshot is not changed: who follows the
// decision calls SetPod.
func (c *Core) Decide(s *Snapshot, p *Pod, profile Profile) Decision {
	c.profile = profile
	c.prepare(s, p)
	nodes := s.known()
	enough := sample(len(nodes))
	looked := 0
	for ; looked < len(nodes) && len(c.fitting) < enough; looked++ {
		n := nodes[(c.next+looked)%len(nodes)]
		if c.fits(n) {
			c.fitting = append(c.fitting, n)
		}
	}
	d := Decision{Looked: looked, Nodes: len(nodes), Reasons: c.counted(), Refused: c.refused}
	if len(nodes) == 0 {
		d.Refused = Any // Whatever comes may help.
		return d
	}
	c.next = (c.next + looked) % len(nodes)
	if len(c.fitting) > 0 {
		c.rate()
		c.choose()
		d.Node = c.fitting[c.best[0]].Name
		d.Scores = c.scores()
	}
	return d
}

// Refused asks whether one node could take a pod: the plugins that say no, none if it
// fits. A node that is not known is one that is not ready.
func (c *Core) Refused(s *Snapshot, p *Pod, node string) Set {
	n := s.nodes[node]
	if n == nil || !n.known {
		return Plugins(NodeReady)
	}
	c.prepare(s, p)
	c.fits(n)
	return c.refused
}

func (c *Core) prepare(s *Snapshot, p *Pod) {
	s.asked++
	c.snapshot, c.pod = s, p
	c.reasons, c.refused, c.fitting = c.reasons[:0], 0, c.fitting[:0]
	c.readOthers()
	c.active = c.active[:0]
	for _, f := range filters {
		if f.prepare(c) {
			c.active = append(c.active, f)
		}
	}
}

func (c *Core) fits(n *Node) bool {
	c.why = c.why[:0]
	for i := range c.active {
		f := &c.active[i]
		f.check(c, n)
		if len(c.why) > 0 {
			for _, why := range c.why {
				c.refusal(f.plugin, why)
			}
			return false
		}
	}
	return true
}

// rate fills the totals.
func (c *Core) rate() {
	n := len(c.fitting)
	c.totals = slices.Grow(c.totals[:0], n)[:n]
	clear(c.totals)
	c.rated = 0
	for _, s := range scorers {
		weight := c.profile.weights[s.plugin]
		if weight == 0 {
			continue
		}
		points := slices.Grow(c.points[s.plugin][:0], n)[:n]
		c.points[s.plugin] = points
		if !s.rate(c, points) {
			continue
		}
		c.rated |= 1 << s.plugin
		for i := range points {
			points[i] *= weight
			c.totals[i] += points[i]
		}
	}
}

// choose puts the best nodes into c.best. Of several that are the best, each has the
// same chance to be the first.
func (c *Core) choose() {
	c.best = c.best[:0]
	for i := range c.totals {
		at := len(c.best)
		for at > 0 && c.totals[i] > c.totals[c.best[at-1]] {
			at--
		}
		if at < bestMax {
			c.best = slices.Insert(c.best[:min(len(c.best), bestMax-1)], at, i)
		}
	}
	ties := uint64(0)
	for i, total := range c.totals {
		if total < c.totals[c.best[0]] {
			continue
		}
		if ties++; c.draw()%ties != 0 || i == c.best[0] {
			continue
		}
		if at := slices.Index(c.best, i); at > 0 {
			c.best[0], c.best[at] = i, c.best[0]
		} else {
			c.best[0] = i
		}
	}
}

// draw is the next number of a splitmix64 sequence.
func (c *Core) draw() uint64 {
	c.chance += 0x9e3779b97f4a7c15
	z := c.chance
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (c *Core) scores() []Score {
	out := make([]Score, 0, len(c.best))
	for _, i := range c.best {
		score := Score{Node: c.fitting[i].Name, Total: c.totals[i]}
		for p := range plugins {
			if c.rated.Has(p) {
				score.Plugins = append(score.Plugins, PluginScore{p, c.points[p][i]})
			}
		}
		out = append(out, score)
	}
	return out
}
