package placement

import corev1 "k8s.io/api/core/v1"

// pointsMax is what the best node gets from a plugin; the worst gets 0.
const pointsMax = 100

// scorer is a plugin that rates nodes.
type scorer struct {
	plugin Plugin
	// rate gives points to the nodes of c.fitting. False: all are the same to it.
	rate func(c *Core, points []int64) bool
}

var scorers = []scorer{
	{TaintToleration, rateSoftTaints},
	{NodeAffinity, ratePreferredNodes},
	{NodeResourcesFit, rateRoom},
	{BalancedAllocation, rateBalance},
	{PodTopologySpread, rateSoftSpread},
	{InterPodAffinity, rateLeanings},
	{OwnerSpread, rateOwner},
	{ImageLocality, rateImages},
}

// rateSoftTaints prefers nodes with few PreferNoSchedule taints that the pod does
// not tolerate.
func rateSoftTaints(c *Core, points []int64) bool {
	most := int64(0)
	for i, n := range c.fitting {
		points[i] = 0
		for j := range n.soft {
			if !tolerates(c.pod.tolerations, &n.soft[j]) {
				points[i]++
			}
		}
		most = max(most, points[i])
	}
	for i := range points {
		points[i] = pointsMax - share(points[i], most)
	}
	return most > 0
}

func ratePreferredNodes(c *Core, points []int64) bool {
	if len(c.pod.preferred) == 0 {
		return false
	}
	most := int64(0)
	for i, n := range c.fitting {
		points[i] = 0
		for _, p := range c.pod.preferred {
			if p.match.matches(n) {
				points[i] += p.weight
			}
		}
		most = max(most, points[i])
	}
	for i := range points {
		points[i] = share(points[i], most)
	}
	return most > 0
}

// share is n of most in points.
func share(n, most int64) int64 {
	if most == 0 {
		return 0
	}
	return n * pointsMax / most
}

// rateRoom goes by how much of CPU and memory is free with the pod: much is good, or
// for a profile that packs, little.
func rateRoom(c *Core, points []int64) bool {
	for i, n := range c.fitting {
		used := (c.used(n, 0) + c.used(n, 1)) * pointsMax / (2 * full)
		if !c.profile.binpack {
			used = pointsMax - used
		}
		points[i] = used
	}
	return true
}

// rateBalance prefers nodes whose CPU and memory are used alike: one that has run
// out of the first cannot sell what is left of the second.
func rateBalance(c *Core, points []int64) bool {
	for i, n := range c.fitting {
		apart := c.used(n, 0) - c.used(n, 1)
		points[i] = pointsMax - max(apart, -apart)*pointsMax/full
	}
	return true
}

// full is the use of a node that has nothing left.
const full = 1000

// used is how much of CPU (0) or memory (1) of a node is taken with the pod, of full.
func (c *Core) used(n *Node, what int) int64 {
	offers := n.offers.milliCPU
	if what == 1 {
		offers = n.offers.memory
	}
	if offers <= 0 {
		return full
	}
	// In floating point: bytes times a thousand can pass an int64.
	return min(full, int64(float64(n.weighs[what]+c.pod.weighs[what])/float64(offers)*full))
}

// evenWeight is what a domain weighs that has its share of the pods: enough for something
// to be left of it where each domain has thousands.
const evenWeight = 1 << 20

// rateSoftSpread prefers domains with few of the pods that soft constraints count, in
// relation to what an even spread would give each. Nodes without a domain get nothing.
func rateSoftSpread(c *Core, points []int64) bool {
	c.soft = c.soft[:0]
	for i := range c.pod.spread {
		if k := &c.pod.spread[i]; !k.hard {
			n := &c.snapshot.counterOf(k.key, k.term).tally
			even := max(1, n.total)
			c.soft = append(c.soft, leaning{int64(len(c.snapshot.topologyOf(k.key).domains)) * evenWeight / even, n})
		}
	}
	if len(c.soft) == 0 {
		return false
	}
	most, differ := int64(0), false
	for i, n := range c.fitting {
		points[i] = 0
		for _, l := range c.soft {
			domain, ok := n.domain(l.tally.key)
			if !ok {
				points[i] = -1
				break
			}
			points[i] += l.weight * l.tally.domains[domain]
		}
		most = max(most, points[i])
		differ = differ || points[i] != points[0]
	}
	for i, load := range points {
		points[i] = pointsMax - share(load, most)
		if load < 0 {
			points[i] = 0
		}
	}
	return differ
}

// rateLeanings goes by preferences for being near to pods, and far from them.
func rateLeanings(c *Core, points []int64) bool {
	if len(c.leanings) == 0 {
		return false
	}
	least, most := int64(0), int64(0)
	for i, n := range c.fitting {
		sum := int64(0)
		for _, l := range c.leanings {
			if domain, ok := n.domain(l.tally.key); ok {
				sum += l.weight * l.tally.domains[domain]
			}
		}
		points[i] = sum
		if i == 0 || sum < least {
			least = sum
		}
		if i == 0 || sum > most {
			most = sum
		}
	}
	for i := range points {
		points[i] = share(points[i]-least, most-least)
	}
	return most > least
}

// rateOwner keeps the pods of one controller apart: by node, and twice as much by
// zone where nodes have one. A pod with constraints of its own goes by these.
func rateOwner(c *Core, points []int64) bool {
	t := c.snapshot.owners[c.pod.owner]
	if t == nil || len(c.pod.spread) > 0 {
		return false
	}
	mostNode, mostZone := int64(0), int64(0)
	for _, n := range c.fitting {
		mostNode = max(mostNode, t.nodes[n])
		mostZone = max(mostZone, t.domains[n.labels[corev1.LabelTopologyZone]])
	}
	if mostNode == 0 && mostZone == 0 {
		return false
	}
	for i, n := range c.fitting {
		points[i] = pointsMax - share(t.nodes[n], mostNode)
		if mostZone > 0 {
			inZone := pointsMax - share(t.domains[n.labels[corev1.LabelTopologyZone]], mostZone)
			points[i] = (points[i] + 2*inZone) / 3
		}
	}
	return true
}

// rateImages prefers nodes that have the pod's images.
func rateImages(c *Core, points []int64) bool {
	most := int64(0)
	for i, n := range c.fitting {
		points[i] = 0
		for _, image := range c.pod.images {
			if _, ok := n.images[image]; ok {
				points[i]++
			}
		}
		most = max(most, points[i])
	}
	for i := range points {
		points[i] = share(points[i], int64(len(c.pod.images)))
	}
	return most > 0
}
