package wal

import (
	"fmt"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Info is one thing found in a log: a segment, a record in it, or how the log
// ends.
type Info struct {
	File   string
	Offset int64
	Bytes  int64
	Kind   string
	Synced int64  // Below this offset all was durable when the record was encoded.
	Mark   Mark   // Of an entry; the new start; the last entry before a segment.
	Detail string // The rest, for people. No contents of entries.
}

// Record tells whether it is one; else it is the head of a segment, how one ends, or the
// mark of a failure.
func (i Info) Record() bool { return i.Offset > 0 && i.Bytes > 0 && i.Kind != "torn tail" }

// Verify reads a log from the oldest record to the end, calling fn for each
// thing found, and checks all that Open checks. It changes nothing. What fn
// returns ends it.
func Verify(fsys vfs.FS, dir string, fn func(Info) error) error {
	p, err := makePlan(Config{FS: fsys, Dir: dir, Logger: hclog.NewNullLogger()}, fn)
	if err != nil {
		return err
	}
	if p.failed {
		if err := fn(Info{File: p.cfg.path(failedName), Kind: "failed", Detail: "a write or sync failed; the next start writes the end of the log again"}); err != nil {
			return err
		}
	}
	return p.close()
}

func (hs HardState) String() string {
	return fmt.Sprintf("term %d vote %s commit %d", hs.Term, hs.Vote, hs.Commit)
}

func (g begin) String() string {
	what := fmt.Sprintf("after segment %x to %d", g.prevSequence, g.prevEnd)
	if g.reset {
		what = "reset"
	}
	return fmt.Sprintf("%s; start %s last %s %s notes %d", what, g.state.start, g.state.last, g.state.hs, len(g.state.notes))
}
