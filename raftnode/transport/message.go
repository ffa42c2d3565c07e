package transport

// A raftpb.Message:
//
//	0       2
//	+-------+------+----+------+------+---------+-------+--------+------+------------+---------+---------+----------+
//	| flags | type | to | from | term | logTerm | index | commit | vote | rejectHint | context | entries | snapshot |
//	+-------+------+----+------+------+---------+-------+--------+------+------------+---------+---------+----------+
//
// Each part is there when its flag is: raftpb tells "zero" from "absent", and
// so does this. The encoding is our own because raftpb of v3.7 goes through
// reflection, which costs more than the rest of the path together.

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
)

const (
	hasType = 1 << iota
	hasTo
	hasFrom
	hasTerm
	hasLogTerm
	hasIndex
	hasCommit
	hasVote
	hasReject
	isReject
	hasRejectHint
	hasContext
	hasEntries
	hasSnapshot
	messageFlags = 1<<iota - 1
)

// Header byte of an entry. "next" is one after the index of the entry before,
// "same" is its term: nearly all entries of a message are both.
const (
	entryTypeMask  = 3 // 3 means absent.
	entryNoType    = 3
	entryHasTerm   = 1 << 2
	entrySameTerm  = 1 << 3
	entryHasIndex  = 1 << 4
	entryNextIndex = 1 << 5
	entryHasData   = 1 << 6
	entryFlags     = 1<<7 - 1
)

const (
	snapHasData = 1 << iota
	snapHasMeta
	snapHasIndex
	snapHasTerm
	snapHasConf
	snapHasAuto
	snapAuto
	snapFlags = 1<<iota - 1
)

// messageSize is an upper bound of what appendMessage adds.
func messageSize(m *raftpb.Message) int {
	n := 128 + len(m.Context)
	for _, e := range m.Entries {
		n += 32 + len(e.Data)
	}
	if s := m.Snapshot; s != nil {
		n += 64 + len(s.Data)
		if c := s.GetMetadata().GetConfState(); c != nil {
			n += 8 * (len(c.Voters) + len(c.Learners) + len(c.VotersOutgoing) + len(c.LearnersNext))
		}
	}
	return n
}

func messageFlagsOf(m *raftpb.Message) uint16 {
	var flags uint16
	set := func(has bool, flag uint16) {
		if has {
			flags |= flag
		}
	}
	set(m.Type != nil, hasType)
	set(m.To != nil, hasTo)
	set(m.From != nil, hasFrom)
	set(m.Term != nil, hasTerm)
	set(m.LogTerm != nil, hasLogTerm)
	set(m.Index != nil, hasIndex)
	set(m.Commit != nil, hasCommit)
	set(m.Vote != nil, hasVote)
	set(m.Reject != nil, hasReject)
	set(m.GetReject(), isReject)
	set(m.RejectHint != nil, hasRejectHint)
	set(m.Context != nil, hasContext)
	set(len(m.Entries) > 0, hasEntries)
	set(m.Snapshot != nil, hasSnapshot)
	return flags
}

// appendMessage encodes m. Responses never leave a member and are left out.
func appendMessage(b []byte, m *raftpb.Message) []byte {
	b = binary.LittleEndian.AppendUint16(b, messageFlagsOf(m))
	if m.Type != nil {
		b = append(b, byte(*m.Type))
	}
	if m.To != nil {
		b = appendUint64(b, *m.To)
	}
	if m.From != nil {
		b = appendUint64(b, *m.From)
	}
	for _, v := range [...]*uint64{m.Term, m.LogTerm, m.Index, m.Commit} {
		if v != nil {
			b = binary.AppendUvarint(b, *v)
		}
	}
	if m.Vote != nil {
		b = appendUint64(b, *m.Vote)
	}
	if m.RejectHint != nil {
		b = binary.AppendUvarint(b, *m.RejectHint)
	}
	if m.Context != nil {
		b = appendBytes(b, m.Context)
	}
	if len(m.Entries) > 0 {
		b = appendEntries(b, m.Entries)
	}
	if m.Snapshot != nil {
		b = appendSnapshot(b, m.Snapshot)
	}
	return b
}

