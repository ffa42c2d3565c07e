package mvcc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// writer applies one request an entry.
type writer struct {
	t     testing.TB
	s     *Store
	index ident.Index
}

func (w *writer) do(fn func(tx *Tx) error) {
	w.t.Helper()
	w.index = w.s.Applied().Position.Index + 1
	e := w.s.Begin(w.index, 1, 0)
	tx := e.Tx()
	if err := fn(tx); err != nil {
		w.t.Fatal(err)
	}
	tx.Commit()
	if err := e.Commit(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *writer) put(key, value string) {
	w.t.Helper()
	w.do(func(tx *Tx) error {
		_, err := tx.Put(PutArgs{Key: []byte(key), Value: []byte(value)})
		return err
	})
}

func (w *writer) delete(key string) {
	w.t.Helper()
	w.do(func(tx *Tx) error {
		_, _, err := tx.DeleteRange([]byte(key), nil, false)
		return err
	})
}

func (w *writer) compact(rev ident.Revision) {
	w.t.Helper()
	w.do(func(tx *Tx) error { return tx.Compact(rev) })
}

func valueAt(t testing.TB, s *Store, key string, rev ident.Revision) (string, error) {
	t.Helper()
	v := s.View()
	defer v.Release()
	res, err := v.Range(context.Background(), RangeArgs{Key: []byte(key), Revision: rev})
	if err != nil || len(res.KVs) == 0 {
		return "", err
	}
	r, err := parseKV(res.KVs[0])
	return string(r.value), err
}

func wantValue(t testing.TB, s *Store, key string, rev ident.Revision, want string) {
	t.Helper()
	if got, err := valueAt(t, s, key, rev); err != nil || got != want {
		t.Fatalf("%s at revision %d is %.20q, %v; want %.20q", key, rev, got, err, want)
	}
}

func TestAWatchFromTheCompactedRevisionStillSeesADeletionThere(t *testing.T) {
	t.Run("within a segment", func(t *testing.T) { deletionAtC(t, 100) })
	t.Run("last of a segment", func(t *testing.T) { deletionAtC(t, 0) })
}

func deletionAtC(t *testing.T, after int) {
	s := mustCreate(t, testConfig(t))
	w := writer{t: t, s: s}
	for i := range 100 {
		w.put(fmt.Sprint("k", i%7), string(bytes.Repeat([]byte{'v'}, 200)))
	}
	w.delete("k3")
	at := s.Head()
	for range after {
		w.put("k5", string(bytes.Repeat([]byte{'w'}, 200)))
	}
	before := len(s.History().Segments())
	w.compact(at)
	stepAll(t, s)
	if after := len(s.History().Segments()); after >= before {
		t.Fatalf("%d segments before, %d after: nothing was given back", before, after)
	}
	r, err := s.Events(at)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rec, err := r.Next()
	for err == nil && rec.Groups[0].Revision < at {
		rec, err = r.Next()
	}
	if err != nil {
		t.Fatal(err)
	}
	if g := rec.Groups[0]; g.Revision != at || len(g.Mutations) != 1 || g.Mutations[0].Kind != history.KeyDelete || string(g.Mutations[0].Key) != "k3" {
		t.Fatalf("first group from revision %d is %+v", at, g)
	}
	mustClose(t, s)
}

func TestAMergeWaitsForViewsThatReadBelowIt(t *testing.T) {
	s := mustCreate(t, testConfig(t))
	w := writer{t: t, s: s}
	w.put("a", "old")
	v := s.View()
	w.put("a", "new")
	w.compact(3)
	stepAll(t, s)
	if m := s.Applied().Merged; m != NeverCompacted {
		t.Fatalf("merged through %d under a reader at 2", m)
	}
	res, err := v.Range(context.Background(), RangeArgs{Key: []byte("a")})
	if err != nil || !bytes.Contains(res.KVs[0], []byte("old")) {
		t.Fatalf("view at 2 reads %v, %v", res, err)
	}
	if _, err := valueAt(t, s, "a", 2); !errors.Is(err, ErrCompacted) {
		t.Fatalf("a new view reads revision 2: %v", err)
	}
	v.Release()
	stepAll(t, s)
	if m := s.Applied().Merged; m != 3 {
		t.Fatalf("merged through %d once nobody reads", m)
	}
	wantValue(t, s, "a", 0, "new")
	mustClose(t, s)
}

func TestAPinReadsOnAfterACompactionUntilItsTimeIsOver(t *testing.T) {
	cfg := testConfig(t)
	clk := clocktest.New()
	cfg.Clock = clk
	s := mustCreate(t, cfg)
	w := writer{t: t, s: s}
	w.put("a", "old")
	p, err := s.Pin(0)
	if err != nil {
		t.Fatal(err)
	}
	w.put("a", "new")
	w.compact(3)
	stepAll(t, s)
	read := func() (string, error) {
		v, err := p.View()
		if err != nil {
			return "", err
		}
		defer v.Release()
		res, err := v.Range(context.Background(), RangeArgs{Key: []byte("a"), Revision: p.Revision()})
		if err != nil {
			return "", err
		}
		r, err := parseKV(res.KVs[0])
		return string(r.value), err
	}
	if got, err := read(); err != nil || got != "old" {
		t.Fatalf("pinned read is %q, %v", got, err)
	}
	v, err := p.View() // One that is out when the time is over.
	if err != nil {
		t.Fatal(err)
	}
	clk.Advance(pinWaitMax + time.Second)
	stepAll(t, s)
	if m := s.Applied().Merged; m != NeverCompacted {
		t.Fatalf("merged through %d under a pinned view", m)
	}
	if _, err := read(); !errors.Is(err, ErrCompacted) {
		t.Fatalf("read after the pin's time: %v", err)
	}
	v.Release()
	stepAll(t, s)
	if m := s.Applied().Merged; m != 3 {
		t.Fatalf("merged through %d", m)
	}
	p.Release()
	mustClose(t, s)
}

func TestACheckpointAmidAnEntryIsThatOfTheEntryBefore(t *testing.T) {
	cfg := testConfig(t)
	s := mustCreate(t, cfg)
	w := writer{t: t, s: s}
	w.put("a", "1")
	before := s.Applied()
	e := s.Begin(2, 1, 0)
	tx := e.Tx()
	tx.SetRow(backend.TableUser, []byte("u"), []byte("half"))
	if _, err := tx.Put(PutArgs{Key: []byte("a"), Value: []byte("half")}); err != nil {
		t.Fatal(err)
	}
	tx.Commit()
	if err := e.appendRecord(); err != nil { // In history, not published.
		t.Fatal(err)
	}
	if err := s.checkpoint(); err != nil {
		t.Fatal(err)
	}
	e.end()
	s.mu.closed = true // As if the process had ended here.
	if err := errors.Join(s.db.Close(), s.history.Close()); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, cfg)
	sameState(t, s.Applied(), before)
	wantValue(t, s, "a", 0, "1")
	if err := s.Rows(backend.TableUser, func(key, _ []byte) error { return fmt.Errorf("row %s is there", key) }); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
}

