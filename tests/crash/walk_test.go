package crash

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// walk takes images of one workload before every call that changes a file, and
// of every commit of base, and has each recover.
type walk struct {
	workload
	t        *testing.T
	scratch  string
	images   int // At each boundary; 0: all of them.
	nested   int // One in so many images crashes again, at one call of its recovery.
	only     *replayed
	life     *life
	disk     *disk
	boundary int
	bases    map[string][]byte // As last seen.
	row      *row
	dirs     int
	failure  error
	seen     map[situation]bool // Of all images of a workload, which are many.
}

// situation is a disk and what is known of it: who recovers from one recovers
// from another that is the same.
type situation struct {
	disk                       [sha256.Size]byte
	created, isSaved, restored bool
	acked, incoming            ident.Index
	hard                       wal.HardState
	saved, earlier             *expectation
}

// replayed names one image.
type replayed struct{ boundary, image int }

// image is one way to crash at a boundary.
type image struct {
	what  string
	crash vfstest.Crash
	bases map[string][]byte
}

func (w *walk) run() error {
	d, err := newDisk(w.dir())
	if err != nil {
		return err
	}
	twin, err := newDisk(w.dir())
	if err != nil {
		return err
	}
	w.disk = d
	d.inject(w.before)
	l, err := w.whole(d, twin, func(l *life) {
		w.life = l
		l.onStep = func() {
			if !l.filling {
				w.committed("the end of a step")
			}
		}
	})
	d.inject(nil)
	if w.failure != nil {
		err = w.failure
	}
	if err == nil {
		w.boundary++
		w.committed("the end")
		w.at("the end")
		err = w.failure
	}
	return errors.Join(err, l.twin.close())
}

// dir is a new folder for real files.
func (w *walk) dir() string {
	w.dirs++
	dir := filepath.Join(w.scratch, fmt.Sprint(w.dirs))
	if err := os.Mkdir(dir, 0o700); err != nil {
		panic(err)
	}
	return dir
}

var errStop = errors.New("an image has failed, the workload ends")

// before is called for each call of the workload's. An error ends it.
func (w *walk) before(op vfstest.Op) error {
	if w.failure != nil {
		return errStop
	}
	if !op.Changes() || op.Kind == vfstest.OpLock || w.life.filling {
		return nil
	}
	w.boundary++
	w.row.boundaries++
	count(&w.row.kinds, string(op.Kind)+" "+classOf(op.Name))
	w.committed(op.String())
	w.at(op.String())
	if w.failure != nil {
		return errStop
	}
	return nil
}

// at makes images of now. What a folder is synced for before a rename shows in
// one of them only, so that one is always among them.
func (w *walk) at(what string) {
	all := images(w.disk.mem)
	chosen := w.choose(len(all), w.images)
	newest := slices.IndexFunc(all, func(im image) bool { return im.crash.Image == vfstest.Newest })
	if w.disk.mem.NewestIsName() && !slices.Contains(chosen, newest) {
		chosen = append(chosen, newest)
	}
	for i, n := range chosen {
		im := all[n]
		im.what = fmt.Sprintf("before %s, image %s", what, im.what)
		if (w.boundary+n)%4 == 0 {
			im.what += ", newest meta page of base damaged"
			im.bases = olderMeta(w.bases)
		}
		w.check(im, i)
	}
}

// images are the ways to crash now.
func images(mem *vfstest.Mem) []image {
	pending := mem.Pending()
	if pending == 0 {
		return []image{{what: "nothing is pending"}}
	}
	var all []image
	for _, kind := range vfstest.Images {
		times := 1
		switch kind {
		case vfstest.Prefix:
			continue
		case vfstest.Torn:
			times = 2
		case vfstest.Random:
			times = 4
		}
		for range times {
			all = append(all, image{what: kind.String(), crash: vfstest.Crash{Image: kind}})
		}
	}
	for keep := 1; keep < pending; keep++ {
		all = append(all, image{what: fmt.Sprintf("prefix of %d", keep), crash: vfstest.Crash{Image: vfstest.Prefix, Keep: keep}})
	}
	return all
}

