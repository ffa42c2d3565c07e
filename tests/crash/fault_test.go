package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// The ways in which a call fails.
var faultKinds = []string{"EIO", "ENOSPC", "short"}

// fault makes one call of a life fail. A full disk stays full until somebody
// has noticed.
type fault struct {
	kind string
	at   int // The call that fails. Counted from 1; 0: none.
	seen int
	hit  *vfstest.Op
	full bool

	calls []vfstest.Op // All there are, when none fails.
}

// fails tells whether a call can fail so.
func fails(kind string, op vfstest.Op) bool {
	switch kind {
	case "ENOSPC":
		return needsSpace(op)
	case "short":
		return op.Kind == vfstest.OpWrite
	}
	return true
}

func (f *fault) inject(op vfstest.Op) error {
	f.seen++
	if f.at == 0 {
		f.calls = append(f.calls, op)
	}
	switch {
	case f.full && needsSpace(op):
		return syscall.ENOSPC
	case f.seen != f.at:
		return nil
	}
	f.hit = &op
	switch f.kind {
	case "ENOSPC":
		f.full = true
		return syscall.ENOSPC
	case "short":
		return &vfstest.Short{Bytes: int(op.Length / 2), Err: syscall.EIO}
	}
	if op.Kind == vfstest.OpSyncDir {
		return &vfstest.Kept{Err: syscall.EIO}
	}
	return syscall.EIO
}

// needsSpace says what a full disk refuses. Segments of the Raft log and of
// history are allocated before they are written.
func needsSpace(op vfstest.Op) bool {
	switch op.Kind {
	case vfstest.OpCreate, vfstest.OpMkdir, vfstest.OpAllocate:
		return true
	case vfstest.OpWrite:
		return !strings.HasSuffix(op.Name, ".wal") && !strings.Contains(op.Name, "/new-") && !strings.HasSuffix(op.Name, ".seg")
	}
	return false
}

// faulty goes through one life with one fault, and proves that nothing that
// was acknowledged is lost.
type faulty struct {
	workload
	fault   fault
	dirs    func() string
	verdict func(string)
}

func (f *faulty) run() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	d, err := newDisk(f.dirs())
	if err != nil {
		return err
	}
	twin, err := newDisk(f.dirs())
	if err != nil {
		return err
	}
	d.inject(f.fault.inject)
	l, err := f.whole(d, twin, func(l *life) { l.onFull = func() { f.fault.full = false } })
	stopped := err
	d.inject(nil)
	if f.fault.hit == nil && err != nil {
		return fmt.Errorf("without a fault: %w", err)
	}
	rnd := rand.New(rand.NewPCG(f.seed, uint64(f.fault.at)))
	switch {
	case f.fault.hit == nil:
		return errors.Join(l.twin.close(), l.member.close())
	case stopped == nil:
		f.verdict(f.fault.kind + ": went on")
	default:
		f.verdict(f.fault.kind + ": stopped")
		if err := refusesMore(l, stopped); err != nil {
			return err
		}
		if f.fault.kind == "ENOSPC" && l.truth.created && !strings.HasPrefix(stopped.Error(), "close") {
			return fmt.Errorf("a full disk at %s stopped the member: %w", f.fault.hit, stopped)
		}
	}
	if err := errors.Join(l.twin.close(), f.aftermath(l, d, rnd)); err != nil {
		return fmt.Errorf("%s at call %d, %s, after which the member said %v: %w", f.fault.kind, f.fault.at, f.fault.hit, stopped, err)
	}
	return nil
}

// refusesMore proves that a log which failed takes nothing more (I-10).
func refusesMore(l *life, stopped error) error {
	if l.log == nil || !errors.Is(stopped, wal.ErrFailed) {
		return nil
	}
	hard := l.hard
	hard.Term++
	if err := l.log.Append(nil, &hard); !errors.Is(err, wal.ErrFailed) {
		return fmt.Errorf("the log failed with %v, and takes more: %v", stopped, err)
	}
	return nil
}

