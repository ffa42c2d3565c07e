package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/raftnode/raftnodetest"
)

// disk is what a member writes to: a file system in memory that loses power,
// and real files for base.
//
// What a power cut leaves of base is decided here. bbolt's commit is two syncs,
// and base asks for the size of its file after each commit: that call is the
// commit, and takes the image of the file that a later power cut leaves. One at
// that very call leaves the image before it, that after it, or the one before
// with some pages of the one after, which is what a cut between writing pages
// and writing the meta page leaves. A name is durable once its folder is synced.
type disk struct {
	m      *Member
	chance *raftnodetest.Random
	mem    *vfstest.Mem
	root   string // Of base files, in this boot.

	base    map[string][]byte // By name below root: what is durable.
	renamed map[string][]byte // What a name stands for once its folder is synced.
	unnamed map[string]bool   // Of those, without a durable name.
	named   map[string]bool   // With one, perhaps before the first commit.
	stale   map[string][]byte // Some earlier image.

	dead      bool // The power went: nothing works until the next boot.
	crashIn   int  // Power goes at the n-th change from now; 0: not.
	crashSync bool // Counting only syncs.
	placesIn  int  // Power goes at the n-th named place from now; 0: not.
	rules     []*diskRule
	full      bool
	readOnly  bool
	slow      int64 // Factor on the time of a sync.
	injected  int   // Errors returned since the last boot.
	torn      bool  // A write may have been torn since the member last was whole.
	damaged   bool  // Something was changed behind the member's back, ever.
	inside    bool  // Our own calls.
	ops       int
}

// diskRule lets some operations fail.
type diskRule struct {
	id    string // Of the fault.
	kinds []vfstest.Kind
	class string // Of files; empty: all.
	skip  int    // Let so many pass first.
	left  int
	err   error
}

// errPower is what a process gets that does not run any more: it syncs nothing.
var errPower = &vfstest.Kept{Err: errors.New("the power is off")}

const dataDir = "data"

func newDisk(m *Member) *disk {
	d := &disk{m: m, chance: stream(m.w.cfg.Seed, "disk "+m.id.String()), mem: vfstest.NewMem(), slow: 1,
		base: map[string][]byte{}, renamed: map[string][]byte{}, unnamed: map[string]bool{}, named: map[string]bool{}, stale: map[string][]byte{}}
	d.mem.Inject(d.inject)
	return d
}

// classOf tells what a file is for.
func classOf(name string) string {
	switch {
	case strings.Contains(name, "base.db"):
		return "base"
	case strings.Contains(name, "/wal"):
		return "wal"
	case strings.Contains(name, "/history"):
		return "history"
	case strings.Contains(name, "scratch-"):
		return "scratch"
	}
	return "meta"
}

// inject is called before each operation on files in memory.
func (d *disk) inject(op vfstest.Op) error {
	if d.inside {
		return nil
	}
	d.m.w.note(uint64(d.m.id), hashText(string(op.Kind)), hashText(op.Name), uint64(op.Offset), uint64(op.Length))
	err := d.touch(op)
	generation := strings.Contains(filepath.Base(op.Name), "gen-") // Whatever it is called by now.
	if err == nil && op.Kind == vfstest.OpRemoveAll && generation {
		d.removeBase(filepath.Base(op.Name))
	}
	if err == nil && op.Kind == vfstest.OpRename && generation {
		d.moveBase(filepath.Base(op.Name), filepath.Base(op.To))
	}
	return err
}

// removeBase takes base away with its generation.
func (d *disk) removeBase(generation string) {
	for _, name := range SortedKeys(d.base) {
		if filepath.Dir(name) == generation {
			delete(d.base, name)
			delete(d.unnamed, name)
		}
	}
	if err := os.RemoveAll(filepath.Join(d.root, generation)); err != nil {
		d.m.w.fail("remove base of member %s: %v", d.m.id, err)
	}
}

// moveBase takes base along when a generation gets another name.
func (d *disk) moveBase(from, to string) {
	for _, name := range SortedKeys(d.base) {
		if filepath.Dir(name) == from {
			d.base[filepath.Join(to, filepath.Base(name))] = d.base[name]
			delete(d.base, name)
			delete(d.unnamed, name)
			delete(d.named, name)
		}
	}
	// A power cut may have taken the new name away with what had it.
	err := os.RemoveAll(filepath.Join(d.root, to))
	if err == nil {
		err = os.Rename(filepath.Join(d.root, from), filepath.Join(d.root, to))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.m.w.fail("move base of member %s: %v", d.m.id, err)
	}
}