func appendEntries(b []byte, entries []*raftpb.Entry) []byte {
	b = binary.AppendUvarint(b, uint64(len(entries)))
	var term, index uint64
	for _, e := range entries {
		at := len(b)
		b = append(b, entryNoType)
		if e.Type != nil {
			b[at] = byte(*e.Type) & entryTypeMask
		}
		if e.Term != nil {
			b[at] |= entryHasTerm
			if *e.Term == term {
				b[at] |= entrySameTerm
			} else {
				term = *e.Term
				b = binary.AppendUvarint(b, term)
			}
		}
		if e.Index != nil {
			b[at] |= entryHasIndex
			if *e.Index == index+1 {
				b[at] |= entryNextIndex
			} else {
				b = binary.AppendUvarint(b, *e.Index)
			}
			index = *e.Index
		}
		if e.Data != nil {
			b[at] |= entryHasData
			b = appendBytes(b, e.Data)
		}
	}
	return b
}

func appendSnapshot(b []byte, s *raftpb.Snapshot) []byte {
	at := len(b)
	b = append(b, 0)
	if s.Data != nil {
		b[at] |= snapHasData
		b = appendBytes(b, s.Data)
	}
	meta := s.Metadata
	if meta == nil {
		return b
	}
	b[at] |= snapHasMeta
	if meta.Index != nil {
		b[at] |= snapHasIndex
		b = binary.AppendUvarint(b, *meta.Index)
	}
	if meta.Term != nil {
		b[at] |= snapHasTerm
		b = binary.AppendUvarint(b, *meta.Term)
	}
	conf := meta.ConfState
	if conf == nil {
		return b
	}
	b[at] |= snapHasConf
	if conf.AutoLeave != nil {
		b[at] |= snapHasAuto
		if *conf.AutoLeave {
			b[at] |= snapAuto
		}
	}
	for _, list := range [...][]uint64{conf.Voters, conf.Learners, conf.VotersOutgoing, conf.LearnersNext} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, id := range list {
			b = appendUint64(b, id)
		}
	}
	return b
}

// messageBox holds a message and what its pointers point to, so that decoding
// one costs one allocation.
type messageBox struct {
	message                                            raftpb.Message
	kind                                               raftpb.MessageType
	to, from, term, logTerm, index, commit, vote, hint uint64
	reject                                             bool
}

// decodeMessage reads a message that fills body. Entry data and context alias body.
func decodeMessage(body []byte) (*raftpb.Message, error) {
	d := &decoder{rest: body}
	flags := uint16(d.byte()) | uint16(d.byte())<<8
	if flags&^messageFlags != 0 || flags&isReject != 0 && flags&hasReject == 0 {
		return nil, fmt.Errorf("raft message with flags %04x: %w", flags, ErrDamaged)
	}
	box := &messageBox{}
	m := &box.message
	if flags&hasType != 0 {
		box.kind = raftpb.MessageType(d.byte())
		m.Type = &box.kind
	}
	fixed := func(flag uint16, v *uint64) *uint64 {
		if flags&flag == 0 {
			return nil
		}
		*v = d.uint64()
		return v
	}
	varint := func(flag uint16, v *uint64) *uint64 {
		if flags&flag == 0 {
			return nil
		}
		*v = d.uvarint()
		return v
	}
	m.To = fixed(hasTo, &box.to)
	m.From = fixed(hasFrom, &box.from)
	m.Term = varint(hasTerm, &box.term)
	m.LogTerm = varint(hasLogTerm, &box.logTerm)
	m.Index = varint(hasIndex, &box.index)
	m.Commit = varint(hasCommit, &box.commit)
	m.Vote = fixed(hasVote, &box.vote)
	m.RejectHint = varint(hasRejectHint, &box.hint)
	if flags&hasReject != 0 {
		box.reject = flags&isReject != 0
		m.Reject = &box.reject
	}
	if flags&hasContext != 0 {
		m.Context = d.bytes()
	}
	if flags&hasEntries != 0 {
		m.Entries = decodeEntries(d)
	}
	if flags&hasSnapshot != 0 {
		m.Snapshot = decodeSnapshot(d)
	}
	if !travels(m.GetType()) {
		return nil, fmt.Errorf("raft message of type %d from a peer: %w", m.GetType(), ErrDamaged)
	}
	return m, d.end("raft message")
}