// choose draws n of so many, different ones at each boundary.
func (w *walk) choose(of, n int) []int {
	all := rand.New(rand.NewPCG(w.seed, uint64(w.boundary))).Perm(of)
	if n > 0 && n < of {
		return all[:n]
	}
	return all
}

const imagesOfCommits = 1000 // The first number of those of a commit.

// check has one image recover.
func (w *walk) check(im image, number int) {
	if w.failure != nil || w.only != nil && *w.only != (replayed{w.boundary, number}) {
		return
	}
	rnd := rand.New(rand.NewPCG(w.seed, uint64(w.boundary)<<16|uint64(number)))
	im.crash.Rand = rnd
	d, err := w.disk.crash(w.dir(), im.crash, im.bases)
	if err != nil {
		w.failure = err
		return
	}
	w.row.images++
	if again, err := w.again(d); err != nil || again {
		w.failure = errors.Join(w.failure, err, os.RemoveAll(d.root))
		return
	}
	r := &recovery{disk: d, truth: w.life.truth.clone(), rnd: rnd, verdict: w.verdict}
	if (w.boundary+number)%w.nested == 0 {
		w.crashAgain(r, rnd)
	}
	if err := r.run(); err != nil {
		kept := keep(w.t, w.disk, im)
		w.failure = fmt.Errorf("%s: %w\nreplay: go test ./tests/crash -run Walk -seed=%d -workload=%s -boundary=%d -image=%d -images=%d\nfiles: %s",
			im.what, err, w.seed/1000, w.name, w.boundary, number, w.images, kept)
	}
	d.inject(nil)
	if err := os.RemoveAll(d.root); err != nil && w.failure == nil {
		w.failure = err
	}
}

// again tells whether this very situation was there before. What else was
// appended or handed out since only adds to what a recovery may find.
func (w *walk) again(d *disk) (bool, error) {
	if w.images > 0 || w.only != nil {
		return false, nil // Few images, or one.
	}
	sum, err := d.sum()
	if err != nil {
		return false, err
	}
	t := w.life.truth
	s := situation{
		disk: sum, created: t.created, isSaved: t.isSaved, restored: t.restored,
		acked: t.acked, incoming: t.incoming, hard: t.hard, saved: t.saved, earlier: t.earlier,
	}
	if w.seen[s] {
		w.row.equal++
		return true, nil
	}
	w.seen[s] = true
	return false, nil
}

func (w *walk) verdict(what string) { count(&w.row.verdicts, what) }

// crashAgain lets the power go once more while an image recovers.
func (w *walk) crashAgain(r *recovery, rnd *rand.Rand) {
	at, seen := 1+rnd.IntN(60), 0
	var failed error
	r.disk.inject(func(op vfstest.Op) error {
		if !op.Changes() || op.Kind == vfstest.OpLock {
			return failed
		}
		if seen++; seen != at {
			return failed
		}
		all := images(r.disk.mem)
		im := all[rnd.IntN(len(all))]
		im.crash.Rand = rnd
		d, err := r.disk.crash(w.dir(), im.crash, nil)
		if err != nil {
			return err
		}
		w.row.nested++
		again := &recovery{disk: d, truth: r.truth.clone(), rnd: rand.New(rand.NewPCG(w.seed, uint64(seen))), verdict: w.verdict}
		if err := again.run(); err != nil {
			failed = fmt.Errorf("crash while recovering, before %s, image %s: %w", op, im.what, err)
		}
		return errors.Join(failed, os.RemoveAll(d.root))
	})
}

