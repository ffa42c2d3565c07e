package raftnode

import (
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/quorum"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/transport"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// survey is the way out for members whose logs were cut. One of them waits for
// a leader (rule 16); but a power failure of all members at once may tear the
// tail of every log, and then nobody is left to lead. So a member with a cut
// that hears of no leader asks all voters where their logs end. It ticks, and
// lets a candidate ask for its vote, only while the answers of one round, not
// older than an election timeout, say that
//
//	every voter answered, as of the newest configuration that any answer tells;
//	none of them knows a leader;
//	those without a cut are no quorum, so that it does not go without us;
//	the candidate's log is the longest of all, by last term, then by index.
//
// Why that is safe. An entry that was committed was in the logs of a quorum.
// Where syncs kept their promise a cut took nothing that counts, and this is an
// ordinary election. Where they did not, the entry is either in the log of some
// voter, or gone from all of them. A log that ends in a later term than an
// entry was committed in holds that entry, as does one of the same term that is
// not shorter, and a cut leaves a prefix, of which both remains true: the
// longest log of all voters holds whatever any of them holds. No other choice
// could keep more. It is the question to all that makes the difference: the
// longest of a mere quorum may lack what only the others kept.
//
// A vote may have been cut too, so that a term could be led a second time. That
// needs an entry of the first leader to do harm: had any voter one, the longest
// log would end in that term or a later one, and the new term is above it. The
// first leader itself does not lead any more, or it would have said so.
//
// A member that one answer still names and a newer configuration does not is
// asked, and not waited for. It was removed: it will never answer. An entry
// that was committed before the removal is in the log of whoever knows of the
// removal, and a quorum of any configuration one change apart has a member in
// common with the newer one.
//
// An answer that is outdated by the time of the vote does no harm to what was
// committed meanwhile: Raft's own rule holds besides, and those who took part
// in the commit have longer logs now. One member with a cut and another that is
// gone for good do wait for an operator: what only the lost one may have had is
// not ours to give up.
type survey struct {
	round   uint64
	age     int // Ticks since the round began.
	answers map[ident.MemberID]logEnd

	open    bool // What the last complete round said.
	longest wal.Mark
	fresh   int // Ticks for which that still counts.
	quiet   int // Ticks since a leader was heard.
	told    bool
}

// logEnd is a member's answer.
type logEnd struct {
	Cut    bool
	Led    bool // It knows a leader.
	Last   wal.Mark
	Known  ident.Index      // The entry up to which it knows the configurations.
	Voters []ident.MemberID // Behind that.
}

// Notice is a question for the end of a log, or its answer.
type Notice struct {
	Nonce  ident.Nonce // Of the boot of the one who asks.
	Round  uint64
	answer bool
	end    logEnd
}

// leaderless reports whether this member hears of no leader. Raft forgets a
// leader by ticks, which a member with a cut does not get.
func (c *Core) leaderless() bool {
	return c.leader == 0 || c.cut && c.leader != c.id && c.survey.quiet > 2*c.electionTicks
}

// tickSurvey counts, and asks again, twice an election timeout.
func (c *Core) tickSurvey() {
	s := &c.survey
	s.quiet++
	s.fresh = max(s.fresh-1, 0)
	if !c.cut || !c.leaderless() || !slices.Contains(c.voters(), c.id) {
		s.open, s.answers = false, nil
		return
	}
	if s.age++; s.answers != nil && s.age < c.electionTicks/2 {
		return
	}
	s.round++
	s.age, s.answers = 0, map[ident.MemberID]logEnd{}
	c.judge()
}

// voters of both halves of the configuration.
func (c *Core) voters() []ident.MemberID {
	all := append(members(c.conf.Voters), members(c.conf.VotersOutgoing)...)
	slices.Sort(all)
	return slices.Compact(all)
}

// judge asks who has not answered in this round, and when all have, decides.
func (c *Core) judge() {
	s := &c.survey
	if c.appends > 0 {
		return // Our own log is about to change.
	}
	own := c.logEnd()
	named, newest := slices.Clone(own.Voters), own
	for _, a := range s.answers { //tidy:ordered sorted below; of equal ones all say the same
		named = append(named, a.Voters...)
		if a.Known > newest.Known {
			newest = a
		}
	}
	slices.Sort(named)
	longest, led, complete := own.Last, false, true
	clean := map[uint64]bool{uint64(c.id): false}
	for _, id := range slices.Compact(named) {
		if id == c.id {
			continue
		}
		a, answered := s.answers[id]
		if !answered {
			complete = complete && !slices.Contains(newest.Voters, id)
			c.sendNotice(id, &Notice{Nonce: c.reads.nonce, Round: s.round})
			continue
		}
		clean[uint64(id)] = !a.Cut
		led = led || a.Led
		if shorter(longest, a.Last) {
			longest = a.Last
		}
	}
	if !complete {
		return
	}
	s.open = !led && c.quorums().VoteResult(clean) != quorum.VoteWon
	s.longest, s.fresh = longest, c.electionTicks-s.age
	if s.open && !s.told {
		s.told = true
		c.logger.Warn("the logs of so many members were cut that no others are a quorum; all voters answered, the longest log that is left may lead",
			"last-index", uint64(longest.Index), "last-term", uint64(longest.Term), "own-index", uint64(own.Last.Index), "own-term", uint64(own.Last.Term))
	}
}

func (c *Core) quorums() quorum.JointConfig {
	var j quorum.JointConfig
	for i, ids := range [][]uint64{c.conf.Voters, c.conf.VotersOutgoing} {
		if len(ids) > 0 {
			j[i] = quorum.MajorityConfig{}
		}
		for _, id := range ids {
			j[i][id] = struct{}{}
		}
	}
	return j
}

func shorter(a, b wal.Mark) bool {
	return a.Term < b.Term || a.Term == b.Term && a.Index < b.Index
}

// maySucceed reports whether a log that ends here may be a leader's although
// this member's was cut.
func (c *Core) maySucceed(last wal.Mark) bool {
	s := &c.survey
	return s.open && s.fresh > 0 && !shorter(last, s.longest)
}

// mayHelp reports whether this member may listen to a candidate, or become one
// at once. What was cut may have held a vote, or an entry that the candidate
// lacks (rule 16); and one with a wrong clock leaves it to others (rule 5).
func (c *Core) mayHelp(m *raftpb.Message) bool {
	if m.GetType() == raftpb.MsgTimeoutNow && c.withhold() {
		return false
	}
	return !c.cut || c.maySucceed(wal.Mark{Index: ident.Index(m.GetIndex()), Term: ident.Term(m.GetLogTerm())})
}

// heard notes that there is a leader.
func (c *Core) heard(m *raftpb.Message) {
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap:
		if ident.Term(m.GetTerm()) >= c.hard.Term {
			c.survey.quiet = 0
		}
	}
}