func TestTimeRisesStrictlyWhateverTheLeaderStamps(t *testing.T) {
	cfg := testConfig(t)
	s := mustCreate(t, cfg)
	last := int64(0)
	for i, stamp := range []int64{500, 500, 20, 0, 1000, 999} {
		e := s.Begin(ident.Index(i+1), 1, stamp)
		if e.Time() <= last || e.Time() < stamp {
			t.Fatalf("entry %d stamped %d has time %d after %d", i+1, stamp, e.Time(), last)
		}
		last = e.Time()
		if err := e.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, s)
	s = mustOpen(t, cfg)
	if got := s.Applied().Time; got != last {
		t.Fatalf("time %d after a restart, want %d", got, last)
	}
	mustClose(t, s)
}

func TestAKeyOfAMegabyteLivesThroughCompactionRestartAndInstall(t *testing.T) {
	cfg := testConfig(t)
	s := mustCreate(t, cfg)
	w := writer{t: t, s: s}
	long := string(bytes.Repeat([]byte("key"), 400_000))
	w.put(long, "one")
	w.put(long[:1<<20], "neighbour")
	w.put(long, "two")
	w.put("short", "x")
	wantValue(t, s, long, 2, "one")
	w.compact(s.Head())
	stepAll(t, s)
	wantValue(t, s, long, 0, "two")
	mustClose(t, s)
	s = mustOpen(t, cfg)
	wantValue(t, s, long, 0, "two")
	wantValue(t, s, long[:1<<20], 0, "neighbour")
	f, err := s.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	other := install(t, f)
	wantValue(t, other, long, 0, "two")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	w = writer{t: t, s: s}
	w.delete(long)
	w.compact(s.Head())
	stepAll(t, s)
	wantValue(t, s, long, 0, "")
	mustClose(t, s)
	mustClose(t, other)
}

