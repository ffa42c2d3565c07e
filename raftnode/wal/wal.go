// Package wal is the Raft log on disk: entries, hard state and a few notes of
// the owner, in segment files of one size.
//
// One goroutine writes: Append, Note, Sync, Compact, Reset, ClearCut and Close.
// Any goroutine reads: Entries, Term, Start, Last, Stats. Another may call
// Prepare, which makes the next segment and retires old ones, so that the
// writer only ever writes into a file that is allocated and whose name is
// durable. If Prepare is behind, the writer does its work.
//
// Append encodes into one buffer; Sync writes it with one call and makes it
// durable with one fdatasync. Readers see what was synced and nothing else.
//
// Invariants:
//   - At most the newest segment has bytes that are not durable: the writer
//     syncs a segment before it begins the next.
//   - A sequence number is used once in the life of a log, so a record left in a
//     recycled file never passes for one of its new life.
//   - A stored commit index is never above what was durable when it was encoded:
//     every record above a damaged place that was once synced says so.
//   - Nothing is overwritten but the terminator. An entry that conflicts with the
//     log is appended like any other; the later record with the lower index counts.
//   - After a failed write or sync the Log takes no more writes, and a file FAILED
//     says so to the next Open (I-10).
//
// What a crash leaves, by the step it interrupts:
//
//	Append, Sync   Synced records, and perhaps some of the others. Open keeps the
//	               unbroken ones, writes and syncs them again since a page that
//	               failed may look clean, and reports a Cut if it saw any trace of
//	               more. It goes on in a new segment then, never over the traces.
//	next segment   A file new-*, which Open removes; or a segment without a first
//	               record, which Open makes a spare. The one before is durable.
//	Compact        The start mark is durable before a segment is given up. Files
//	               that should be gone may be back: nothing refers to them, and
//	               Open gives them up again.
//	Reset          The first record of the new segment, once synced, says that
//	               nothing before it counts. Before that the old log stands.
//	Open           Everything above, again: it overwrites nothing but equal bytes,
//	               copies what it cuts first, and FAILED goes last.
//
// Damage is told from a torn tail by marks: each record says how far its
// segment was durable when it was encoded. A broken place below any mark
// found in or after it is refused with a DamageError; so is one in any segment but the
// newest. What lies above may be cut. A log closed in order ends in a mark; of one
// that was killed the file SYNCED tells the same.
//
// The bytes are documented in docs/format/wal.md.
package wal

import (
	"fmt"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Mark names one entry.
type Mark struct {
	Index ident.Index
	Term  ident.Term
}

func (m Mark) String() string { return fmt.Sprintf("%d@%d", m.Index, m.Term) }

// HardState is what Raft must not forget.
type HardState struct {
	Term   ident.Term
	Vote   ident.MemberID
	Commit ident.Index // Never above what was synced when it was stored, so it may be older than the one given to Append.
}

// Note is a remark of the owner. The newest of each kind survives everything
// but the loss of the log; one with empty Data removes its kind.
type Note struct {
	Kind uint8
	Data []byte
}

// NoteCut is the kind the log keeps for itself: a Cut that nobody has cleared.
const NoteCut uint8 = 0

// Cut says what a torn tail lost. It is reported by each Open until ClearCut:
// the member may have acknowledged what was in those bytes, so it must not
// vote before a leader has brought it past.
type Cut struct {
	Segment uint64
	Offset  int64
	Bytes   int64       // Between Offset and the last trace of a record.
	Last    Mark        // The last entry that was kept.
	Seen    ident.Index // The highest index of an entry found whole in the cut bytes; 0 when none was.
	Copy    string      // The file, in the log's folder, that keeps the cut bytes.
}

// Recovered is what Open found.
type Recovered struct {
	HardState HardState
	Start     Mark   // The entry before the first.
	Last      Mark   // The last entry; Start when there is none.
	Notes     []Note // By kind, without NoteCut.
	Cut       *Cut   // nil normally.
	Bytes     int64  // Of the segments that it lies in.
	Failed    bool   // A write or sync failed, and nobody opened it since. Of OpenRead alone: Open mends that.
}

// Config says where the log lies.
type Config struct {
	FS           vfs.FS
	Dir          string // Must exist. Nothing else may be kept in it.
	SegmentBytes int64  // Size of a new segment; SegmentBytesDefault when zero. May change between boots.
	Logger       hclog.Logger
}

func (c *Config) validate() error {
	if c.SegmentBytes == 0 {
		c.SegmentBytes = SegmentBytesDefault
	}
	if c.SegmentBytes < SegmentBytesMin || c.SegmentBytes > SegmentBytesMax {
		return fmt.Errorf("segment of %d bytes, allowed are %d to %d", c.SegmentBytes, SegmentBytesMin, SegmentBytesMax)
	}
	c.SegmentBytes -= c.SegmentBytes % recordAlign
	return nil
}

// Stats is what the metrics show.
type Stats struct {
	Segments    int   // Holding records that may still be read.
	Retired     int   // Waiting for Prepare.
	Prepared    bool  // The next segment is ready.
	Bytes       int64 // Preallocated size of all segment files.
	Syncs       uint64
	SyncedBytes uint64
}
