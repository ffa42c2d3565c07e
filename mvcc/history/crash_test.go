package history

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

// workload is what an owner does with a history, with what it would know after
// a crash: the marks of the last two checkpoints, and what may be gone.
type workload struct {
	cfg      Config
	m        *maker
	log      *Log
	records  []*Record
	marks    [2]Mark // The one before, and the last one.
	needed   uint64  // First segment that must be there.
	appended int     // Records of the list that were appended, not only made.
}

func newWorkload(t testing.TB, seed uint64, fsys *vfstest.Mem) *workload {
	w := &workload{cfg: testConfig(fsys), m: newMaker(t, seed), needed: 1}
	for range 40 {
		w.records = append(w.records, w.m.record())
	}
	return w
}

// run goes on until the first error. What was learnt up to then stands in w.
func (w *workload) run() error {
	var err error
	if w.log, err = Create(w.cfg, Mark{}); err != nil {
		return err
	}
	w.marks = [2]Mark{w.log.End(), w.log.End()}
	for i, rec := range w.records {
		if err := w.log.Append(rec); err != nil {
			return err
		}
		w.appended++
		if err := w.step(i); err != nil {
			return err
		}
	}
	return nil
}

func (w *workload) step(i int) error {
	switch {
	case i%17 == 16:
		return w.index()
	case i%11 == 10:
		if _, err := w.log.Seal(); err != nil {
			return err
		}
		return w.sync()
	case i%7 == 6:
		return w.sync()
	case i%5 == 4:
		return w.log.Flush()
	case i == 31:
		// Nothing below the older checkpoint is needed any more.
		w.needed = w.marks[0].Segment
		_, err := w.log.Drop(w.needed)
		return err
	}
	return nil
}

func (w *workload) sync() error {
	mark, err := w.log.Sync()
	if err != nil {
		return err
	}
	w.marks = [2]Mark{w.marks[1], mark}
	return nil
}

func (w *workload) index() error {
	for _, info := range w.log.Segments() {
		if !info.Sealed {
			continue
		}
		table, err := w.log.RebuildIndex(info.ID)
		if err != nil {
			return err
		}
		if err := w.log.WriteIndex(info.ID, table); err != nil {
			return err
		}
	}
	return nil
}

