package recovery

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// Facts is what is known of a cluster's survivors, one by one.
type Facts struct {
	Members []Member `json:"members"`
}

// Member is what a stopped member's disk says.
type Member struct {
	Source
	Collected time.Time `json:"collected"`
	// Running says that the member ran, and was asked itself: nothing was verified,
	// and the state is what it had applied. Leader is whom it follows.
	Running bool `json:"running,omitempty"`
	Leader  ID   `json:"leader,omitempty"`

	ID          ID             `json:"id"`
	Name        string         `json:"name,omitempty"`
	Incarnation ID             `json:"incarnation"`
	Cluster     ID             `json:"cluster"`
	Timeline    ident.Timeline `json:"timeline"`

	// Peers is the table of members, and UUID the cluster's, with what the log adds
	// to the state.
	Peers []Peer `json:"members,omitempty"`
	UUID  string `json:"uuid,omitempty"`

	State *State `json:"state,omitempty"` // Absent: it can not be relied on, Damage says why.
	Log   *Log   `json:"log,omitempty"`   // The same.

	Damage []Damage `json:"damage,omitempty"`
	Frozen string   `json:"frozen,omitempty"` // For whose sake.
	Staged string   `json:"staged,omitempty"` // The plan that is being applied here.
}

// Damage is a part that is not what it should be.
type Damage struct {
	Part string `json:"part"` // state, log or identity.
	What string `json:"what"`
}

// State is what the state machine had applied and kept.
type State struct {
	Applied   Mark           `json:"applied"` // At the last checkpoint.
	Time      time.Time      `json:"time"`    // Of that entry.
	Digest    string         `json:"digest"`
	Revision  ident.Revision `json:"revision"`
	Compacted ident.Revision `json:"compacted"`
	Recorded  Mark           `json:"recorded"` // The last entry in history; it was committed too.
	Conf      Conf           `json:"configuration"`
}

// changed is the last entry that made its digest what it is, as far as is known:
// elections and the like change nothing, and no archive holds them.
func (s *State) changed() ident.Index {
	if s.Recorded.Index == 0 {
		return s.Applied.Index
	}
	return min(s.Applied.Index, s.Recorded.Index)
}

// Peer is a row of the table of members.
type Peer struct {
	ID          ID       `json:"id"`
	Name        string   `json:"name,omitempty"`
	PeerURLs    []string `json:"peer_urls"`
	ClientURLs  []string `json:"client_urls,omitempty"`
	Learner     bool     `json:"learner,omitempty"`
	Incarnation ID       `json:"incarnation"`
}

// Log is what a member's Raft log holds.
type Log struct {
	Start  Mark        `json:"start"` // The entry before the first.
	Last   Mark        `json:"last"`
	Term   ident.Term  `json:"term"`
	Vote   ID          `json:"vote"`
	Commit ident.Index `json:"commit"` // As stored; it lags.
	Cut    *Cut        `json:"cut,omitempty"`
	Failed bool        `json:"failed,omitempty"` // A write or sync failed in the member's last life.

	// Apart says that the log does not hold the entry that the state ends with: the
	// member would begin it anew there. What it holds counts for nothing.
	Apart bool `json:"apart,omitempty"`
	// Terms are the first entries of each term, by which any two logs compare.
	Terms []Mark `json:"terms,omitempty"`
	// Changes are the entries that may change who votes, and what follows from
	// those that the state has not applied yet.
	Changes []Change `json:"changes,omitempty"`
	// Tail are the entries that nothing here proves to be committed.
	Tail []Entry `json:"tail,omitempty"`
	// Newest is the time of the newest entry that has one.
	Newest time.Time `json:"newest"`
}

// Cut is a torn tail: what was in it may have been acknowledged.
type Cut struct {
	Bytes int64       `json:"bytes"`
	Seen  ident.Index `json:"seen,omitempty"` // The highest index found in it.
}

// Change is an entry that changes who votes.
type Change struct {
	Index ident.Index `json:"index"`
	After *Conf       `json:"after,omitempty"` // Absent for one that is part of the state.
}

// Conf says who votes.
type Conf struct {
	Voters   []ID `json:"voters"`
	Outgoing []ID `json:"outgoing,omitempty"` // Until a joint change is over, a majority of these is needed as well.
	Learners []ID `json:"learners,omitempty"`
}

