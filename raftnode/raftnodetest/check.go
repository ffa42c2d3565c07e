package raftnodetest

import (
	"errors"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// Checker knows more than any member: what all of them did, ever. The names of
// the invariants are those of the design's list. Whoever carries cores on one
// goroutine tells it what happens.
type Checker struct {
	// Changing says that configurations change, and with them quorums.
	Changing bool
	// Elections and Installs count leaders and installed snapshots.
	Elections, Installs int
	// Acknowledged is the highest index whose answer left.
	Acknowledged ident.Index
	// Fired counts how often each invariant was looked at.
	Fired map[string]int

	world Checked

	leaders map[ident.Term]ident.MemberID                    // C1
	chains  map[wal.Mark]uint64                              // C2: hash of an entry and all before it.
	logs    map[ident.MemberID]map[ident.Index]uint64        // C2: the same, by member, as handed to its log.
	commits map[ident.Index]committed                        // C3
	applies map[ident.Index]uint64                           // C4: the entry.
	states  map[ident.Index]uint64                           // C4: the state behind it.
	hards   map[ident.MemberID]wal.HardState                 // C6
	votes   map[ident.MemberID]map[ident.Term]ident.MemberID // C6
	indexes map[ident.RequestID]ident.Index                  // Where a request was applied first.
	durable map[ident.MemberID][2]ident.Index                // Rule 10: the checkpoint before the last, and the last.

	highest ident.Index // The highest commit index anybody showed.
}

type committed struct {
	chain uint64
	when  ident.Term // Of the leader that showed it first.
}

// Checked is a world of members, as the checker sees it.
type Checked interface {
	// Fail ends the run.
	Fail(format string, args ...any)
	// Subject is a member that is or was; nil when there never was one.
	Subject(id ident.MemberID) Subject
	// Told is what a client was told of its request; nil while it waits.
	Told(id ident.RequestID) error
}

// Subject is one member. What is durable is what a crash would leave.
type Subject interface {
	ID() ident.MemberID
	Status() raftnode.Status
	Published() ident.Index
	ConfIndex() ident.Index                                 // Of the newest applied change of the configuration; 0: none since the start.
	DurableTerm(i ident.Index) (term ident.Term, held bool) // A compacted entry counts as held.
	DurableHard() wal.HardState
	DurableLast() wal.Mark
}

// NewChecker begins behind the entry that all members start from.
func NewChecker(world Checked, at wal.Mark) *Checker {
	return &Checker{
		Fired: map[string]int{}, world: world,
		leaders: map[ident.Term]ident.MemberID{}, chains: map[wal.Mark]uint64{at: 1},
		logs: map[ident.MemberID]map[ident.Index]uint64{}, commits: map[ident.Index]committed{},
		applies: map[ident.Index]uint64{}, states: map[ident.Index]uint64{},
		hards:   map[ident.MemberID]wal.HardState{},
		votes:   map[ident.MemberID]map[ident.Term]ident.MemberID{},
		indexes: map[ident.RequestID]ident.Index{}, durable: map[ident.MemberID][2]ident.Index{}, highest: at.Index,
	}
}

// NewMember tells of a member whose log begins behind the common start.
func (k *Checker) NewMember(id ident.MemberID, at wal.Mark) {
	k.logs[id] = map[ident.Index]uint64{at.Index: 1}
	k.votes[id] = map[ident.Term]ident.MemberID{}
}

// Forget excuses a member whose disk lost what was durable: from now on it may
// have less than it had.
func (k *Checker) Forget(id ident.MemberID) { delete(k.hards, id) }

// Restarted tells what a member's log holds at a start: the entry before the
// first, and all there are. What was handed to it and did not get there is gone.
func (k *Checker) Restarted(id ident.MemberID, marks []wal.Mark) {
	log := map[ident.Index]uint64{}
	for i, at := range marks {
		chain, known := k.chains[at]
		if !known && i > 0 {
			k.world.Fail("C2: the log of member %s holds %s, which nobody ever appended", id, at)
		}
		log[at.Index] = max(chain, 1)
	}
	k.logs[id] = log
}

// After runs after each step of a member.
func (k *Checker) After(m Subject, s *raftnode.Status) {
	k.Fired["I-1"]++
	if published := m.Published(); s.Applied > s.Commit || s.Commit > s.Last || published > s.Commit {
		k.world.Fail("I-1: member %s applied %d (%d), commit %d, last %d", m.ID(), s.Applied, published, s.Commit, s.Last)
	}
	if s.Role == raftnode.Leader {
		k.leads(m, s)
	}
	k.committed(m, s)
}

func (k *Checker) leads(m Subject, s *raftnode.Status) {
	k.Fired["C1"]++
	if other, known := k.leaders[s.Term]; known {
		if other != m.ID() {
			k.world.Fail("C1: members %s and %s lead term %d", other, m.ID(), s.Term)
		}
		return
	}
	k.leaders[s.Term] = m.ID()
	k.Elections++
	k.Fired["C3"]++
	log := k.logs[m.ID()]
	for index, c := range k.commits {
		if c.when < s.Term && index >= s.First && log[index] != c.chain {
			k.world.Fail("C3: leader %s of term %d lacks entry %d, committed in term %d", m.ID(), s.Term, index, c.when)
		}
	}
}

func (k *Checker) committed(m Subject, s *raftnode.Status) {
	for k.highest < s.Commit {
		index := k.highest + 1
		chain, known := k.logs[m.ID()][index]
		if !known {
			return // Not handed to its log yet; somebody else has it.
		}
		k.highest = index
		k.commits[index] = committed{chain: chain, when: s.Term}
		k.Fired["C5"]++
		if holders := k.holders(m, index, s.Voters); holders < len(s.Voters)/2+1 && !k.Changing {
			k.world.Fail("C5: entry %d is committed and durable on %d of %d", index, holders, len(s.Voters))
		}
	}
}

// holders counts the voters on whose disk an entry is, as one member has it.
func (k *Checker) holders(m Subject, index ident.Index, voters []ident.MemberID) int {
	want, known := k.logs[m.ID()][index]
	if !known { // A state that was received since has taken the place of its log.
		want = k.commits[index].chain
	}
	holders := 0
	for _, id := range voters {
		other := k.world.Subject(id)
		if other == nil || k.logs[id][index] != want {
			continue
		}
		if _, held := other.DurableTerm(index); held {
			holders++
		}
	}
	return holders
}

// Appended runs when entries are handed to a member's log.
func (k *Checker) Appended(m Subject, a *raftnode.Append) {
	k.Fired["C2"]++
	log := k.logs[m.ID()]
	if a.Start.Index != 0 {
		chain, known := k.chains[a.Start]
		if !known {
			k.world.Fail("C2: snapshot at %s holds an entry that nobody ever had", a.Start)
		}
		clear(log)
		log[a.Start.Index] = chain
	}
	for _, e := range a.Entries {
		at := wal.Mark{Index: ident.Index(e.GetIndex()), Term: ident.Term(e.GetTerm())}
		before, known := log[at.Index-1]
		if !known {
			k.world.Fail("member %s appends %s behind a gap", m.ID(), at)
		}
		chain := mix(before, uint64(at.Term), sumOf(e.GetData()), uint64(e.GetType()))
		if other, known := k.chains[at]; known && other != chain {
			k.world.Fail("C2: member %s has another entry %s, or others before it", m.ID(), at)
		}
		// A leader that was deposed and does not know it yet may still append entries of its term.
		if c, known := k.commits[at.Index]; known && c.chain != chain && (at.Term >= c.when || log[at.Index] == c.chain) {
			k.world.Fail("C3: member %s replaces committed entry %d", m.ID(), at.Index)
		}
		k.chains[at] = chain
		if old, known := log[at.Index]; known && old != chain {
			for i := at.Index; ; i++ {
				if _, known := log[i]; !known {
					break
				}
				delete(log, i)
			}
		}
		log[at.Index] = chain
	}
}

// Synced runs when a member's disk has caught up.
func (k *Checker) Synced(m Subject) {
	k.Fired["C6"]++
	id := m.ID()
	before, now := k.hards[id], m.DurableHard()
	if now.Term < before.Term || now.Term == before.Term && before.Vote != 0 && now.Vote != before.Vote || now.Commit < before.Commit {
		k.world.Fail("C6: member %s goes from %+v back to %+v", id, before, now)
	}
	if now.Vote != 0 {
		if other, voted := k.votes[id][now.Term]; voted && other != now.Vote {
			k.world.Fail("C6: member %s votes for %s and %s in term %d", id, other, now.Vote, now.Term)
		}
		k.votes[id][now.Term] = now.Vote
	}
	k.hards[id] = now
}

// Installed runs when a member has switched to the state of a snapshot.
func (k *Checker) Installed(m Subject, at wal.Mark, sum uint64) {
	k.Installs++
	k.durable[m.ID()] = [2]ident.Index{at.Index, at.Index} // It is written twice.
	k.Fired["C4"]++
	if known, ok := k.states[at.Index]; !ok || known != sum {
		k.world.Fail("C4: member %s installs another state at %d", m.ID(), at.Index)
	}
}

// Checkpointed runs when the state of a member became durable up to an index.
func (k *Checker) Checkpointed(m Subject, index ident.Index) {
	k.durable[m.ID()] = [2]ident.Index{k.durable[m.ID()][1], index}
}

// Compacted runs when a member lets go the log up to an index. A damaged page
// of the newest checkpoint must leave the one before and all that followed it.
func (k *Checker) Compacted(m Subject, index ident.Index) {
	k.Fired["rule 10"]++
	if kept := k.durable[m.ID()]; index > kept[0] {
		k.world.Fail("rule 10: member %s lets its log go up to %d, its last checkpoints are at %d and %d", m.ID(), index, kept[0], kept[1])
	}
}

// Sent runs when a message leaves a member.
func (k *Checker) Sent(m Subject, msg *raftpb.Message) {
	switch msg.GetType() {
	case raftpb.MsgAppResp:
		k.Fired["C7"]++
		hard, term := m.DurableHard(), ident.Term(msg.GetTerm())
		if hard.Term < term {
			k.world.Fail("C7: member %s acknowledges in term %d, durable is %d", m.ID(), term, hard.Term)
		}
		if hard.Term > term {
			return // Of a term that is over. What it was about may have been overwritten since, as if it had been long on its way.
		}
		if last := m.DurableLast().Index; !msg.GetReject() && ident.Index(msg.GetIndex()) > last {
			k.world.Fail("C7: member %s acknowledges %d, durable is %d", m.ID(), msg.GetIndex(), last)
		}
	case raftpb.MsgVoteResp:
		k.Fired["C7"]++
		hard := m.DurableHard()
		if !msg.GetReject() && (hard.Term < ident.Term(msg.GetTerm()) ||
			hard.Term == ident.Term(msg.GetTerm()) && uint64(hard.Vote) != msg.GetTo()) {
			k.world.Fail("C7: member %s votes for %x in term %d, durable is %+v", m.ID(), msg.GetTo(), msg.GetTerm(), hard)
		}
	}
}

// Applied runs for each entry that a member's state machine is given.
func (k *Checker) Applied(m Subject, e *entry.Entry) {
	k.Fired["C4"]++
	sum := mix(uint64(e.Index), uint64(e.Term), uint64(e.Time))
	for _, r := range e.Requests {
		sum = mix(sum, sumOf(r.Data))
	}
	if other, known := k.applies[e.Index]; known {
		if other != sum {
			k.world.Fail("C4: member %s applies another entry %d", m.ID(), e.Index)
		}
		return
	}
	k.applies[e.Index] = sum
	for _, r := range e.Requests {
		k.placed(r.ID, e.Index)
	}
	if e.Conf != nil && e.Conf.Request.Data != nil {
		k.placed(e.Conf.Request.ID, e.Index)
	}
}

// State compares states behind the same entry.
func (k *Checker) State(m Subject, index ident.Index, sum uint64) {
	k.Fired["A1"]++
	if other, known := k.states[index]; known && other != sum {
		k.world.Fail("A1: member %s has another state at %d", m.ID(), index)
	}
	k.states[index] = sum
}

// placed checks that a request becomes one entry and no second (rule 21).
func (k *Checker) placed(id ident.RequestID, index ident.Index) {
	k.Fired["rule 21"]++
	if other, known := k.indexes[id]; known && other != index {
		k.world.Fail("rule 21: request %v is in entries %d and %d", id, other, index)
	}
	k.indexes[id] = index
	if errors.Is(k.world.Told(id), raftnode.ErrLeaderChanged) {
		k.world.Fail("rule 21: request %v takes effect after its client was told that it never will", id)
	}
}

// Answered runs before an answer leaves. It returns the index of the entry.
func (k *Checker) Answered(m Subject, a *entry.Answer) ident.Index {
	k.Fired["I-6"]++
	index := k.indexes[a.ID]
	if published := m.Published(); published < index {
		k.world.Fail("I-6: member %s answers for entry %d, published is %d", m.ID(), index, published)
	}
	// What was committed before a change was by the voters before it.
	if voters := m.Status().Voters; !k.Changing && index > m.ConfIndex() {
		if holders := k.holders(m, index, voters); holders < len(voters)/2+1 {
			k.world.Fail("I-6: entry %d is answered and durable on %d of %d", index, holders, len(voters))
		}
	}
	k.Acknowledged = max(k.Acknowledged, index)
	return index
}