func TestACompactionGivesSpaceBackSoThatAQuotaCanBeMetAgain(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 64 << 10
	s := mustCreate(t, cfg)
	w := writer{t: t, s: s}
	if fresh := s.Sizes(); fresh.Total >= 52<<10 || fresh.InUse > fresh.Total {
		t.Fatalf("a fresh store takes %+v", fresh)
	}
	for range 1000 {
		w.put("k", string(make([]byte, 1000)))
	}
	full := s.Sizes()
	if full.Total < 1<<20 || full.InUse > full.Total {
		t.Fatalf("a megabyte takes %+v", full)
	}
	w.compact(s.Head())
	stepAll(t, s)
	if after := s.Sizes(); after.Total > cfg.SegmentBytes*5/2 {
		t.Fatalf("after a compaction there are %+v, segments have %d", after, cfg.SegmentBytes)
	}
	mustClose(t, s)
}

func TestAFailedSyncEndsAllWriting(t *testing.T) {
	c := newCrashRun(t, rand.New(rand.NewPCG(1, 1)))
	s := mustCreate(t, c.cfg)
	w := writer{t: t, s: s}
	w.put("a", "1")
	c.mem.Inject(func(op vfstest.Op) error {
		if op.Kind == vfstest.OpSync {
			return syscall.EIO
		}
		return nil
	})
	s.mu.asked++
	if _, err := s.Step(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("checkpoint with a failing sync: %v", err)
	}
	c.mem.Inject(nil)
	select {
	case <-s.Failed():
	default:
		t.Fatal("the owner is not told")
	}
	e := s.Begin(2, 1, 0)
	if err := e.Commit(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("commit after a failed sync: %v", err)
	}
	if err := s.Checkpoint(context.Background()); !errors.Is(err, syscall.EIO) {
		t.Fatalf("checkpoint after a failed sync: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, c.cfg)
	if at := s.Applied(); at.Position.Index != 0 {
		t.Fatalf("reopened at entry %d", at.Position.Index)
	}
	mustClose(t, s)
}

func TestWorkThatFindsNoRoomIsDoneOnceThereIs(t *testing.T) {
	c := newCrashRun(t, rand.New(rand.NewPCG(1, 1)))
	c.cfg.SegmentBytes, c.cfg.RingBytes = 1<<20, 4<<20
	s := mustCreate(t, c.cfg)
	w := writer{t: t, s: s}
	full := true
	c.mem.Inject(func(op vfstest.Op) error {
		if full && (op.Kind == vfstest.OpAllocate || op.Kind == vfstest.OpCreate) {
			return syscall.ENOSPC
		}
		return nil
	})
	for i := range 100 {
		w.put(fmt.Sprint("k", i), string(make([]byte, 1000)))
	}
	s.mu.asked++
	if _, err := s.Step(); !noSpace(err) || s.Err() != nil {
		t.Fatalf("checkpoint on a full disk: %v, store: %v", err, s.Err())
	}
	w.put("after", "x")
	full = false
	stepAll(t, s)
	if err := s.checkpoint(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	s = mustOpen(t, c.cfg)
	wantValue(t, s, "after", 0, "x")
	mustClose(t, s)
}

func TestARecordThatDoesNotContinueIsRefusedAndChangesNothing(t *testing.T) {
	a, b := mustCreate(t, testConfig(t)), mustCreate(t, testConfig(t))
	w := writer{t: t, s: a}
	for i := range 3 {
		w.put("k", fmt.Sprint(i))
	}
	r, err := a.Events(0)
	if err != nil {
		t.Fatal(err)
	}
	var records []*history.Record
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, travel(t, rec))
	}
	r.Close()
	before := b.Applied()
	if err := b.ApplyRecord(records[1]); !errors.Is(err, ErrGap) {
		t.Fatalf("a record after a gap: %v", err)
	}
	sameState(t, b.Applied(), before)
	follow(t, b, a.Applied(), records)
	if err := b.ApplyRecord(records[2]); !errors.Is(err, ErrGap) {
		t.Fatalf("a record again: %v", err)
	}
	sameState(t, b.Applied(), a.Applied())
	mustClose(t, a)
	mustClose(t, b)
}

func TestDamagedHistoryIsRefusedByName(t *testing.T) {
	cfg := diskConfig(t)
	s := mustCreate(t, cfg)
	w := writer{t: t, s: s}
	for i := range 200 {
		w.put(fmt.Sprint("k", i), string(make([]byte, 100)))
	}
	mustClose(t, s)
	name := filepath.Join(cfg.Dir, historyName, history.SegmentName(2))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, index := range []uint64{2} { // Without its key index the segment is read.
		if err := os.Remove(filepath.Join(cfg.Dir, historyName, history.IndexName(index))); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	var damage *history.DamageError
	if s, err := Open(cfg); !errors.As(err, &damage) || damage.File != name {
		t.Fatalf("opened %v: %v", s, err)
	}
}

// Readers beside a writer, compactions, merges and table merges: two keys that
// are always written together are always equal.
func TestReadersNeverSeeHalfOfAnEntry(t *testing.T) {
	cfg := testConfig(t)
	cfg.Manual, cfg.SegmentBytes = false, 32<<10
	s := mustCreate(t, cfg)
	group := task.New(context.Background())
	for n := range 3 {
		group.Go(fmt.Sprint("reader", n), func(ctx context.Context) error {
			r := rand.New(rand.NewPCG(uint64(n), 1))
			for ctx.Err() == nil {
				if err := readPair(ctx, s, r); err != nil {
					return err
				}
			}
			return nil
		})
	}
	r := rand.New(rand.NewPCG(9, 9))
	for i := ident.Index(1); i <= 3000; i++ {
		e := s.Begin(i, 1, 0)
		tx := e.Tx()
		key, value := fmt.Sprint("p", r.IntN(50)), fmt.Appendf(nil, "%d-%0100d", i, i)
		for _, side := range []string{"left/", "right/"} {
			if _, err := tx.Put(PutArgs{Key: []byte(side + key), Value: value, Lease: ident.LeaseID(i % 3)}); err != nil {
				t.Fatal(err)
			}
		}
		tx.Commit()
		if head := s.Head(); i%200 == 0 {
			tx := e.Tx()
			if err := tx.Compact(head - 50); err != nil {
				t.Fatal(err)
			}
			tx.Commit()
		}
		if err := e.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	group.Stop()
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitMerged(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := s.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
}

func readPair(ctx context.Context, s *Store, r *rand.Rand) error {
	v := s.View()
	defer v.Release()
	at := max(v.Compacted(), 1) + ident.Revision(r.Int64N(int64(v.Revision()-max(v.Compacted(), 1))+1))
	var sides [2][]row
	for i, side := range []string{"left/", "right/"} {
		res, err := v.Range(ctx, RangeArgs{Key: []byte(side), End: []byte(side + "~"), Revision: at})
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("range at %d in a view of [%d, %d]: %w", at, v.Compacted(), v.Revision(), err)
		}
		if err != nil {
			return nil
		}
		for _, kv := range res.KVs {
			row, err := parseKV(kv)
			if err != nil {
				return err
			}
			sides[i] = append(sides[i], row)
		}
	}
	if len(sides[0]) != len(sides[1]) {
		return fmt.Errorf("%d keys left, %d right at %d", len(sides[0]), len(sides[1]), at)
	}
	for i := range sides[0] {
		if l, r := sides[0][i], sides[1][i]; !bytes.Equal(l.value, r.value) || l.mod != r.mod || l.lease != r.lease {
			return fmt.Errorf("at %d %s has %.10q of %d, %s has %.10q of %d", at, l.key, l.value, l.mod, r.key, r.value, r.mod)
		}
	}
	for id := range ident.LeaseID(3) {
		if _, err := v.LeaseKeys(id); err != nil {
			return err
		}
	}
	return nil
}

func TestSmallRowsAreSortedAndUndone(t *testing.T) {
	s := mustCreate(t, testConfig(t))
	w := writer{t: t, s: s}
	w.do(func(tx *Tx) error {
		tx.SetRow(backend.TableUser, []byte("b"), nil)
		tx.SetRow(backend.TableUser, []byte("a"), []byte("1"))
		return nil
	})
	e := s.Begin(2, 1, 0)
	tx := e.Tx()
	tx.DeleteRow(backend.TableUser, []byte("b"))
	tx.SetRow(backend.TableUser, []byte("c"), []byte("2"))
	tx.SetRow(backend.TableUser, []byte("c"), []byte("3"))
	tx.Abort()
	if err := e.Commit(); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := s.Rows(backend.TableUser, func(key, value []byte) error {
		got = append(got, fmt.Sprintf("%s=%s", key, value))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := "[a=1 b=]"; fmt.Sprint(got) != want {
		t.Fatalf("rows %v, want %s", got, want)
	}
	mustClose(t, s)
}