// committed makes images of a commit of base that has just happened: changed
// pages lost, kept or torn in any combination, the meta page last.
func (w *walk) committed(what string) {
	now, err := w.disk.bases()
	if err != nil {
		w.failure = err
		return
	}
	before := w.bases
	w.bases = now
	for id, after := range now {
		old := before[id]
		if old == nil || bytes.Equal(old, after) {
			continue
		}
		if !bytes.Equal(old[:pageBytes], after[:pageBytes]) && !bytes.Equal(old[pageBytes:2*pageBytes], after[pageBytes:2*pageBytes]) {
			w.row.unseen++ // Two commits with nothing in between: a bulk load, of a file that has no name yet.
			continue
		}
		w.row.commits++
		all := commitImages(old, after, rand.New(rand.NewPCG(w.seed, uint64(w.boundary))))
		for i, n := range w.choose(len(all), 4*w.images) {
			mem := images(w.disk.mem)
			im := mem[(n+w.boundary)%len(mem)]
			im.bases = map[string][]byte{id: all[n].content}
			im.what = fmt.Sprintf("commit of base before %s, %s, image %s", what, all[n].what, im.what)
			w.row.pageImages++
			w.check(im, imagesOfCommits+i)
		}
	}
}

// keep writes everything down for who looks into it.
func keep(t *testing.T, d *disk, im image) string {
	dir, err := os.MkdirTemp("", "holdfast-crash-")
	if err != nil {
		return err.Error()
	}
	err = d.silently(func() error {
		found, err := d.crash(filepath.Join(dir, "base"), im.crash, im.bases)
		if err == nil {
			err = found.place()
		}
		if err != nil {
			return err
		}
		return export(found.mem, "/", filepath.Join(dir, "files"))
	})
	if err != nil {
		t.Logf("keep the files: %v", err)
	}
	return dir
}

func export(mem *vfstest.Mem, from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	names, err := mem.List(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		source, target := filepath.Join(from, name), filepath.Join(to, name)
		info, err := mem.Stat(source)
		if err != nil {
			return err
		}
		if info.IsDir {
			err = export(mem, source, target)
		} else {
			var b []byte
			if b, err = vfs.ReadFile(mem, source); err == nil {
				err = os.WriteFile(target, b, 0o600)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func TestWalk(t *testing.T) {
	todo := ofShard(t, workloads(*seedFlag))
	if *workloadFlag != "" {
		one, err := find(*workloadFlag, *seedFlag)
		if err != nil {
			t.Fatal(err)
		}
		todo = []workload{one}
	}
	for _, load := range todo {
		t.Run(load.name, func(t *testing.T) {
			t.Parallel()
			w := &walk{workload: load, t: t, scratch: scratchDir(t), images: *imagesFlag, nested: 2, row: table.row(load.name), seen: map[situation]bool{}}
			if *longFlag {
				w.images, w.nested = 0, 1
			}
			defer table.done(w.row, "walk", time.Now())
			if *boundaryFlag > 0 {
				w.only = &replayed{*boundaryFlag, *imageFlag}
			}
			if err := w.run(); err != nil {
				w.row.failed++
				t.Fatal(err)
			}
			if w.only != nil && w.row.images == 0 { // Bad numbers.
				t.Fatalf("workload %s has no image %d at boundary %d", load.name, *imageFlag, *boundaryFlag)
			}
		})
	}
}

// scratchDir is in memory where there is such a place: thousands of small files
// come and go.
func scratchDir(t *testing.T) string {
	t.Helper()
	parent := ""
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		parent = "/dev/shm"
	}
	dir, err := os.MkdirTemp(parent, "holdfast-crash-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// classOf says what a file or folder is for.
func classOf(name string) string {
	base := filepath.Base(strings.TrimSuffix(name, ".tmp"))
	switch {
	case strings.HasPrefix(base, "base.db"):
		return "base"
	case strings.HasSuffix(base, ".seg"):
		return "history"
	case strings.HasSuffix(base, ".idx"):
		return "key table"
	case strings.Contains(name, "/wal/"):
		return "wal"
	case base == "CURRENT", base == "IDENTITY":
		return base
	case strings.HasPrefix(base, "gen-"), strings.HasPrefix(base, "old-"):
		return "generation"
	case strings.Contains(base, "snapshot"), strings.HasPrefix(base, "scratch"):
		return "snapshot"
	}
	return "folder"
}

func count(counts *map[string]int, what string) {
	if *counts == nil {
		*counts = map[string]int{}
	}
	(*counts)[strings.TrimSpace(what)]++
}