// mayTick reports whether time may pass for Raft here: whoever has the longest
// log has to campaign one day, and a leader that is gone has to be forgotten.
func (c *Core) mayTick() bool {
	return !c.cut || c.role == raft.StateLeader || c.maySucceed(c.log.last) ||
		c.survey.open && c.survey.fresh > 0 && c.leader != 0
}

func (c *Core) logEnd() logEnd {
	return logEnd{Cut: c.cut, Led: !c.leaderless(), Last: c.log.last, Known: max(c.applied, c.restored, c.resolvedAt), Voters: c.voters()}
}

// notice takes a question or an answer.
func (c *Core) notice(from ident.MemberID, n *Notice) {
	s := &c.survey
	if !n.answer {
		if c.appends == 0 { // What is not durable yet is no answer. They ask again.
			c.sendNotice(from, &Notice{Nonce: n.Nonce, Round: n.Round, answer: true, end: c.logEnd()})
		}
		return
	}
	if n.Nonce != c.reads.nonce || n.Round != s.round || s.answers == nil {
		return // To a question of an earlier round or boot.
	}
	if _, again := s.answers[from]; again {
		return
	}
	s.answers[from] = n.end
	c.judge()
}

func (c *Core) sendNotice(to ident.MemberID, n *Notice) {
	c.effects = append(c.effects, Effect{Kind: EffectSend, Peer: to, Frame: transport.Frame{Kind: transport.KindNotice, Data: n.encode()}})
}

// A notice on the wire, drawn in docs/format/forward.md:
//
//	question: | 1 | nonce (8) | round (8) |
//	answer:   | 3 | nonce (8) | round (8) | flags | last index (8) | last term (8) | known (8) | voters (8 each) |
const (
	noticeQuestion    = 1
	noticeAnswer      = 3 // 2 did not say as of when it knows the voters.
	noticeHeaderBytes = 1 + 8 + 8
	noticeEndBytes    = 1 + 8 + 8 + 8
	noticeVotersMax   = 256

	noticeCut = 1 << 0
	noticeLed = 1 << 1
)

func (n *Notice) encode() []byte {
	order := binary.LittleEndian
	b := order.AppendUint64(order.AppendUint64([]byte{noticeQuestion}, uint64(n.Nonce)), n.Round)
	if !n.answer {
		return b
	}
	b[0] = noticeAnswer
	var flags byte
	if n.end.Cut {
		flags |= noticeCut
	}
	if n.end.Led {
		flags |= noticeLed
	}
	b = append(b, flags)
	b = order.AppendUint64(b, uint64(n.end.Last.Index))
	b = order.AppendUint64(b, uint64(n.end.Last.Term))
	b = order.AppendUint64(b, uint64(n.end.Known))
	for _, id := range n.end.Voters {
		b = order.AppendUint64(b, uint64(id))
	}
	return b
}

// DecodeNotice reads a frame of KindNotice.
func DecodeNotice(data []byte) (*Notice, error) {
	if len(data) < noticeHeaderBytes || data[0] != noticeQuestion && data[0] != noticeAnswer {
		return nil, fmt.Errorf("notice of %d bytes: %w", len(data), ErrFrame)
	}
	order := binary.LittleEndian
	n := &Notice{Nonce: ident.Nonce(order.Uint64(data[1:])), Round: order.Uint64(data[9:]), answer: data[0] == noticeAnswer}
	rest := data[noticeHeaderBytes:]
	if !n.answer {
		if len(rest) > 0 {
			return nil, fmt.Errorf("question of %d bytes: %w", len(data), ErrFrame)
		}
		return n, nil
	}
	if len(rest) < noticeEndBytes || (len(rest)-noticeEndBytes)%8 != 0 || len(rest) > noticeEndBytes+8*noticeVotersMax || rest[0] > noticeCut|noticeLed {
		return nil, fmt.Errorf("end of a log in %d bytes: %w", len(data), ErrFrame)
	}
	n.end = logEnd{
		Cut: rest[0]&noticeCut != 0, Led: rest[0]&noticeLed != 0,
		Last:  wal.Mark{Index: ident.Index(order.Uint64(rest[1:])), Term: ident.Term(order.Uint64(rest[9:]))},
		Known: ident.Index(order.Uint64(rest[17:])),
	}
	for rest = rest[noticeEndBytes:]; len(rest) > 0; rest = rest[8:] {
		n.end.Voters = append(n.end.Voters, ident.MemberID(order.Uint64(rest)))
	}
	return n, nil
}
