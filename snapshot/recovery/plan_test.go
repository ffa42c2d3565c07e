package recovery

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/snapshot"
)

var collectedAt = time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)

const testNonce = "00112233445566778899aabbccddeeff"

func voters(ids ...ID) Conf { return Conf{Voters: ids} }

// survivor is a member whose disk is whole: log from 1 to last, all of one term
// but for the entries that change it.
func survivor(id ID, conf Conf, commit ident.Index, terms ...Mark) Member {
	last := terms[len(terms)-1]
	m := Member{
		Source: Source{DataDir: fmt.Sprintf("/data/m%d", id)}, Collected: collectedAt,
		ID: id, Name: fmt.Sprintf("m%d", id), Cluster: 0xc1, Timeline: 1,
		State: &State{
			Applied: Mark{1, terms[0].Term}, Recorded: Mark{1, terms[0].Term}, Time: collectedAt.Add(-time.Hour), Digest: strings.Repeat("ab", 16), Revision: 1,
			Conf: conf,
		},
		UUID: strings.Repeat("07", 16),
		Log:  &Log{Last: last, Term: last.Term, Commit: commit, Newest: collectedAt.Add(-time.Minute)},
	}
	at := ident.Index(1)
	for _, t := range terms { // Each up to which index a term reaches.
		m.Log.Terms = append(m.Log.Terms, Mark{at, t.Term})
		for ; at <= t.Index; at++ {
			if at > m.proven() {
				m.Log.Tail = append(m.Log.Tail, Entry{Mark: Mark{at, t.Term}, Requests: []Request{{What: "put", Key: fmt.Appendf(nil, "k%d", at)}}})
			}
		}
	}
	for _, p := range conf.all() {
		m.Peers = append(m.Peers, Peer{ID: p, Name: fmt.Sprintf("m%d", p), PeerURLs: []string{fmt.Sprintf("http://m%d:2380", p)}})
	}
	return m
}

func askOf(dead ...string) Ask {
	return Ask{Dead: dead, Nonce: testNonce, Now: collectedAt.Add(time.Minute)}
}

// change edits a member for one case.
func with(m Member, edit func(*Member)) Member {
	edit(&m)
	return m
}