// touch decides what becomes of an operation.
func (d *disk) touch(op vfstest.Op) error {
	if d.dead {
		return errPower
	}
	d.ops++
	sync := op.Kind == vfstest.OpSync || op.Kind == vfstest.OpSyncDir
	if d.crashIn > 0 && op.Changes() && (sync || !d.crashSync) {
		if d.crashIn--; d.crashIn == 0 {
			d.powerOff(classOf(op.Name) + " " + string(op.Kind))
			return errPower
		}
	}
	for i, r := range d.rules {
		if !slices.Contains(r.kinds, op.Kind) || r.class != "" && r.class != classOf(op.Name) {
			continue
		}
		if r.skip > 0 {
			r.skip--
			continue
		}
		if r.left--; r.left <= 0 {
			d.rules = slices.Delete(d.rules, i, i+1)
		}
		d.injected++
		d.m.w.fired(r.id)
		d.m.w.logf(d.m.id, "%s: %s of %s: %v", r.id, op.Kind, op.Name, r.err)
		return r.err
	}
	if d.readOnly && op.Changes() && op.Kind != vfstest.OpLock && !d.has(op) {
		d.injected++
		d.m.w.fired("D14")
		return syscall.EROFS
	}
	if d.full && d.grows(op) {
		d.injected++
		d.m.w.fired("D8")
		return syscall.ENOSPC
	}
	return nil
}

// has tells whether a folder that is to be made is there.
func (d *disk) has(op vfstest.Op) bool {
	if op.Kind != vfstest.OpMkdir {
		return false
	}
	d.inside = true
	defer func() { d.inside = false }()
	_, err := d.mem.Stat(op.Name)
	return err == nil
}

// grows tells whether an operation takes space.
func (d *disk) grows(op vfstest.Op) bool {
	switch op.Kind {
	case vfstest.OpCreate:
		return true
	case vfstest.OpMkdir:
		return !d.has(op)
	case vfstest.OpWrite, vfstest.OpAllocate:
		d.inside = true
		info, err := d.mem.Stat(op.Name)
		d.inside = false
		end := op.Length
		if op.Kind == vfstest.OpWrite {
			end += op.Offset
		}
		return err == nil && end > info.Size
	}
	return false
}

// dice are random numbers for what takes them in that form.
func (d *disk) dice() *rand.Rand { return rand.New(rand.NewPCG(d.chance.Next(), d.chance.Next())) }

// imageFaults are the faults that images of a power cut stand for.
var imageFaults = map[vfstest.Image]string{
	vfstest.Nothing: "D1", vfstest.Torn: "D2", vfstest.Random: "D3", vfstest.Prefix: "D3",
	vfstest.NoNames: "D4", vfstest.NoData: "D1", vfstest.Newest: "D3",
}

// wholeImages tear no write. A member whose log lost its tail and another that
// is lost are more than a cluster of three recovers from by itself.
var wholeImages = []vfstest.Image{vfstest.Nothing, vfstest.Everything, vfstest.Prefix, vfstest.NoNames}

// powerOff takes the image that a power cut at this moment leaves.
func (d *disk) powerOff(point string) {
	if d.dead {
		return
	}
	w := d.m.w
	images := vfstest.Images
	if w.lost(d.m) > 0 && !w.cfg.Beyond {
		images = wholeImages
	}
	image := images[d.chance.Below(len(images))]
	d.torn = d.torn || image == vfstest.Torn || image == vfstest.Random || image == vfstest.Newest
	pending := d.mem.Pending()
	if pending > 0 {
		if id := imageFaults[image]; id != "" {
			w.fired(id)
		}
	}
	d.dead, d.crashIn, d.placesIn = true, 0, 0
	d.mem = d.mem.Crash(vfstest.Crash{Image: image, Keep: -1, Rand: d.dice()})
	for name := range d.unnamed { //tidy:ordered each by itself, and there is one at most
		if d.chance.Chance(50) {
			delete(d.base, name)
			w.fired("D4")
		}
	}
	clear(d.unnamed)
	clear(d.named)
	w.count.Crashes[point]++
	w.note(uint64(d.m.id), hashText(point), uint64(image))
	w.logf(d.m.id, "loses power at %s, keeps %s of %d pending changes", point, image, pending)
}

// kill ends the process that uses the disk, and nothing more: what it wrote is
// in the cache of the machine.
func (d *disk) kill() { d.dead, d.crashIn, d.placesIn = true, 0, 0 }

