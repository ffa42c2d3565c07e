package recovery

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
)

var (
	runsFlag = flag.Int("recovery.runs", 10000, "how many random clusters are lost")
	seedFlag = flag.Uint64("recovery.seed", 0, "run only this seed")
)

// naive is Raft without messages: what one step of a leader does to a member
// happens at once, or never. Members never lose what they have.
type naive struct {
	r         *rand.Rand
	nodes     map[ID]*node
	first     Conf
	leader    ID // 0: none.
	match     map[ID]int
	committed []ent // What was ever committed, from index 1.
}

type node struct {
	log    []ent
	term   ident.Term
	commit int
}

type ent struct {
	term ident.Term
	conf *Conf // In force behind it.
	id   int   // No two entries have the same.
}

func newNaive(r *rand.Rand) *naive {
	n := &naive{r: r, nodes: map[ID]*node{}}
	for id := ID(1); id <= ID(3+r.IntN(3)); id++ {
		n.nodes[id] = &node{}
		n.first.Voters = append(n.first.Voters, id)
	}
	return n
}

// confAt is what a member knows to be in force after some entries of its log.
func (n *naive) confAt(m *node, upTo int) Conf {
	for i := upTo; i > 0; i-- {
		if c := m.log[i-1].conf; c != nil {
			return *c
		}
	}
	return n.first
}

