package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot"
)

// What may become of damage. Anything else is a failure.
const (
	refused  = "refused"    // The member does not start, and says which file and where.
	cutTold  = "cut, told"  // The end of the log is gone, and the member knows: it does not vote.
	onRead   = "when read"  // A read is refused, and says which file and where.
	onVerify = "by verify"  // Answers are right; who verifies the files is told.
	harmless = "not in use" // Nothing was kept there.
	rebuilt  = "made anew"  // What it held follows from the rest.
	// The mark is lost, the log is as it was after an earlier sync, and the state is
	// no further, or stands where it was received: a disk that forgets what it has
	// synced, and then is without power. Nothing that is left tells, so all that can
	// be asked is that it was once so.
	backInTime = "back in time"
	wrong      = "wrong answer" // Never.
)

var crashNothing = vfstest.Crash{Image: vfstest.Nothing}

// patient is a disk of a member that has ended, to be damaged many times.
type patient struct {
	t       *testing.T
	disk    *disk
	truth   *truth
	scratch string
	n       int
}

// newPatient lives a workload. inOrder says whether the member was closed.
func newPatient(t *testing.T, load workload, inOrder bool) *patient {
	t.Helper()
	p := &patient{t: t, scratch: scratchDir(t)}
	d, err := newDisk(p.dir())
	if err != nil {
		t.Fatal(err)
	}
	twin, err := newDisk(p.dir())
	if err != nil {
		t.Fatal(err)
	}
	l, err := load.live(d, twin, func(*life) {})
	if err != nil {
		t.Fatal(err)
	}
	if inOrder {
		err = l.close()
	}
	if err == nil {
		p.disk, err = d.crash(p.dir(), vfstest.Crash{Image: vfstest.Everything}, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.truth = l.truth
	kill(l.member)
	if err := l.twin.close(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *patient) dir() string {
	p.n++
	dir := filepath.Join(p.scratch, fmt.Sprint(p.n))
	if err := os.Mkdir(dir, 0o700); err != nil {
		p.t.Fatal(err)
	}
	return dir
}

// examine damages a copy and tells what became of it.
func (p *patient) examine(harm func(d *disk) error) (verdict string, err error) {
	return p.examineAs(harm, false)
}

func (p *patient) examineAs(harm func(d *disk) error, markLost bool) (verdict string, err error) {
	root := p.dir()
	defer os.RemoveAll(root)
	d, err := p.disk.crash(root, vfstest.Crash{}, nil)
	if err != nil {
		return "", err
	}
	if err := harm(d); err != nil {
		return "", err
	}
	defer func() {
		if r := recover(); r != nil {
			verdict, err = wrong, fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	m, err := boot(d, memberDir)
	if err != nil {
		return refused, err
	}
	verdict, err = p.look(m, markLost)
	if closed := m.close(); err == nil && closed != nil {
		verdict, err = onRead, closed // The last checkpoint met it.
	}
	if verdict != harmless {
		return verdict, err
	}
	return p.verifyFiles(d)
}

// look reads everything there is.
func (p *patient) look(m *member, markLost bool) (string, error) {
	r := &recovery{disk: m.disk, truth: p.truth.clone(), rnd: rand.New(rand.NewPCG(1, 1)), verdict: func(string) {}}
	verdict := harmless
	if m.boot.Cut {
		verdict = cutTold
		r.truth.forget()
	}
	err := r.log(m)
	if err != nil && !named(err) && markLost && !m.boot.Cut {
		verdict = backInTime
		r.truth.forget()
		err = r.log(m)
	}
	if err != nil {
		return onReadOr(err), err
	}
	if err := r.replayed(m); err != nil {
		return onReadOr(err), err
	}
	v := m.rep.Store().View()
	defer v.Release()
	for revision := max(r.model.compacted, 1); revision <= r.model.revision; revision++ {
		got, err := v.Range(context.Background(), mvcc.RangeArgs{Key: []byte{0}, End: []byte{0}, Revision: ident.Revision(revision)})
		if err != nil {
			return onReadOr(err), err
		}
		if err := sameRows(got.KVs, r.model.all(revision)); err != nil {
			return wrong, fmt.Errorf("at revision %d: %w", revision, err)
		}
	}
	return verdict, nil
}

// forget leaves what the log was ever given: any beginning of it will do. What a
// leader replaced later is in the place of what was acknowledged there.
func (t *truth) forget() {
	t.hard, t.acked, t.incoming = wal.HardState{}, 0, max(t.acked, t.incoming)
	clear(t.terms)
}

// log compares hard state and entries.
func (r *recovery) log(m *member) error {
	if err := r.hardState(m); err != nil {
		return err
	}
	return r.entries(m)
}

// onReadOr tells an error that names damage from an answer that is wrong.
func onReadOr(err error) string {
	if named(err) {
		return onRead
	}
	return wrong
}

// named reports whether an error says which file is damaged, and where. Of a log
// that ends before the state it says between which entries it goes.
func named(err error) bool {
	if errors.Is(err, raftnode.ErrLogLost) {
		return true
	}
	text := err.Error()
	where := false
	for _, word := range []string{"offset", "page", "version", "damaged", "size of"} {
		where = where || strings.Contains(text, word)
	}
	for _, file := range []string{"base.db", ".wal", ".seg", ".idx", "CURRENT", "IDENTITY", "snapshot"} {
		if strings.Contains(text, file) && where {
			return true
		}
	}
	return false
}

// verifyFiles is what an operator or the scrubber would find.
func (p *patient) verifyFiles(d *disk) (string, error) {
	if p.truth.saved != nil {
		if _, err := snapshot.StatusOf(context.Background(), d.mem, snapshotPath, snapshot.StatusOptions{}); err != nil {
			return onVerify, err
		}
	}
	return harmless, nil
}

// verifyLogs reads the logs of an untouched copy with harm done to it.
func verifyLogs(d *disk) error {
	err := wal.Verify(d.mem, filepath.Join(memberDir, "wal"), nil)
	names, listErr := d.mem.List(memberDir)
	for _, name := range names {
		if strings.HasPrefix(name, "gen-") {
			_, verifyErr := history.Verify(d.mem, filepath.Join(memberDir, name, "history"), nil)
			err = errors.Join(err, verifyErr)
		}
	}
	return errors.Join(err, listErr)
}

// judge counts a verdict and refuses what must not be.
func (p *patient) judge(row *row, what, kind, verdict string, err error) {
	count(&row.verdicts, kind+": "+verdict)
	row.images++
	switch {
	case verdict == wrong, verdict == "":
		row.failed++
		p.t.Errorf("%s: %s: %v", what, verdict, err)
	case verdict == refused && !named(err):
		row.failed++
		p.t.Errorf("%s: refused without a name: %v", what, err)
	}
}

// files of the member and of the backup, by kind.
func (p *patient) files() map[string][]string {
	all := map[string][]string{}
	var walk func(dir string)
	walk = func(dir string) {
		names, err := p.disk.mem.List(dir)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, name := range names {
			path := filepath.Join(dir, name)
			info, err := p.disk.mem.Stat(path)
			if err != nil {
				p.t.Fatal(err)
			}
			switch kind := kindOf(name); {
			case info.IsDir && !strings.HasPrefix(name, "old-"):
				walk(path)
			case kind != "" && info.Size > 0:
				all[kind] = append(all[kind], path)
			}
		}
	}
	walk(memberDir)
	if p.truth.saved != nil {
		all["snapshot"] = []string{snapshotPath}
	}
	return all
}

func kindOf(name string) string {
	switch {
	case name == "CURRENT", name == "IDENTITY", name == "base.db":
		return name
	case strings.HasSuffix(name, ".wal"):
		return "wal"
	case strings.HasSuffix(name, ".seg"):
		return "history"
	case strings.HasSuffix(name, ".idx"):
		return "key table"
	}
	return ""
}

// written is the end of what a preallocated file holds.
func written(b []byte) int64 {
	end := len(b)
	for end > 0 && b[end-1] == 0 {
		end--
	}
	return int64(end)
}

func (p *patient) read(path string) []byte {
	if filepath.Base(path) == "base.db" {
		if err := p.disk.place(); err != nil {
			p.t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(p.disk.root, path))
		if err != nil {
			p.t.Fatal(err)
		}
		return b
	}
	b, err := vfs.ReadFile(p.disk.mem, path)
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

// change overwrites a part of a file, or cuts it when there are no bytes.
func change(path string, at int64, with []byte) func(*disk) error {
	return func(d *disk) error {
		if filepath.Base(path) == "base.db" {
			if err := d.place(); err != nil {
				return err
			}
			f, err := os.OpenFile(filepath.Join(d.root, path), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt(with, at)
			return errors.Join(err, f.Close())
		}
		f, err := d.mem.OpenWrite(path)
		if err != nil {
			return err
		}
		if with == nil {
			err = f.Truncate(at)
		} else {
			_, err = f.WriteAt(with, at)
		}
		return errors.Join(err, f.SyncData(), f.Close())
	}
}