func TestThePlanFollowsFromTheFacts(t *testing.T) {
	three, four := voters(1, 2, 3), voters(1, 2, 3, 4)
	five := voters(1, 2, 3, 4, 5)
	log := func(id ID, conf Conf) Member { return survivor(id, conf, 90, Mark{100, 3}) }
	for _, c := range []struct {
		name    string
		members []Member
		ask     Ask
		source  ID
		k, l    ident.Index
		loses   string // Within the reasons; "" when nothing can be lost.
		missing ident.Index
	}{
		{name: "one of three", members: []Member{log(1, three)}, ask: askOf("m2", "m3"), source: 1, k: 90, l: 100, loses: "were a quorum"},
		{name: "two of four meet every quorum", members: []Member{log(1, four), log(2, four)}, ask: askOf("m3", "m4"), source: 1, k: 90, l: 100},
		{name: "the longer log", members: []Member{log(1, four), survivor(2, four, 80, Mark{101, 3})}, ask: askOf("m3", "m4"), source: 2, k: 90, l: 101},
		{name: "a later term beats length", members: []Member{log(1, four), survivor(2, four, 80, Mark{90, 3}, Mark{95, 4})}, ask: askOf("m3", "m4"), source: 2, k: 90, l: 95},
		{name: "the hard state's term does not", members: []Member{log(1, four), with(survivor(2, four, 80, Mark{95, 3}), func(m *Member) { m.Log.Term = 9 })}, ask: askOf("m3", "m4"), source: 1, k: 90, l: 100},
		{name: "a torn tail is a source and proves nothing", members: []Member{log(1, four), with(log(2, four), func(m *Member) { m.Log.Cut = &Cut{Bytes: 9} })}, ask: askOf("m3", "m4"), source: 1, k: 90, l: 100, loses: "m2 (2)"},
		{name: "so does a log that failed", members: []Member{log(1, four), with(log(2, four), func(m *Member) { m.Log.Failed = true })}, ask: askOf("m3", "m4"), source: 1, k: 90, l: 100, loses: "m2 (2)"},
		{name: "a damaged log, its state counts", members: []Member{log(1, four), with(log(2, four), func(m *Member) { m.Log, m.State.Applied = nil, Mark{120, 4} })}, ask: askOf("m3", "m4"), source: 2, k: 120, l: 120, loses: "m2 (2)"},
		{name: "a damaged state, its log counts", members: []Member{log(1, four), with(survivor(2, four, 90, Mark{110, 3}), func(m *Member) { m.State = nil })}, ask: askOf("m3", "m4"), source: 1, k: 90, l: 100, loses: "reaches entry 110"},
		{name: "what was committed lies beyond every usable log", members: []Member{log(1, four), with(survivor(2, four, 105, Mark{110, 3}), func(m *Member) { m.State = nil })}, ask: askOf("m3", "m4"), source: 1, k: 100, l: 100, loses: "entry 105 was committed", missing: 105},
		{name: "a proof overrules a later term", members: []Member{survivor(1, five, 100, Mark{100, 2}), survivor(2, five, 80, Mark{90, 2}, Mark{110, 3})}, ask: askOf("m3", "m4", "m5"), source: 1, k: 100, l: 100, loses: "quorum"},
		{name: "a learner is a source and no vote", members: []Member{with(log(4, Conf{Voters: []ID{1, 2, 3}, Learners: []ID{4}}), func(m *Member) {}), survivor(1, Conf{Voters: []ID{1, 2, 3}, Learners: []ID{4}}, 80, Mark{99, 3})}, ask: askOf("m2", "m3"), source: 4, k: 90, l: 100, loses: "m2 (2), m3 (3)"},
		{name: "a change in the tail", members: []Member{with(log(1, four), func(m *Member) { m.Log.Changes = []Change{{Index: 95, After: &five}} }), log(2, four)}, ask: askOf("m3", "m4", "5"), source: 1, k: 90, l: 100, loses: "quorum"},
		{name: "a change that was applied", members: []Member{with(log(1, four), func(m *Member) { m.Log.Changes = []Change{{Index: 1}} }), log(2, four)}, ask: askOf("m3", "m4"), source: 1, k: 90, l: 100, loses: "can not be told"},
		{name: "a log that begins late", members: []Member{with(log(1, four), func(m *Member) { m.Log.Start = Mark{95, 3} }), log(2, four)}, ask: askOf("m3", "m4"), source: 1, k: 90, l: 100, loses: "does not reach back"},
		{name: "a joint change", members: []Member{log(1, Conf{Voters: []ID{1, 2}, Outgoing: []ID{1, 3, 4}})}, ask: askOf("m2", "m3", "m4"), source: 1, k: 90, l: 100},
		{name: "another incarnation is nobody", members: []Member{log(1, four), with(log(2, four), func(m *Member) { m.Damage = []Damage{{"identity", "another"}} })}, ask: askOf("m3", "m4"), source: 1, k: 90, l: 100, loses: "m2 (2)"},
		{name: "the archive proves more", members: []Member{log(1, three)}, ask: withArchive(askOf("m2", "m3"), archiveAt{tip: Mark{97, 3}}), source: 1, k: 97, l: 100, loses: "quorum"},
		{name: "a synchronous archive", members: []Member{log(1, three)}, ask: withArchive(askOf("m2", "m3"), archiveAt{tip: Mark{97, 3}, sync: true}), source: 1, k: 97, l: 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := NewPlan(&Facts{Members: c.members}, c.ask)
			if err != nil {
				t.Fatal(err)
			}
			if p.Member != c.source || p.Committed != c.k || p.Keep.Index != c.l || p.Loss.Missing != c.missing {
				t.Errorf("source %s, K %d, L %d, missing %d", p.Member, p.Committed, p.Keep.Index, p.Loss.Missing)
			}
			if why := strings.Join(p.Loss.Why, "; "); p.Loss.Possible != (c.loses != "") || !strings.Contains(why, c.loses) {
				t.Errorf("loss %v: %q, want %q", p.Loss.Possible, why, c.loses)
			}
			if n := len(p.Uncertain); n != int(c.l-c.k) {
				t.Errorf("%d uncertain entries", n)
			}
			for _, m := range c.members {
				if s := m.seen(); p.At.Index <= s.Index || p.At.Term <= s.Term {
					t.Errorf("goes on at %v, member %s has seen %v", p.At, m.ID, s)
				}
			}
		})
	}
}

