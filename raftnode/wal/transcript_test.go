package wal

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

// transcriber runs the commands of a script on one log.
type transcriber struct {
	fs  *vfstest.Mem
	cfg Config
	log *Log
}

func (s *transcriber) run(t *testing.T, c golden.Command) string {
	t.Helper()
	err := s.do(t, c)
	out := s.fs.Transcript()
	if err != nil {
		out += "error: " + err.Error() + "\n"
	}
	return out
}

func (s *transcriber) do(t *testing.T, c golden.Command) error {
	num := func(key string) int {
		n := 0
		if c.Has(key) {
			_, err := fmt.Sscan(c.Arg(key), &n)
			must(t, err)
		}
		return n
	}
	start := func() Mark {
		var m Mark
		_, err := fmt.Sscanf(c.Arg("start"), "%d@%d", &m.Index, &m.Term)
		must(t, err)
		return m
	}
	var err error
	switch c.Name {
	case "create":
		s.log, err = Create(s.cfg, start())
	case "open":
		var r *Recovered
		if s.log, r, err = Open(s.cfg); err == nil && r.Cut != nil {
			t.Errorf("line %d: cut %+v", c.Line, *r.Cut)
		}
	case "append":
		var hs *HardState
		if c.Has("vote") {
			hs = &HardState{Term: ident.Term(num("term")), Vote: ident.MemberID(num("vote"))}
		}
		err = s.log.Append(makeEntries(ident.Index(num("first")), ident.Term(num("term")), num("count"), num("size")), hs)
	case "sync":
		if c.Has("fails") {
			s.fs.Inject(func(op vfstest.Op) error {
				if op.Kind == vfstest.OpSync && strings.HasSuffix(op.Name, segmentSuffix) {
					return syscall.EIO
				}
				return nil
			})
		}
		err = s.log.Sync()
		s.fs.Inject(nil)
	case "prepare":
		err = s.log.Prepare()
	case "compact":
		err = s.log.Compact(ident.Index(num("index")))
	case "reset":
		err = s.log.Reset(start())
	case "close":
		err = s.log.Close()
	case "kill":
		err = s.log.closeFiles()
	default:
		t.Fatalf("line %d: unknown command %q", c.Line, c.Name)
	}
	return err
}

func TestFilesAreSyncedInThisOrder(t *testing.T) {
	fs := newMem(t)
	s := &transcriber{fs: fs, cfg: testConfig(fs)}
	fs.Record()
	golden.Script(t, "testdata/sync-order.txt", func(c golden.Command) string { return s.run(t, c) })
}