// travels reports whether messages of this kind go between members. The others
// are between a member and its own storage or clock, and would be obeyed.
func travels(t raftpb.MessageType) bool {
	switch t {
	case raftpb.MessageType_MsgApp, raftpb.MessageType_MsgAppResp,
		raftpb.MessageType_MsgVote, raftpb.MessageType_MsgVoteResp,
		raftpb.MessageType_MsgPreVote, raftpb.MessageType_MsgPreVoteResp,
		raftpb.MessageType_MsgHeartbeat, raftpb.MessageType_MsgHeartbeatResp,
		raftpb.MessageType_MsgSnap, raftpb.MessageType_MsgTimeoutNow, raftpb.MessageType_MsgTransferLeader,
		raftpb.MessageType_MsgReadIndex, raftpb.MessageType_MsgReadIndexResp, raftpb.MessageType_MsgProp:
		return true
	}
	return false
}

type entryBox struct {
	entry       raftpb.Entry
	kind        raftpb.EntryType
	term, index uint64
}

func decodeEntries(d *decoder) []*raftpb.Entry {
	n := d.count(1)
	if n == 0 {
		d.failed = true // An empty list has no flag.
		return nil
	}
	boxes, entries := make([]entryBox, n), make([]*raftpb.Entry, n)
	var term, index uint64
	for i := range boxes {
		box := &boxes[i]
		entries[i] = &box.entry
		flags := d.byte()
		if !entryFlagsFit(flags) {
			d.failed = true
		}
		if t := flags & entryTypeMask; t != entryNoType {
			box.kind = raftpb.EntryType(t)
			box.entry.Type = &box.kind
		}
		if flags&entryHasTerm != 0 {
			if flags&entrySameTerm == 0 {
				d.changed(&term, term)
			}
			box.term = term
			box.entry.Term = &box.term
		}
		if flags&entryHasIndex != 0 {
			if flags&entryNextIndex == 0 {
				d.changed(&index, index+1)
			} else {
				index++
			}
			box.index = index
			box.entry.Index = &box.index
		}
		if flags&entryHasData != 0 {
			box.entry.Data = d.bytes()
		}
		if d.failed {
			return nil
		}
	}
	return entries
}

func entryFlagsFit(flags byte) bool {
	return flags&^entryFlags == 0 &&
		(flags&entrySameTerm == 0 || flags&entryHasTerm != 0) &&
		(flags&entryNextIndex == 0 || flags&entryHasIndex != 0)
}

// changed reads a value that must differ from the one with a shorter form.
func (d *decoder) changed(v *uint64, short uint64) {
	*v = d.uvarint()
	if *v == short {
		d.failed = true
	}
}

func decodeSnapshot(d *decoder) *raftpb.Snapshot {
	s := &raftpb.Snapshot{}
	flags := d.byte()
	if !snapFlagsFit(flags) {
		d.failed = true
		return nil
	}
	if flags&snapHasData != 0 {
		s.Data = d.bytes()
	}
	if flags&snapHasMeta == 0 {
		return s
	}
	s.Metadata = &raftpb.SnapshotMetadata{}
	if flags&snapHasIndex != 0 {
		s.Metadata.Index = new(d.uvarint())
	}
	if flags&snapHasTerm != 0 {
		s.Metadata.Term = new(d.uvarint())
	}
	if flags&snapHasConf == 0 {
		return s
	}
	conf := &raftpb.ConfState{}
	s.Metadata.ConfState = conf
	if flags&snapHasAuto != 0 {
		conf.AutoLeave = new(flags&snapAuto != 0)
	}
	for _, list := range [...]*[]uint64{&conf.Voters, &conf.Learners, &conf.VotersOutgoing, &conf.LearnersNext} {
		n := d.count(8)
		for range n {
			*list = append(*list, d.uint64())
		}
	}
	return s
}

func snapFlagsFit(flags byte) bool {
	needs := func(flag, other byte) bool { return flags&flag == 0 || flags&other != 0 }
	return flags&^byte(snapFlags) == 0 && needs(snapHasIndex|snapHasTerm|snapHasConf, snapHasMeta) &&
		needs(snapHasAuto, snapHasConf) && needs(snapAuto, snapHasAuto)
}