func withArchive(a Ask, w Witness) Ask {
	a.Archive = w
	return a
}

type archiveAt struct {
	tip    Mark
	sync   bool
	digest *ident.Digest
	at     ident.Index // Where the digest is known; 0: everywhere.
}

func (a archiveAt) Tip() Mark         { return a.tip }
func (a archiveAt) Synchronous() bool { return a.sync }
func (a archiveAt) DigestAt(i ident.Index) (ident.Digest, bool) {
	if a.digest == nil || a.at != 0 && a.at != i {
		return ident.Digest{}, false
	}
	return *a.digest, true
}

func TestARecoveryIsRefusedWithTheReason(t *testing.T) {
	three := voters(1, 2, 3)
	log := func(id ID) Member { return survivor(id, three, 90, Mark{100, 3}) }
	late, answering := askOf("m2", "m3"), askOf("m2", "m3")
	late.Now = collectedAt.Add(2 * FreshMax)
	answering.Answering = []string{"m3"}
	for _, c := range []struct {
		name    string
		members []Member
		ask     Ask
		want    string
		is      error
	}{
		{"nothing collected", nil, askOf(), "none has a log", ErrRefused},
		{"nothing usable", []Member{with(log(1), func(m *Member) { m.State, m.Damage = nil, []Damage{{"state", "row 7"}} })}, askOf("m2", "m3"), "state of member 1: row 7", ErrRefused},
		{"a member that never got a state", []Member{with(log(1), func(m *Member) { m.State.Conf = Conf{} })}, askOf(), "none has a log", ErrRefused},
		{"a quorum is there", []Member{log(1), log(2)}, askOf("m3"), "are a quorum: start them", ErrRefused},
		{"a member unaccounted for", []Member{log(1)}, askOf("m2"), "nothing is known of m3 (3)", ErrRefused},
		{"one that becomes a member in the tail", []Member{with(log(1), func(m *Member) { c := voters(1, 2, 3, 9); m.Log.Changes = []Change{{Index: 99, After: &c}} })}, askOf("m2", "m3"), "nothing is known of  (9)", ErrRefused},
		{"a name nobody has", []Member{log(1)}, askOf("m2", "m4"), `"m4" is the name or ID of 0 members; the members are m1 (1), m2 (2), m3 (3)`, ErrRefused},
		{"dead and collected", []Member{log(1), with(log(2), func(m *Member) { m.Log.Cut = &Cut{} })}, askOf("m2", "m3"), "is among the facts", ErrRefused},
		{"dead and answering", []Member{log(1)}, answering, "somebody listens at its peer URLs http://m3:2380", ErrRefused},
		{"the same member twice", []Member{log(1), log(1)}, askOf("m2", "m3"), "twice", ErrRefused},
		{"another cluster", []Member{log(1), with(log(2), func(m *Member) { m.Cluster = 0xc2 })}, askOf("m3"), "is of cluster c2", ErrRefused},
		{"another timeline", []Member{log(1), with(log(2), func(m *Member) { m.Timeline = 2 })}, askOf("m3"), "on timeline 2", ErrRefused},
		{"another UUID", []Member{log(1), with(log(2), func(m *Member) { m.UUID = "08" })}, askOf("m3"), "with UUID 08", ErrRefused},
		{"old facts", []Member{log(1)}, late, "collect and plan again", ErrStale},
		{"another plan is staged", []Member{with(log(1), func(m *Member) { m.Staged = "12ab" })}, askOf("m2", "m3"), "plan 12ab is staged", ErrStaged},
		{"the archive reaches further", []Member{log(1)}, withArchive(askOf("m2", "m3"), archiveAt{tip: Mark{101, 3}}), "restore from the archive", ErrRefused},
		{"the archive has another entry amid the log", []Member{survivor(1, three, 90, Mark{120, 3})}, withArchive(askOf("m2", "m3"), archiveAt{tip: Mark{100, 4}, sync: true}), "entry 100 of term 4", ErrRefused},
		{"the archive has another last entry", []Member{log(1)}, withArchive(askOf("m2", "m3"), archiveAt{tip: Mark{100, 4}, sync: true}), "entry 100 of term 4", ErrRefused},
		{"the archive disagrees", []Member{log(1)}, withArchive(askOf("m2", "m3"), archiveAt{tip: Mark{97, 3}, digest: &ident.Digest{1}}), "the archive is right", ErrRefused},
		{"the archive disagrees before elections that it does not hold", []Member{with(log(1), func(m *Member) { m.State.Applied.Index, m.State.Recorded.Index = 89, 87 })},
			withArchive(askOf("m2", "m3"), archiveAt{tip: Mark{87, 3}, digest: &ident.Digest{1}, at: 87}), "at entry 87: the archive is right", ErrRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := NewPlan(&Facts{Members: c.members}, c.ask)
			if !errors.Is(err, c.is) || !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestAPlanKeepsWhatItsLogHolds(t *testing.T) {
	p := Plan{Keep: Mark{100, 5}, Terms: []Mark{{91, 4}, {96, 5}}}
	for at, want := range map[Mark]bool{
		{100, 5}: true, {99, 5}: true, {95, 4}: true,
		{90, 3}:  true, // The log begins after it: it was committed.
		{101, 5}: false, {100, 6}: false, {97, 6}: false, {95, 6}: false,
	} {
		if got := p.keeps(at); got != want {
			t.Errorf("entry %d of term %d is kept: %t", at.Index, at.Term, got)
		}
	}
	apart := Plan{Keep: Mark{100, 5}} // A state whose log can not be used.
	if !apart.keeps(Mark{99, 4}) || apart.keeps(Mark{100, 6}) || apart.keeps(Mark{101, 5}) {
		t.Error("a state without a log")
	}
}

func TestTheIDOfAPlanNamesWhatItDoesAndCosts(t *testing.T) {
	make := func(nonce string, later time.Duration, last ident.Index, targets ...snapshot.Target) string {
		m := survivor(1, voters(1, 2, 3), 90, Mark{last, 3})
		m.Collected = m.Collected.Add(later)
		ask := askOf("m2", "m3")
		ask.Nonce, ask.Now, ask.Members = nonce, ask.Now.Add(later), targets
		p, err := NewPlan(&Facts{Members: []Member{m}}, ask)
		if err != nil {
			t.Fatal(err)
		}
		return p.ID
	}
	first := make(testNonce, 0, 100)
	if again := make("ff", time.Minute, 100); again != first {
		t.Errorf("planned again it is %s, was %s: nobody could accept it", again, first)
	}
	for what, id := range map[string]string{
		"another log":     make(testNonce, 0, 101),
		"another cluster": make(testNonce, 0, 100, snapshot.Target{Name: "x", PeerURLs: []string{"http://x:1"}, DataDir: "/x"}),
	} {
		if id == first {
			t.Errorf("%s has the same ID", what)
		}
	}
}

func TestAPlanReadsLikeThis(t *testing.T) {
	p, err := NewPlan(&Facts{Members: []Member{survivor(1, voters(1, 2, 3), 97, Mark{100, 3})}}, askOf("m2", "m3"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.Text()
	if err != nil {
		t.Fatal(err)
	}
	golden.File(t, "testdata/plan.md", text)
}