// quorum reports whether the members that count can decide alone.
func (c *Conf) quorum(counts func(ID) bool) bool {
	return majority(c.Voters, counts) && (len(c.Outgoing) == 0 || majority(c.Outgoing, counts))
}

func majority(voters []ID, counts func(ID) bool) bool {
	n := 0
	for _, id := range voters {
		if counts(id) {
			n++
		}
	}
	return n > len(voters)/2
}

// all are everybody who is named.
func (c *Conf) all() []ID { return slices.Concat(c.Voters, c.Outgoing, c.Learners) }

// Entry is an entry of a log in words.
type Entry struct {
	Mark
	Time     time.Time `json:"time"` // Zero where the entry has none.
	Requests []Request `json:"requests,omitempty"`
}

// Request is one wish within an entry, without values.
type Request struct {
	What string `json:"what"`
	Key  []byte `json:"key,omitempty"`
	End  []byte `json:"end,omitempty"` // Of an interval.
}

// Others are the IDs of all who are or may become members beside this one.
func (m *Member) Others() []string {
	var list []string
	if m.State == nil {
		return nil
	}
	all := m.State.Conf.all()
	if m.Log != nil {
		for _, c := range m.Log.Changes {
			if c.After != nil {
				all = append(all, c.After.all()...)
			}
		}
	}
	slices.Sort(all)
	for _, id := range slices.Compact(all) {
		if id != m.ID {
			list = append(list, id.String())
		}
	}
	return list
}

// end is the last entry that a member can bring back, and whether it can bring
// back anything: a state without a log is as good as one whose log ends with it.
func (m *Member) end() (Mark, bool) {
	switch {
	case m.State == nil || len(m.State.Conf.Voters) == 0 || m.damaged("identity"):
		return Mark{}, false
	case m.Log == nil || m.Log.Apart:
		return m.State.Applied, true
	}
	return m.Log.Last, true
}

// proofs are entries that this member proves to be committed. A term of 0 is not
// known.
func (m *Member) proofs() []Mark {
	var list []Mark
	if m.State != nil {
		list = append(list, m.State.Applied, m.State.Recorded)
	}
	if m.Log != nil {
		list = append(list, Mark{m.Log.Commit, m.Log.termAt(m.Log.Commit)})
	}
	return list
}

// proven is the highest of them.
func (m *Member) proven() ident.Index {
	var k ident.Index
	for _, p := range m.proofs() {
		k = max(k, p.Index)
	}
	return k
}

// contradicts reports whether the log of m can not hold an entry, or come to
// hold it.
func (m *Member) contradicts(proof Mark) bool {
	end, _ := m.end()
	if proof.Term == 0 {
		return false
	}
	if proof.Index >= end.Index {
		return end.Term > proof.Term || end.Index == proof.Index && end.Term != proof.Term
	}
	here := ident.Term(0)
	if m.Log != nil {
		here = m.Log.termAt(proof.Index)
	}
	return here != 0 && here != proof.Term
}

// termAt is the term of an entry, 0 where the log does not hold it.
func (l *Log) termAt(i ident.Index) ident.Term {
	if l.Apart || i > l.Last.Index {
		return 0
	}
	var term ident.Term
	for _, first := range l.Terms {
		if first.Index <= i {
			term = first.Term
		}
	}
	return term
}

// seen is the highest index and term that left any trace here.
func (m *Member) seen() Mark {
	var s Mark
	if m.State != nil {
		s = Mark{max(m.State.Applied.Index, m.State.Recorded.Index), max(m.State.Applied.Term, m.State.Recorded.Term)}
	}
	if m.Log != nil {
		s.Index, s.Term = max(s.Index, m.Log.Last.Index, m.Log.Commit), max(s.Term, m.Log.Last.Term, m.Log.Term)
		if m.Log.Cut != nil {
			s.Index = max(s.Index, m.Log.Cut.Seen)
		}
	}
	return s
}

// fingerprint is equal as long as nothing has changed on the disk.
func (m *Member) fingerprint() (string, error) {
	still := *m
	still.Collected, still.Frozen, still.Staged = time.Time{}, "", ""
	b, err := json.Marshal(&still)
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:16]), err
}