func (n *naive) ids() []ID {
	var ids []ID
	for id := range n.nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (n *naive) some() ID { ids := n.ids(); return ids[n.r.IntN(len(ids))] }

func (m *node) end() Mark {
	if len(m.log) == 0 {
		return Mark{}
	}
	return Mark{ident.Index(len(m.log)), m.log[len(m.log)-1].term}
}

func (n *naive) add(m *node, conf *Conf) {
	m.log = append(m.log, ent{m.term, conf, n.r.Int()})
}

func (n *naive) elect() {
	id := n.some()
	c := n.nodes[id]
	conf := n.confAt(c, c.commit)
	if !slices.Contains(conf.Voters, id) {
		return
	}
	term := c.term + 1
	granted := map[ID]bool{}
	for _, v := range conf.Voters {
		if m := n.nodes[v]; v == id || n.r.IntN(3) > 0 && m.term < term && !c.end().Less(m.end()) {
			m.term, granted[v] = term, true
		}
	}
	if n.leader == id {
		n.leader = 0
	}
	if conf.quorum(func(id ID) bool { return granted[id] }) {
		n.leader, n.match = id, map[ID]int{}
		n.add(c, nil)
		n.match[id] = len(c.log)
	}
}

// propose adds an entry, now and then one that changes who votes: one at a time,
// and not before the leader has committed something in its own term.
func (n *naive) propose(l *node) {
	conf := n.confAt(l, l.commit)
	pending := !slices.Equal(conf.Voters, n.confAt(l, len(l.log)).Voters)
	var next *Conf
	if n.r.IntN(12) == 0 && !pending && l.commit > 0 && l.log[l.commit-1].term == l.term {
		id := ID(1 + n.r.IntN(7))
		c := Conf{Voters: slices.Clone(conf.Voters)}
		if i := slices.Index(c.Voters, id); i < 0 {
			c.Voters = append(c.Voters, id)
			slices.Sort(c.Voters)
			if n.nodes[id] == nil {
				n.nodes[id] = &node{}
			}
		} else if id != n.leader && len(c.Voters) > 1 {
			c.Voters = slices.Delete(c.Voters, i, i+1)
		}
		next = &c
	}
	n.add(l, next)
	n.match[n.leader] = len(l.log)
}

func (n *naive) replicate(l *node, id ID) {
	f := n.nodes[id]
	if id == n.leader || f.term > l.term {
		return
	}
	f.term = l.term
	same := 0
	for same < len(l.log) && same < len(f.log) && l.log[same].id == f.log[same].id {
		same++
	}
	take := min(len(l.log)-same, n.r.IntN(4)) // What fits a message.
	if take > 0 {
		f.log = append(f.log[:same:same], l.log[same:same+take]...)
	}
	n.match[id] = max(n.match[id], same+take)
	f.commit = max(f.commit, min(n.match[id], l.commit)) // A message tells it too.
}

// decide commits what a quorum of the leader's configuration has.
func (n *naive) decide(t *testing.T, l *node) {
	conf := n.confAt(l, l.commit)
	for i := len(l.log); i > l.commit && l.log[i-1].term == l.term; i-- {
		if conf.quorum(func(id ID) bool { return n.match[id] >= i }) {
			l.commit = i
			for at, e := range l.log[:i] {
				if at == len(n.committed) {
					n.committed = append(n.committed, e)
				} else if n.committed[at].id != e.id {
					t.Fatalf("the model is wrong: entry %d committed twice", at+1)
				}
			}
			return
		}
	}
}

func (n *naive) live(t *testing.T, steps int) {
	for range steps {
		l := n.nodes[n.leader]
		if l == nil || n.r.IntN(25) == 0 {
			n.elect()
			continue
		}
		switch id := n.some(); n.r.IntN(6) {
		case 0:
			n.propose(l)
		case 1:
			n.decide(t, l)
		case 2:
			if f := n.nodes[id]; f.term == l.term {
				f.commit = max(f.commit, min(n.match[id], l.commit))
			}
		default:
			n.replicate(l, id)
		}
	}
}

// facts is what collect would find on a member's disk.
func (n *naive) facts(id ID) Member {
	m := n.nodes[id]
	applied := n.r.IntN(m.commit + 1)
	stored := applied + n.r.IntN(m.commit-applied+1)
	mark := func(i int) Mark {
		if i == 0 {
			return Mark{}
		}
		return Mark{ident.Index(i), m.log[i-1].term}
	}
	f := Member{
		Source: Source{DataDir: fmt.Sprint(id)}, Collected: collectedAt, ID: id, Name: fmt.Sprintf("m%d", id), Cluster: 1, Timeline: 1,
		State: &State{Applied: mark(applied), Recorded: mark(applied), Conf: n.confAt(m, applied), Digest: strings.Repeat("00", 16)},
		Log:   &Log{Last: m.end(), Term: m.term, Commit: ident.Index(stored)},
	}
	for i, e := range m.log {
		at := Mark{ident.Index(i + 1), e.term}
		if i == 0 || m.log[i-1].term != e.term {
			f.Log.Terms = append(f.Log.Terms, at)
		}
		if e.conf != nil {
			c := Change{Index: at.Index}
			if i >= applied {
				c.After = e.conf
			}
			f.Log.Changes = append(f.Log.Changes, c)
		}
	}
	for _, p := range f.State.Conf.Voters {
		f.Peers = append(f.Peers, Peer{ID: p, Name: fmt.Sprintf("m%d", p), PeerURLs: []string{fmt.Sprintf("http://m%d:1", p)}})
	}
	switch n.r.IntN(20) { // Some disks are damaged.
	case 0:
		f.Log = nil
	case 1:
		f.State = nil
	}
	return f
}

// TestNoPlanClaimsThatNothingIsLostWhereSomethingIs loses random clusters and
// compares the plan with what was really committed.
func TestNoPlanClaimsThatNothingIsLostWhereSomethingIs(t *testing.T) {
	first, last := uint64(1), uint64(*runsFlag)
	if *seedFlag != 0 {
		first, last = *seedFlag, *seedFlag
	}
	counts := map[string]int{}
	for seed := first; seed <= last && !t.Failed(); seed++ {
		loseOne(t, seed, counts)
	}
	t.Logf("%v", counts)
	if *seedFlag != 0 {
		return
	}
	for _, what := range []string{"refused", "nothing lost, and the plan says so", "lost, and the plan says so", "nothing lost, the plan can not know"} {
		if counts[what] < *runsFlag/500 {
			t.Errorf("too little happened: %q %d times", what, counts[what])
		}
	}
}

func loseOne(t *testing.T, seed uint64, counts map[string]int) {
	n := newNaive(rand.New(rand.NewPCG(seed, 3)))
	n.live(t, 30+n.r.IntN(300))
	facts := &Facts{}
	for _, id := range n.ids() {
		if n.r.IntN(2) == 0 {
			facts.Members = append(facts.Members, n.facts(id))
		}
	}
	j := &judge{facts: facts, ask: &Ask{}}
	if j.chooseSource() != nil {
		counts["refused"]++
		return
	}
	ask := askOf()
	for id := range j.peers() {
		if j.member(id) == nil {
			ask.Dead = append(ask.Dead, id.String())
		}
	}
	p, err := NewPlan(facts, ask)
	if err != nil {
		counts["refused"]++
		return
	}
	chosen := n.nodes[p.Member].log[:p.Keep.Index]
	kept := 0
	for kept < len(chosen) && kept < len(n.committed) && chosen[kept].id == n.committed[kept].id {
		kept++
	}
	lost := kept < len(n.committed)
	if lost && !p.Loss.Possible {
		t.Errorf("seed %d: %d entries were committed, member %s has %d of them, and the plan promises that nothing is lost", seed, len(n.committed), p.Member, kept)
	}
	counts[map[bool]string{true: "lost, ", false: "nothing lost, "}[lost]+map[bool]string{true: "and the plan says so", false: "the plan can not know"}[lost == p.Loss.Possible]]++
	for _, m := range facts.Members {
		if _, usable := m.end(); usable && int(m.proven()) > kept && p.Loss.Missing == 0 {
			t.Errorf("seed %d: member %s proves entry %d to be committed, the plan keeps %d without a word", seed, m.ID, m.proven(), kept)
		}
		if m.State == nil || m.Log == nil {
			continue
		}
		log := n.nodes[m.ID].log
		for i := kept; i < len(log) && i < len(n.committed); i++ {
			if log[i].id == n.committed[i].id {
				t.Errorf("seed %d: member %s has entry %d, which was committed, the chosen log of %s has not", seed, m.ID, i+1, p.Member)
				break
			}
		}
	}
}