// aftermath kills what is left of the member. It is started again on what the
// page cache shows, goes on, and loses power then; or power is lost at once.
func (f *faulty) aftermath(l *life, d *disk, rnd *rand.Rand) error {
	kill(l.member)
	kind := vfstest.Images[rnd.IntN(len(vfstest.Images))]
	if rnd.IntN(2) == 0 {
		r := &recovery{disk: d, truth: l.truth, rnd: rnd, verdict: func(string) {}}
		if err := r.run(); err != nil {
			return fmt.Errorf("started again: %w", err)
		}
		kind = vfstest.Nothing
	}
	after, err := d.crash(f.dirs(), vfstest.Crash{Image: kind, Keep: -1, Rand: rnd}, nil)
	if err != nil {
		return err
	}
	r := &recovery{disk: after, truth: l.truth, rnd: rnd, verdict: func(string) {}}
	if err := r.run(); err != nil {
		return fmt.Errorf("power cut, image %s: %w", kind, err)
	}
	return nil
}

// kill lets go of all that a process holds, without a trace on the disk.
func kill(m *member) {
	if m == nil || m.dir == nil {
		return
	}
	m.disk.inject(func(op vfstest.Op) error {
		switch {
		case op.Kind == vfstest.OpSyncDir:
			return &vfstest.Kept{Err: syscall.EIO}
		case op.Changes():
			return syscall.EIO
		}
		return nil
	})
	_ = m.close() // All it wants to write fails.
	m.disk.inject(nil)
}

// brief is a workload with each of its steps once: every call of it is to fail.
func (w workload) brief() workload {
	w.profile.count, w.profile.rows = len(strings.Fields(w.profile.steps)), 0
	return w
}

func TestEveryCallFails(t *testing.T) {
	for _, load := range faultLoads(t) {
		t.Run(load.name, func(t *testing.T) {
			t.Parallel()
			scratch, row := scratchDir(t), faults.row(load.name)
			defer faults.done(row, "failing calls", time.Now())
			calls, err := countCalls(load, scratch)
			if err != nil {
				t.Fatal(err)
			}
			for _, kind := range faultKinds {
				for i, op := range calls {
					at := i + 1
					if !fails(kind, op) || *callFlag > 0 && (at != *callFlag || kind != *faultFlag) {
						continue
					}
					n := 0
					dir := filepath.Join(scratch, fmt.Sprintf("%s-%d", kind, at))
					f := &faulty{workload: load, fault: fault{kind: kind, at: at}, verdict: func(v string) { count(&row.verdicts, v) }, dirs: func() string {
						n++
						sub := filepath.Join(dir, fmt.Sprint(n))
						if err := os.MkdirAll(sub, 0o700); err != nil {
							t.Error(err)
						}
						return sub
					}}
					row.images++
					if err := f.run(); err != nil {
						row.failed++
						t.Fatalf("%v\nreplay: go test ./tests/crash -run EveryCallFails -seed=%d -workload=%s -fault=%s -call=%d", err, load.seed/1000, load.name, kind, at)
					}
					if err := os.RemoveAll(dir); err != nil {
						t.Fatal(err)
					}
				}
			}
			row.boundaries = len(calls)
		})
	}
}

func countCalls(load workload, scratch string) ([]vfstest.Op, error) {
	f := &faulty{workload: load, verdict: func(string) {}, dirs: func() string {
		dir, err := os.MkdirTemp(scratch, "count")
		if err != nil {
			panic(err)
		}
		return dir
	}}
	err := f.run()
	return f.fault.calls, err
}

// faultLoads are brief ones of each profile; the flag asks for all in full.
func faultLoads(t *testing.T) []workload {
	t.Helper()
	if *workloadFlag != "" {
		one, err := find(*workloadFlag, *seedFlag)
		if err != nil {
			t.Fatal(err)
		}
		return []workload{one.brief()}
	}
	var loads []workload
	for _, w := range workloads(*seedFlag) {
		switch {
		case *longFlag:
			loads = append(loads, w.brief())
		case strings.HasSuffix(w.name, "-1") && strings.Contains(" puts long conflicts compaction snapshots saves defragment restarts restores ", " "+strings.TrimSuffix(w.name, "-1")+" "):
			loads = append(loads, w.brief())
		}
	}
	return ofShard(t, loads)
}
