package vfstest

import (
	"math/rand/v2"
	"slices"
)

const sectorBytes = 512 // A disk writes a sector whole or not at all.

// Image says which part of the pending changes a crash leaves.
type Image int

// The images.
const (
	Nothing    Image = iota // Only what was synced.
	Everything              // As if all had been synced in time.
	Prefix                  // The first Keep pending changes, in the order they were made.
	Torn                    // Everything, but the last write stops at a random byte.
	Random                  // Each rename, name, resize and sector with an even chance.
	NoNames                 // All contents, no pending name: renames and new files are lost.
	NoData                  // All names, no pending contents: the renamed file that is empty.
	Newest                  // The newest pending change alone: a rename that overtook all before it.
)

// Images are all kinds, for tests that go through them.
var Images = []Image{Nothing, Everything, Prefix, Torn, Random, NoNames, NoData, Newest}

func (i Image) String() string {
	return [...]string{"nothing", "everything", "prefix", "torn", "random", "no-names", "no-data", "newest"}[i]
}

// Crash is how the power went.
type Crash struct {
	Image Image
	Keep  int        // For Prefix; below zero counts from a random number.
	Rand  *rand.Rand // For Torn, Random and a random Prefix; nil means a fixed seed.
}

// Crash returns the file system as found after a power loss now. The old one
// goes on: one run gives as many images as a test likes.
func (m *Mem) Crash(c Crash) *Mem {
	if c.Rand == nil {
		c.Rand = rand.New(rand.NewPCG(1, 1))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := survivors{Crash: c, verdicts: make(map[uint64]bool), clones: make(map[*node]*node)}
	serials := m.pendingLocked()
	if c.Image == Prefix && len(serials) > 0 {
		keep := c.Keep
		if keep < 0 {
			keep = c.Rand.IntN(len(serials) + 1)
		}
		if keep > 0 {
			s.last = serials[min(keep, len(serials))-1]
		}
	}
	if c.Image == Newest && len(serials) > 0 {
		s.last = serials[len(serials)-1]
	}
	s.torn = m.lastWriteLocked()

	// Names first, on a copy of what each folder durably holds: a folder that
	// has lost its name takes everything below it along.
	s.names = make(map[*node]map[string]*node)
	for _, change := range m.mu.pending {
		if s.keepsName(change.serial) {
			names := s.namesOf(change.dir)
			if change.node == nil {
				delete(names, change.name)
			} else {
				names[change.name] = change.node
			}
		}
	}
	crashed := newMem(s.clone(m.mu.root))
	crashed.mu.free = m.mu.free
	return crashed
}

// Pending is how many changes no sync has covered: the range of Keep.
func (m *Mem) Pending() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.pendingLocked())
}

// NewestIsName reports whether the newest change that no sync has covered is one
// of a name, as a rename is.
func (m *Mem) NewestIsName() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	serials, names := m.pendingLocked(), m.mu.pending
	return len(names) > 0 && names[len(names)-1].serial == serials[len(serials)-1]
}

func (m *Mem) pendingLocked() []uint64 {
	var serials []uint64
	for _, c := range m.mu.pending {
		serials = append(serials, c.serial)
	}
	for _, n := range m.nodesLocked() {
		for _, c := range n.pending {
			serials = append(serials, c.serial)
		}
	}
	slices.Sort(serials)
	return slices.Compact(serials)
}

func (m *Mem) lastWriteLocked() uint64 {
	var last uint64
	for _, n := range m.nodesLocked() {
		for _, c := range n.pending {
			if !c.resize {
				last = max(last, c.serial)
			}
		}
	}
	return last
}

// nodesLocked lists every file and folder that a name leads to, seen, durable
// or pending, in an order that is the same each time.
func (m *Mem) nodesLocked() []*node {
	seen := make(map[*node]bool)
	var all []*node
	var walk func(n *node)
	walk = func(n *node) {
		if n == nil || seen[n] {
			return
		}
		seen[n] = true
		all = append(all, n)
		for _, names := range []map[string]*node{n.names, n.durable} {
			for _, name := range sortedNames(names) {
				walk(names[name])
			}
		}
	}
	walk(m.mu.root)
	for _, c := range m.mu.pending {
		walk(c.node)
	}
	return all
}

// survivors decides, once for each change, whether it reached the disk.
type survivors struct {
	Crash
	last     uint64 // For Prefix: the last serial that did. For Newest: the only one.
	torn     uint64 // For Torn: the write that did in part.
	verdicts map[uint64]bool
	names    map[*node]map[string]*node
	clones   map[*node]*node
}

func (s *survivors) keepsName(serial uint64) bool {
	switch s.Image {
	case Everything, Torn, NoData:
		return true
	case Prefix:
		return serial <= s.last
	case Newest:
		return serial == s.last
	case Random:
		keep, known := s.verdicts[serial]
		if !known {
			keep = s.Rand.IntN(2) == 0
			s.verdicts[serial] = keep
		}
		return keep
	default:
		return false
	}
}

func (s *survivors) namesOf(dir *node) map[string]*node {
	names := s.names[dir]
	if names == nil {
		names = make(map[string]*node, len(dir.durable))
		for name, n := range dir.durable {
			names[name] = n
		}
		s.names[dir] = names
	}
	return names
}

// clone copies a tree as it was found. A node with two names, which a rename
// between folders may leave, stays one.
func (s *survivors) clone(n *node) *node {
	if c := s.clones[n]; c != nil {
		return c
	}
	if !n.dir {
		c := &node{synced: s.contents(n)}
		c.data = c.synced.clone()
		s.clones[n] = c
		return c
	}
	c := newDir()
	s.clones[n] = c
	names := s.namesOf(n)
	for _, name := range sortedNames(names) {
		child := s.clone(names[name])
		c.names[name], c.durable[name] = child, child
	}
	return c
}

func (s *survivors) contents(n *node) content {
	out := n.synced.clone()
	for _, c := range n.pending {
		switch s.Image {
		case Everything, NoNames:
			c.apply(&out)
		case Prefix:
			if c.serial <= s.last {
				c.apply(&out)
			}
		case Newest:
			if c.serial == s.last {
				c.apply(&out)
			}
		case Torn:
			if c.serial == s.torn && len(c.data) > 0 {
				c.data = c.data[:s.Rand.IntN(len(c.data))]
			}
			c.apply(&out)
		case Random:
			s.applySome(c, &out)
		}
	}
	return out
}

// applySome lets each sector of a write decide for itself.
func (s *survivors) applySome(c dataChange, to *content) {
	if c.resize {
		if s.Rand.IntN(2) == 0 {
			c.apply(to)
		}
		return
	}
	for data, at := c.data, c.offset; len(data) > 0; {
		n := min(len(data), sectorBytes-int(at%sectorBytes))
		if s.Rand.IntN(2) == 0 {
			to.writeAt(data[:n], at)
		}
		data, at = data[n:], at+int64(n)
	}
}
