package wal

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

// runRetrying is run, with a second try for what may be tried again.
func (w workload) runRetrying(cfg Config, m *model) error {
	if err := m.create(cfg, w.start); err != nil {
		if err := m.create(cfg, w.start); err != nil {
			return fmt.Errorf("create again: %w", err)
		}
	}
	for _, s := range w.steps {
		err := s(m, cfg)
		if errors.Is(err, ErrNoSegment) {
			err = s(m, cfg)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// restart is a process that died of err and starts again on the same files,
// the cache of the system included; then the power goes.
func restart(fs *vfstest.Mem, m *model, cause error, crashAgain bool) error {
	if m.log != nil {
		if errors.Is(m.log.usable(), ErrFailed) {
			for what, err := range map[string]error{
				"append": m.log.Append(makeEntries(m.log.Last().Index+1, 99, 1, 1), nil),
				"sync":   m.log.Sync(), "note": m.log.Note(Note{Kind: 1}), "prepare": m.log.Prepare(),
				"compact": m.log.Compact(m.log.Last().Index), "reset": m.log.Reset(Mark{1 << 40, 99}),
			} {
				if !errors.Is(err, ErrFailed) {
					return fmt.Errorf("%s after a failure: %v", what, err)
				}
			}
		}
		if err := m.log.closeFiles(); err != nil && !strings.Contains(err.Error(), "closed") {
			return err
		}
	}
	if crashAgain {
		return survives(fs, m, rand.New(rand.NewPCG(4, 4)), true)
	}
	v, r, err := openView(fs)
	if err != nil {
		return err
	}
	if err := m.allows(v); err != nil {
		return err
	}
	if r.Cut != nil && !errors.Is(cause, io.ErrShortWrite) {
		return fmt.Errorf("a cut without a torn write: %+v", *r.Cut)
	}
	if names, err := fs.List(testDir); err != nil || strings.Contains(strings.Join(names, " "), failedName) {
		return fmt.Errorf("the mark of the failure stays: %q, %v", names, err)
	}
	return continues(fs, v)
}

func TestEachFailingCallLosesNothingSynced(t *testing.T) {
	type fault struct {
		name  string
		err   error
		lasts bool // All later calls fail as well, until the process ends.
		short bool // Only writes fail.
	}
	faults := []fault{
		{"EIO", syscall.EIO, false, false}, {"EIO from then on", syscall.EIO, true, false}, {"ENOSPC", syscall.ENOSPC, false, false},
		{"short write", &vfstest.Short{Bytes: 77, Err: io.ErrShortWrite}, false, true},
	}
	crashEach := 3 // After one failure in so many the recovery is crashed at each boundary.
	if testing.Short() {
		crashEach = 11
	}
	for _, w := range workloads() {
		for _, f := range faults {
			t.Run(w.name+"/"+f.name, func(t *testing.T) {
				for n := 0; ; n += quick.Stride() {
					fs := newMem(t)
					from := fs.Ops() + n
					hit := false
					fs.Inject(func(op vfstest.Op) error {
						if op.N < from || op.N > from && !f.lasts {
							return nil
						}
						hit = true
						if f.short && op.Kind != vfstest.OpWrite {
							return nil
						}
						return f.err
					})
					m := &model{}
					err := w.runRetrying(testConfig(fs), m)
					fs.Inject(nil)
					if m.created {
						crashAgain := f.name == "EIO" && n%crashEach == 0
						if err := restart(fs, m, err, crashAgain); err != nil {
							t.Fatalf("call %d: %v", n, err)
						}
					} else if !hit {
						t.Fatal(err)
					}
					if !hit {
						must(t, err)
						return
					}
				}
			})
		}
	}
}

func TestAFullDiskIsRefusedAndForgottenOnceThereIsSpace(t *testing.T) {
	fs := newMem(t)
	m := &model{}
	must(t, m.create(testConfig(fs), Mark{}))
	must(t, m.append(makeEntries(1, 1, 3, 900), nil))
	must(t, m.sync())
	fs.Inject(func(op vfstest.Op) error {
		if op.Kind == vfstest.OpAllocate {
			return syscall.ENOSPC
		}
		return nil
	})
	for range 3 {
		err := m.append(makeEntries(4, 1, 3, 900), nil)
		if !errors.Is(err, ErrNoSegment) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("append on a full disk: %v", err)
		}
		if err := m.prepare(); !errors.Is(err, ErrNoSegment) {
			t.Fatalf("prepare on a full disk: %v", err)
		}
	}
	if got, err := m.log.Entries(1, 4, 1<<20); err != nil || len(got) != 3 {
		t.Fatalf("reads on a full disk: %d entries, %v", len(got), err)
	}
	fs.Inject(nil)
	must(t, m.append(makeEntries(4, 1, 3, 900), nil))
	must(t, m.sync())
	must(t, m.reopen(testConfig(fs)))
}

func TestAFailedSyncIsFinalAndMarked(t *testing.T) {
	fs := newMem(t)
	m := &model{}
	must(t, m.create(testConfig(fs), Mark{}))
	must(t, m.append(makeEntries(1, 1, 2, 100), nil))
	must(t, m.sync())
	must(t, m.append(makeEntries(3, 1, 2, 100), nil))
	fails := true
	fs.Inject(func(op vfstest.Op) error {
		if op.Kind == vfstest.OpSync && fails {
			fails = false
			return syscall.EIO
		}
		return nil
	})
	for range 2 { // The disk is well again the second time.
		if err := m.log.Sync(); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
			t.Fatalf("sync: %v", err)
		}
	}
	if _, err := m.log.Entries(3, 4, 1000); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("an entry that was never synced: %v", err)
	}
	fs.Inject(nil)
	names, err := fs.List(testDir)
	must(t, err)
	if !strings.Contains(strings.Join(names, " "), failedName) {
		t.Fatalf("no mark beside the log: %q", names)
	}
	must(t, restart(fs, m, ErrFailed, false))
}

// What the log says in bytes that may not be durable must not yet cost a file.
func TestNoSegmentGoesBeforeTheRecordThatGaveItUpIsDurable(t *testing.T) {
	for name, giveUp := range map[string]func(m *model) error{
		"compact": func(m *model) error { return m.compact(9) },
		"reset":   func(m *model) error { return m.reset(Mark{50, 2}) },
	} {
		t.Run(name, func(t *testing.T) {
			fs := newMem(t)
			m := &model{}
			must(t, m.create(testConfig(fs), Mark{}))
			must(t, m.append(makeEntries(1, 1, 10, 900), nil))
			must(t, m.sync())
			must(t, m.prepare())
			fs.Inject(func(op vfstest.Op) error {
				if op.Kind == vfstest.OpSync {
					return syscall.EIO
				}
				return nil
			})
			if err := giveUp(m); !errors.Is(err, ErrFailed) {
				t.Fatalf("got %v", err)
			}
			fs.Inject(nil)
			must(t, restart(fs, m, ErrFailed, true))
		})
	}
}
