package wal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// Payloads of records. Integers are fixed: there is one way to write each.
//
//	entry      0 index  8 term  16 type  17 data
//	hardstate  0 term   8 vote  16 commit
//	start      0 index  8 term
//	note       0 kind   1 data
//	end        nothing
//	begin      0 flags  1 zero  4 prevEnd  8 prevSequence  16 prevChain  20 count of notes
//	           24 start  40 last  56 hardstate  80 notes: kind, length (2 bytes), data
const (
	entryBytes     = 17 // Before the data.
	hardStateBytes = 24
	markBytes      = 16
	beginBytes     = 80 // Before the notes.
	noteHeadBytes  = 3

	flagReset = 1 // The log was emptied here: nothing before this segment counts.
)

var errPayload = errors.New("payload does not decode")

func appendEntry(b []byte, e *raftpb.Entry) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.GetIndex())
	b = binary.LittleEndian.AppendUint64(b, e.GetTerm())
	b = append(b, byte(e.GetType()))
	return append(b, e.GetData()...)
}

// decodedEntry holds an entry together with what its pointers point to, so
// that a call returning many entries allocates them at once.
type decodedEntry struct {
	entry       raftpb.Entry
	index, term uint64
	typ         raftpb.EntryType
}

// decode fills d; the entry's data aliases b.
func (d *decodedEntry) decode(b []byte) error {
	if len(b) < entryBytes {
		return fmt.Errorf("entry of %d bytes: %w", len(b), errPayload)
	}
	d.index = binary.LittleEndian.Uint64(b)
	d.term = binary.LittleEndian.Uint64(b[8:])
	d.typ = raftpb.EntryType(b[16])
	d.entry.Index, d.entry.Term, d.entry.Type = &d.index, &d.term, &d.typ
	if len(b) > entryBytes {
		d.entry.Data = b[entryBytes:len(b):len(b)]
	}
	return nil
}

// entryMark reads index and term alone.
func entryMark(b []byte) (Mark, error) {
	if len(b) < entryBytes {
		return Mark{}, fmt.Errorf("entry of %d bytes: %w", len(b), errPayload)
	}
	return decodeMark(b[:markBytes])
}

func appendMark(b []byte, m Mark) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Index))
	return binary.LittleEndian.AppendUint64(b, uint64(m.Term))
}

func decodeMark(b []byte) (Mark, error) {
	if len(b) != markBytes {
		return Mark{}, fmt.Errorf("mark of %d bytes: %w", len(b), errPayload)
	}
	return Mark{Index: ident.Index(binary.LittleEndian.Uint64(b)), Term: ident.Term(binary.LittleEndian.Uint64(b[8:]))}, nil
}

func appendHardState(b []byte, hs HardState) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(hs.Term))
	b = binary.LittleEndian.AppendUint64(b, uint64(hs.Vote))
	return binary.LittleEndian.AppendUint64(b, uint64(hs.Commit))
}

func decodeHardState(b []byte) (HardState, error) {
	if len(b) != hardStateBytes {
		return HardState{}, fmt.Errorf("hard state of %d bytes: %w", len(b), errPayload)
	}
	return HardState{
		Term:   ident.Term(binary.LittleEndian.Uint64(b)),
		Vote:   ident.MemberID(binary.LittleEndian.Uint64(b[8:])),
		Commit: ident.Index(binary.LittleEndian.Uint64(b[16:])),
	}, nil
}

// state is what a log has established besides its entries.
type state struct {
	start Mark
	last  Mark
	hs    HardState
	notes []Note // By kind.
}

// begin is the first record of a segment. It repeats the state, so that the
// segments before it may go, and says where the one before it ended, so that
// none can be missing unnoticed.
type begin struct {
	reset        bool
	prevSequence uint64 // 0 for the first segment of a log.
	prevEnd      uint32
	prevChain    uint32
	state        state
}