// boot makes the disk usable again. Errors that a machine shows until it is
// started again are over.
func (d *disk) boot() error {
	d.m.w.dirs++
	root := filepath.Join(d.m.w.root, d.m.id.String()+"."+itoa(d.m.w.dirs))
	if d.root != "" {
		if err := os.RemoveAll(d.root); err != nil {
			return err
		}
	}
	d.root = root
	d.dead, d.injected, d.rules = false, 0, nil
	clear(d.renamed)
	d.inside = true
	defer func() { d.inside = false }()
	for _, name := range SortedKeys(d.base) {
		if _, err := d.mem.Stat(filepath.Join(dataDir, filepath.Dir(name))); err != nil {
			delete(d.base, name) // Its folder is not there, or has another name.
			continue
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, name), d.base[name], 0o600); err != nil {
			return err
		}
	}
	d.mem.Inject(d.inject)
	return nil
}

// baseFS is the file system of base.
type baseFS struct {
	vfs.FS
	d *disk
}

func (b *baseFS) name(path string) string {
	rel, err := filepath.Rel(b.d.root, path)
	if err != nil {
		return path
	}
	return rel
}

// op treats a call like one on the memory.
func (b *baseFS) op(kind vfstest.Kind, path string) error {
	name := b.name(path)
	b.d.m.w.note(uint64(b.d.m.id), hashText(string(kind)), hashText(name))
	if err := b.d.touch(vfstest.Op{Kind: kind, Name: name}); err != nil {
		return &fs.PathError{Op: string(kind), Path: path, Err: err}
	}
	return nil
}

// Stat implements vfs.FS. After a commit it is the second sync of it.
func (b *baseFS) Stat(path string) (vfs.Info, error) {
	d, name := b.d, b.name(path)
	if d.dead {
		return vfs.Info{}, errPower
	}
	data, err := os.ReadFile(path)
	old := d.base[name]
	if err != nil || bytes.Equal(data, old) {
		if err := b.op(vfstest.OpStat, path); err != nil {
			return vfs.Info{}, err
		}
		return b.FS.Stat(path)
	}
	if err := b.op(vfstest.OpSync, path); err != nil { // Anything may have reached the disk.
		if d.chance.Chance(50) {
			d.base[name] = d.between(old, data)
		} else {
			d.base[name] = data
		}
		return vfs.Info{}, err
	}
	if old == nil && !d.named[name] {
		d.unnamed[name] = true
	} else if d.inForce(name) && (d.stale[name] == nil || d.chance.Chance(20)) {
		d.stale[name] = old
	}
	d.base[name] = data
	return b.FS.Stat(path)
}

// inForce reports whether a base file is complete and used: nobody has a copy of
// one that is being made.
func (d *disk) inForce(name string) bool {
	var generation int
	if _, err := fmt.Sscanf(name, "gen-%d/", &generation); err != nil || !d.m.alive {
		return false
	}
	_, yes := d.m.replica.Note(generation, mvcc.Checkpoint{})
	return yes
}

// between is a file while pages of a commit are being written.
func (d *disk) between(old, data []byte) []byte {
	if len(old) < 4*pageBytes {
		return old
	}
	mixed := bytes.Clone(old)
	for at := 2 * pageBytes; at+pageBytes <= len(data); at += pageBytes {
		if d.chance.Chance(50) {
			if len(mixed) < at+pageBytes {
				mixed = append(mixed, make([]byte, at+pageBytes-len(mixed))...)
			}
			copy(mixed[at:], data[at:at+pageBytes])
		}
	}
	return mixed
}

// SyncDir implements vfs.FS.
func (b *baseFS) SyncDir(dir string) error {
	if err := b.op(vfstest.OpSyncDir, dir); err != nil {
		return err
	}
	names, err := b.FS.List(dir)
	for _, name := range names {
		name = filepath.Join(b.name(dir), name)
		if data, ok := b.d.renamed[name]; ok && err == nil {
			b.d.base[name] = data
			delete(b.d.renamed, name)
		}
		b.d.named[name] = true
		delete(b.d.unnamed, name)
	}
	return err
}

// Rename implements vfs.FS. The new file was synced before.
func (b *baseFS) Rename(from, to string) error {
	if err := b.op(vfstest.OpRename, from); err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := b.FS.Rename(from, to); err != nil {
		return err
	}
	if b.d.chance.Chance(50) { // At once, or when the folder is synced.
		b.d.base[b.name(to)] = data
	} else {
		b.d.renamed[b.name(to)] = data
	}
	delete(b.d.base, b.name(from))
	return nil
}

// Remove implements vfs.FS.
func (b *baseFS) Remove(path string) error {
	if err := b.op(vfstest.OpRemove, path); err != nil {
		return err
	}
	delete(b.d.base, b.name(path))
	return b.FS.Remove(path)
}

// Open implements vfs.FS.
func (b *baseFS) Open(path string) (vfs.File, error) {
	if err := b.op(vfstest.OpOpen, path); err != nil {
		return nil, err
	}
	return b.FS.Open(path)
}