// recover opens what a crash has left at a mark, checks all of it, goes on to
// the end of the workload and checks again. The error is that of opening.
func (w *workload) recover(t *testing.T, fsys *vfstest.Mem, mark Mark) error {
	t.Helper()
	cfg := w.cfg
	cfg.FS = fsys
	l, err := Open(cfg, mark)
	if err != nil {
		return err
	}
	defer l.Close()
	if l.End() != mark {
		t.Fatalf("end %v, mark %v", l.End(), mark)
	}
	list := l.Segments()
	if first := list[0].ID; first > w.needed && first > 1 {
		t.Fatalf("begins with segment %d, %d is needed", first, w.needed)
	}
	for _, info := range list[:len(list)-1] {
		if _, err := l.ReadIndex(info.ID); err != nil && !errors.Is(err, ErrNoIndex) {
			t.Fatal(err)
		}
	}
	for _, rec := range w.records {
		if rec.Index > mark.Index {
			mustAppend(t, l, copyRecord(rec))
		}
	}
	end := mustSync(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	at := 0
	for at < len(w.records) && w.records[at].Index < list[0].FirstIndex {
		at++
	}
	got, err := Verify(fsys, cfg.Dir, func(f Found) error {
		compareRecords(t, "recovered", f.Record, w.records[at], false)
		at++
		return nil
	})
	if err != nil || got != end || at != len(w.records) {
		t.Fatalf("verify: %v, ends %v, want %v, %d records of %d", err, got, end, at, len(w.records))
	}
	return nil
}

// complete computes what the records will say of themselves.
func (w *workload) complete(t *testing.T) {
	l := mustCreate(t, testConfig(newMem(t)))
	for _, rec := range w.records {
		mustAppend(t, l, rec)
	}
}

// TestEveryCrashLeavesWhatWasSynced takes an image of each kind before every
// operation on the file system, and recovers from each; and from a crash
// in the middle of that recovery as well.
func TestEveryCrashLeavesWhatWasSynced(t *testing.T) {
	const seed = 11
	expected := newWorkload(t, seed, newMem(t))
	expected.complete(t)

	mem := newMem(t)
	w := newWorkload(t, seed, mem)
	rng := rand.New(rand.NewPCG(seed, 5))
	images, nested := 0, 0
	mem.Inject(func(op vfstest.Op) error {
		if !op.Changes() || w.log == nil {
			return nil
		}
		for _, image := range vfstest.Images {
			crash := vfstest.Crash{Image: image, Keep: -1, Rand: rng}
			for _, mark := range w.marks {
				expected.needed = w.needed
				crashed := mem.Crash(crash)
				if rng.IntN(10) == 0 {
					nested++
					crashed = crashAgain(rng, crashed, w.cfg, mark)
				}
				images++
				if err := expected.recover(t, crashed, mark); err != nil {
					t.Fatalf("crash before %v, image %v, mark %v: %v", op, image, mark, err)
				}
			}
		}
		return nil
	})
	if err := w.run(); err != nil {
		t.Fatal(err)
	}
	defer w.log.Close()
	if images < 500 || nested < 30 {
		t.Errorf("only %d images, %d nested", images, nested)
	}
	t.Logf("%d images, %d nested", images, nested)
}

// crashAgain begins to recover and crashes before some operation.
func crashAgain(rng *rand.Rand, mem *vfstest.Mem, cfg Config, mark Mark) *vfstest.Mem {
	var crashed *vfstest.Mem
	stop := errors.New("power loss")
	left := rng.IntN(4)
	mem.Inject(func(op vfstest.Op) error {
		if crashed != nil {
			return stop
		}
		if op.Changes() {
			if left--; left < 0 {
				crashed = mem.Crash(vfstest.Crash{Image: vfstest.Random, Rand: rng})
				return stop
			}
		}
		return nil
	})
	cfg.FS = mem
	if l, err := Open(cfg, mark); err == nil {
		l.Close()
	}
	mem.Inject(nil)
	if crashed == nil {
		return mem
	}
	return crashed
}

// TestNoFailureLosesWhatWasSynced fails every single operation in every way,
// and goes on as an owner would: reading what is there, stopping, starting
// again after a power loss.
func TestNoFailureLosesWhatWasSynced(t *testing.T) {
	const seed = 12
	expected := newWorkload(t, seed, newMem(t))
	expected.complete(t)
	errs := []error{syscall.EIO, syscall.ENOSPC, &vfstest.Short{Bytes: 100, Err: syscall.EIO}}
	failed := 0
	for n, done := 0, false; !done; n++ {
		for _, failure := range errs {
			mem := newMem(t)
			w := newWorkload(t, seed, mem)
			at := mem.Ops() + n
			var short *vfstest.Short
			mem.Inject(func(op vfstest.Op) error {
				if op.N != at || errors.As(failure, &short) && op.Kind != vfstest.OpWrite {
					return nil
				}
				failed++
				return failure
			})
			err := w.run()
			done = mem.Ops() <= at
			mem.Inject(nil)
			if w.log == nil {
				continue // Nothing was promised yet.
			}
			w.checkReadable(t, n, failure)
			if err != nil {
				w.checkFailed(t, n, err)
			}
			w.log.Close()
			expected.needed = w.needed
			for _, mark := range w.marks {
				if err := expected.recover(t, mem.Crash(vfstest.Crash{Image: vfstest.Nothing}), mark); err != nil {
					t.Fatalf("operation %d failed with %v: %v", n, failure, err)
				}
			}
		}
	}
	t.Logf("%d failures", failed)
	if failed < 100 {
		t.Error("these are too few")
	}
}

// checkReadable checks that every value appended and not dropped can be read.
func (w *workload) checkReadable(t *testing.T, n int, failure error) {
	t.Helper()
	for _, rec := range w.records[:w.appended] {
		for _, g := range rec.Groups {
			for _, m := range g.Mutations {
				if m.Kind != KeyPut || m.Loc.Segment < w.needed {
					continue
				}
				if got, err := w.log.Value(m.Loc); err != nil || !bytes.Equal(got, m.Value) {
					t.Fatalf("operation %d failed with %v, then a value: %v", n, failure, err)
				}
			}
		}
	}
}

// checkFailed checks that a failed write or sync is final, invariant I-10.
func (w *workload) checkFailed(t *testing.T, n int, err error) {
	t.Helper()
	if !errors.Is(err, ErrFailed) {
		return
	}
	if _, err := w.log.Sync(); !errors.Is(err, ErrFailed) {
		t.Fatalf("operation %d failed, then sync: %v", n, err)
	}
	if err := w.log.Append(&Record{Index: 1 << 40}); !errors.Is(err, ErrFailed) {
		t.Fatalf("operation %d failed, then append: %v", n, err)
	}
}

// TestTheOrderOfSyncs shows what is written and synced, and in which order.
func TestTheOrderOfSyncs(t *testing.T) {
	mem := newMem(t)
	cfg := testConfig(mem)
	cfg.SegmentBytes = 256 << 10
	var l *Log
	var mark Mark
	next := ident.Index(1)
	do := map[string]func(c golden.Command) error{
		"create": func(golden.Command) (err error) {
			l, err = Create(cfg, Mark{})
			return err
		},
		"append": func(c golden.Command) error {
			var size, count int
			fmt.Sscan(c.Arg("bytes"), &size)
			fmt.Sscan(c.Arg("count"), &count)
			for range count {
				rev := ident.Revision(next)
				rec := &Record{Index: next, Groups: []Group{{Revision: rev, Mutations: []Mutation{put("k", 1, rev, int64(next), make([]byte, size))}}}}
				if err := l.Append(rec); err != nil {
					return err
				}
				next++
			}
			return nil
		},
		"flush": func(golden.Command) error { return l.Flush() },
		"sync": func(golden.Command) (err error) {
			mark, err = l.Sync()
			return err
		},
		"seal": func(golden.Command) error { _, err := l.Seal(); return err },
		"index": func(golden.Command) error {
			table, err := l.RebuildIndex(1)
			if err != nil {
				return err
			}
			return l.WriteIndex(1, table)
		},
		"drop": func(golden.Command) error { _, err := l.Drop(l.End().Segment); return err },
		"reopen": func(golden.Command) (err error) {
			if err := l.Close(); err != nil {
				return err
			}
			l, err = Open(cfg, mark)
			next = mark.Index + 1
			return err
		},
	}
	golden.Script(t, "testdata/syncs.txt", func(c golden.Command) string {
		mem.Record()
		if err := do[c.Name](c); err != nil {
			return err.Error()
		}
		return mem.Transcript()
	})
	l.Close()
}

func TestAFreshHistoryIsTiny(t *testing.T) {
	mem := newMem(t)
	l := mustCreate(t, Config{FS: mem, Dir: "gen/history", Logger: testConfig(mem).Logger})
	for i := range 20 {
		rev := ident.Revision(i + 1)
		mustAppend(t, l, &Record{Index: ident.Index(rev), Groups: []Group{{Revision: rev, Mutations: []Mutation{put("k", 1, rev, 1, make([]byte, 300))}}}})
	}
	mustSync(t, l)
	info, err := mem.Stat("gen/history/" + SegmentName(1))
	if err != nil || info.Size != l.Bytes() || info.Size > 20<<10 {
		t.Errorf("%d bytes on disk, %d written, %v", info.Size, l.Bytes(), err)
	}
}

func TestAFullDiskIsNotTheEnd(t *testing.T) {
	mem := newMem(t)
	cfg := testConfig(mem)
	cfg.SegmentBytes = 1 << 20
	l := mustCreate(t, cfg)
	mem.Inject(func(op vfstest.Op) error {
		if op.Kind == vfstest.OpAllocate {
			return syscall.ENOSPC
		}
		return nil
	})
	rec := func(i int) *Record {
		rev := ident.Revision(i)
		return &Record{Index: ident.Index(i), Groups: []Group{{Revision: rev, Mutations: []Mutation{put("k", 1, rev, 1, make([]byte, 1000))}}}}
	}
	n := 1
	for ; ; n++ {
		err := l.Append(rec(n))
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil || n > 1000 {
			t.Fatal(n, err)
		}
	}
	if _, err := l.Sync(); !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	mem.Inject(nil)
	for ; n < 100; n++ {
		mustAppend(t, l, rec(n))
	}
	mustSync(t, l)
	if end, err := Verify(mem, cfg.Dir, nil); err != nil || end != l.End() {
		t.Errorf("%v, %v", end, err)
	}
}

// A folder that could not be synced after a segment was dropped may show it
// again after a crash, and not those that were dropped later.
func TestADroppedSegmentThatComesBackIsNoGap(t *testing.T) {
	fsys := newMem(t)
	cfg := testConfig(fsys)
	l := mustCreate(t, cfg)
	for i := range 50 {
		mustAppend(t, l, numbered(i+1, 1000))
	}
	end := mustSync(t, l)
	failed := false
	fsys.Inject(func(op vfstest.Op) error {
		if op.Kind == vfstest.OpSyncDir && !failed {
			failed = true
			return syscall.EIO
		}
		return nil
	})
	if _, err := l.Drop(4); !errors.Is(err, syscall.EIO) {
		t.Fatalf("a failed sync gives %v", err)
	}
	fsys.Inject(nil)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := Open(cfg, end) // The process begins anew, the machine does not.
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Drop(4); err != nil {
		t.Fatal(err)
	}
	needed := l.Segments()[0]
	cfg.FS = fsys.Crash(vfstest.Crash{Image: vfstest.Nothing})
	if _, err := Open(cfg, end); err == nil {
		t.Fatal("without a word of what is merged, a gap must not pass")
	}
	cfg.Merged = needed.FirstRevision
	again, err := Open(cfg, end)
	if err != nil {
		t.Fatal(err)
	}
	if first := again.Segments()[0]; first != needed {
		t.Errorf("history begins with %+v, want %+v", first, needed)
	}
	if names, err := cfg.FS.List(cfg.Dir); err != nil || slices.Contains(names, SegmentName(1)) {
		t.Errorf("what came back is still there: %v, %v", names, err)
	}
	cfg.Merged = needed.FirstRevision - 1
	cfg.FS = fsys.Crash(vfstest.Crash{Image: vfstest.Nothing})
	if _, err := Open(cfg, end); err == nil {
		t.Error("a gap within what is needed must not pass")
	}
}