func appendBegin(b []byte, g begin) []byte {
	var flags byte
	if g.reset {
		flags = flagReset
	}
	b = append(b, flags, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, g.prevEnd)
	b = binary.LittleEndian.AppendUint64(b, g.prevSequence)
	b = binary.LittleEndian.AppendUint32(b, g.prevChain)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(g.state.notes)))
	b = appendMark(b, g.state.start)
	b = appendMark(b, g.state.last)
	b = appendHardState(b, g.state.hs)
	for _, n := range g.state.notes {
		b = append(b, n.Kind)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(n.Data)))
		b = append(b, n.Data...)
	}
	return b
}

func decodeBegin(b []byte) (begin, error) {
	if len(b) < beginBytes || b[0]&^flagReset|b[1]|b[2]|b[3] != 0 {
		return begin{}, fmt.Errorf("begin of %d bytes: %w", len(b), errPayload)
	}
	g := begin{
		reset:        b[0]&flagReset != 0,
		prevEnd:      binary.LittleEndian.Uint32(b[4:]),
		prevSequence: binary.LittleEndian.Uint64(b[8:]),
		prevChain:    binary.LittleEndian.Uint32(b[16:]),
	}
	count := binary.LittleEndian.Uint32(b[20:])
	g.state.start, _ = decodeMark(b[24:40])
	g.state.last, _ = decodeMark(b[40:56])
	g.state.hs, _ = decodeHardState(b[56:beginBytes])
	b = b[beginBytes:]
	for ; count > 0; count-- {
		if len(b) < noteHeadBytes {
			return begin{}, fmt.Errorf("begin ends within its notes: %w", errPayload)
		}
		kind, length := b[0], int(binary.LittleEndian.Uint16(b[1:]))
		if b = b[noteHeadBytes:]; len(b) < length {
			return begin{}, fmt.Errorf("begin ends within a note: %w", errPayload)
		}
		g.state.notes = append(g.state.notes, Note{Kind: kind, Data: append([]byte(nil), b[:length]...)})
		b = b[length:]
	}
	if len(b) > 0 {
		return begin{}, fmt.Errorf("begin has %d bytes too many: %w", len(b), errPayload)
	}
	return g, nil
}

// contradictory tells that no log was ever in this state, whatever the checksum says.
func (g begin) contradictory() bool {
	start, last := g.state.start, g.state.last
	return start.Index > last.Index || start.Term > last.Term || start.Index == last.Index && start != last ||
		g.state.hs.Commit > last.Index || g.reset && start != last
}

func appendNote(b []byte, n Note) []byte { return append(append(b, n.Kind), n.Data...) }

func decodeNote(b []byte) (Note, error) {
	if len(b) < 1 {
		return Note{}, fmt.Errorf("note without a kind: %w", errPayload)
	}
	return Note{Kind: b[0], Data: append([]byte(nil), b[1:]...)}, nil
}

// setNote replaces the note of n's kind in notes, which are sorted by kind, or
// removes it when n has no data. The slice is a new one.
func setNote(notes []Note, n Note) []Note {
	out := make([]Note, 0, len(notes)+1)
	i := 0
	for ; i < len(notes) && notes[i].Kind < n.Kind; i++ {
		out = append(out, notes[i])
	}
	if len(n.Data) > 0 {
		out = append(out, n)
	}
	if i < len(notes) && notes[i].Kind == n.Kind {
		i++
	}
	return append(out, notes[i:]...)
}

// A Cut is kept as a note: 0 segment, 8 offset, 16 bytes, 24 last, 40 seen,
// 48 name of the copy.
const cutBytes = 48

func encodeCut(c *Cut) []byte {
	b := binary.LittleEndian.AppendUint64(nil, c.Segment)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Offset))
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Bytes))
	b = appendMark(b, c.Last)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Seen))
	return append(b, c.Copy...)
}

func decodeCut(b []byte) (*Cut, error) {
	if len(b) < cutBytes {
		return nil, fmt.Errorf("cut of %d bytes: %w", len(b), errPayload)
	}
	last, _ := decodeMark(b[24:40])
	return &Cut{
		Segment: binary.LittleEndian.Uint64(b),
		Offset:  int64(binary.LittleEndian.Uint64(b[8:])),
		Bytes:   int64(binary.LittleEndian.Uint64(b[16:])),
		Last:    last,
		Seen:    ident.Index(binary.LittleEndian.Uint64(b[40:])),
		Copy:    string(b[cutBytes:]),
	}, nil
}
