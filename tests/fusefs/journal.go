//go:build linux

package fusefs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

const sectorBytes = 512 // A disk writes a sector whole or not at all.

// journal knows how to undo what no sync has covered.
type journal struct {
	serial uint64 // Orders changes over all files and folders.
	files  map[uint64]*fileLog
	names  []nameChange
	dirs   map[uint64]*os.File // Folders with pending names: good wherever they are now.
	last   struct {            // The newest write, for one that is torn.
		ino, serial uint64
		offset      int64
		length      int64
	}
}

// fileLog is the past of one file, by inode: names may change.
type fileLog struct {
	file    *os.File
	sectors map[int64][]version
	sizes   []sizeVersion
}

// version is what a sector held before one write.
type version struct {
	serial uint64
	before []byte // Nil: zeroes.
	lost   bool   // A sync failed: this write never reaches the disk.
}

type sizeVersion struct {
	serial uint64
	before int64
	lost   bool
}

// nameChange is a name given or taken. The halves of a rename have one serial.
type nameChange struct {
	serial        uint64
	dir           uint64
	name          string
	before, after uint64 // Inodes. 0: no such name.
	lost          bool
}

// place is a name in a folder.
type place struct {
	dir  uint64
	name string
}

func (j *journal) reset() {
	j.close()
	j.files, j.dirs, j.names = make(map[uint64]*fileLog), make(map[uint64]*os.File), nil
}

func (j *journal) close() {
	for _, f := range j.files {
		f.file.Close()
	}
	for _, d := range j.dirs {
		d.Close()
	}
}

func (j *journal) next() uint64 {
	j.serial++
	return j.serial
}

// serials are those of all pending changes, in order.
func (j *journal) serials() []uint64 {
	var all []uint64
	for _, c := range j.names {
		all = append(all, c.serial)
	}
	for _, f := range j.files {
		for _, s := range f.sizes {
			all = append(all, s.serial)
		}
		for _, versions := range f.sectors {
			for _, v := range versions {
				all = append(all, v.serial)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// log returns the past of a file, kept open by a descriptor of our own.
func (j *journal) log(file *os.File) (*fileLog, uint64, error) {
	ino, err := inodeOf(file)
	if err != nil {
		return nil, 0, err
	}
	if l := j.files[ino]; l != nil {
		return l, ino, nil
	}
	own, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", file.Fd()), os.O_RDWR, 0)
	if err != nil {
		return nil, 0, err
	}
	l := &fileLog{file: own, sectors: make(map[int64][]version)}
	j.files[ino] = l
	return l, ino, nil
}

// writing notes what a write is about to cover.
func (j *journal) writing(file *os.File, offset, length int64) error {
	l, ino, err := j.log(file)
	if err != nil {
		return err
	}
	serial := j.next()
	size, err := l.keep(serial, offset, offset+length)
	if err != nil {
		return err
	}
	if offset+length > size {
		l.sizes = append(l.sizes, sizeVersion{serial: serial, before: size})
	}
	j.last.ino, j.last.serial, j.last.offset, j.last.length = ino, serial, offset, length
	return nil
}

// resizing notes what a new size is about to cut off.
func (j *journal) resizing(file *os.File, to int64) error {
	l, _, err := j.log(file)
	if err != nil {
		return err
	}
	serial := j.next()
	size, err := l.keep(serial, to, to)
	if err != nil {
		return err
	}
	if to < size {
		if _, err := l.keep(serial, to, size); err != nil {
			return err
		}
	}
	if to != size {
		l.sizes = append(l.sizes, sizeVersion{serial: serial, before: size})
	}
	return nil
}

// keep saves the sectors in [from, to) and returns the size of the file.
func (l *fileLog) keep(serial uint64, from, to int64) (int64, error) {
	st, err := l.file.Stat()
	if err != nil || from == to {
		return st.Size(), err
	}
	first, last := from/sectorBytes, (to-1)/sectorBytes
	held := make([]byte, (last-first+1)*sectorBytes) // Zeroes beyond the end.
	if first*sectorBytes < st.Size() {
		if n, err := l.file.ReadAt(held, first*sectorBytes); n == 0 && err != nil {
			return 0, err
		}
	}
	for i := first; i <= last; i++ {
		sector := held[(i-first)*sectorBytes:][:sectorBytes]
		v := version{serial: serial}
		if !allZero(sector) {
			v.before = slices.Clone(sector)
		}
		l.sectors[i] = append(l.sectors[i], v)
	}
	return st.Size(), nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// syncData forgets the past that a sync covered. A failed one decides the
// other way: what it should have covered is lost, whatever comes later.
func (j *journal) syncData(ino, upTo uint64, ok bool) {
	l := j.files[ino]
	if l == nil {
		return
	}
	for i, versions := range l.sectors {
		if versions = settle(versions, upTo, ok); len(versions) == 0 {
			delete(l.sectors, i)
		} else {
			l.sectors[i] = versions
		}
	}
	l.sizes = settle(l.sizes, upTo, ok)
	if len(l.sectors) == 0 && len(l.sizes) == 0 {
		l.file.Close()
		delete(j.files, ino)
	}
}

type settled[T any] interface {
	*T
	covered(upTo uint64) bool
	isLost() bool
	lose()
}

func (v *version) covered(upTo uint64) bool     { return v.serial <= upTo }
func (v *version) isLost() bool                 { return v.lost }
func (v *version) lose()                        { v.lost = true }
func (s *sizeVersion) covered(upTo uint64) bool { return s.serial <= upTo }
func (s *sizeVersion) isLost() bool             { return s.lost }
func (s *sizeVersion) lose()                    { s.lost = true }

// settle drops everything up to the newest change that a good sync covered, or
// marks as lost what a failed one did.
func settle[T any, P settled[T]](versions []T, upTo uint64, ok bool) []T {
	through := 0
	for i := range versions {
		v := P(&versions[i])
		switch {
		case !v.covered(upTo):
		case !ok:
			v.lose()
		case !v.isLost():
			through = i + 1
		}
	}
	return versions[through:]
}

// flip keeps a bit that turned over in whatever a power cut puts back.
func (j *journal) flip(ino uint64, offset int64, bit uint) {
	l := j.files[ino]
	if l == nil {
		return
	}
	versions := l.sectors[offset/sectorBytes]
	for i := range versions {
		if versions[i].before == nil {
			versions[i].before = make([]byte, sectorBytes)
		}
		versions[i].before[offset%sectorBytes] ^= 1 << (bit % 8)
	}
}

// folder opens the folder of a pending name, so that it is found when it moved.
func (j *journal) folder(path string) (uint64, error) {
	ino, _, err := inodeAt(path)
	if err != nil || j.dirs[ino] != nil {
		return ino, err
	}
	d, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	j.dirs[ino] = d
	return ino, nil
}

// made notes a name that was just given to something new.
func (j *journal) made(dir, name string) error {
	at, err := j.folder(dir)
	if err != nil {
		return err
	}
	ino, _, err := inodeAt(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	j.names = append(j.names, nameChange{serial: j.next(), dir: at, name: name, after: ino})
	return nil
}

func stashed(stash string, ino uint64) string {
	return filepath.Join(stash, strconv.FormatUint(ino, 10))
}

// remove moves what has the name into the stash.
func (j *journal) remove(dir, name, stash string) error {
	at, err := j.folder(dir)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	ino, _, err := inodeAt(path)
	if err != nil {
		return err
	}
	if err := os.Rename(path, stashed(stash, ino)); err != nil {
		return err
	}
	j.names = append(j.names, nameChange{serial: j.next(), dir: at, name: name, before: ino})
	return nil
}

// rename keeps what it replaces in the stash.
func (j *journal) rename(dir, name, toDir, toName, stash string) error {
	from, err := j.folder(dir)
	if err != nil {
		return err
	}
	to, err := j.folder(toDir)
	if err != nil {
		return err
	}
	path, toPath := filepath.Join(dir, name), filepath.Join(toDir, toName)
	ino, _, err := inodeAt(path)
	if err != nil {
		return err
	}
	over, isDir, err := inodeAt(toPath)
	switch {
	case err != nil:
		over = 0
	case over == ino:
		return nil
	case !isDir: // A second name, so that the place is never empty.
		if err := os.Link(toPath, stashed(stash, over)); err != nil {
			return err
		}
	}
	if err := os.Rename(path, toPath); err != nil {
		if over != 0 && !isDir {
			os.Remove(stashed(stash, over))
		}
		return err
	}
	if over != 0 && isDir { // It was empty. Its name is all there was.
		over = 0
	}
	serial := j.next()
	j.names = append(j.names,
		nameChange{serial: serial, dir: to, name: toName, before: over, after: ino},
		nameChange{serial: serial, dir: from, name: name, before: ino})
	return nil
}

// syncNames settles the names of one folder, and empties the stash of what no
// power cut can bring back any more.
func (j *journal) syncNames(dir, upTo uint64, ok bool, stash string) {
	durable := make(map[place]uint64) // Up to which serial.
	for i := range j.names {
		c := &j.names[i]
		switch {
		case c.dir != dir || c.serial > upTo:
		case !ok:
			c.lost = true
		case !c.lost:
			durable[place{c.dir, c.name}] = c.serial
		}
	}
	j.names = slices.DeleteFunc(j.names, func(c nameChange) bool {
		return c.serial <= durable[place{c.dir, c.name}]
	})
	j.emptyStash(stash)
}

func (j *journal) emptyStash(stash string) {
	for again := true; again; {
		again = false
		wanted := make(map[uint64]bool)
		for _, c := range j.names {
			wanted[c.before] = true
		}
		entries, err := os.ReadDir(stash)
		if err != nil {
			return // It is scratch; what stays costs space only.
		}
		for _, e := range entries {
			ino, err := strconv.ParseUint(e.Name(), 10, 64)
			if err != nil || wanted[ino] {
				continue
			}
			os.RemoveAll(filepath.Join(stash, e.Name()))
			j.forget(ino)
			again = true
		}
	}
}

// forget drops the past of a file or folder that is gone for good.
func (j *journal) forget(ino uint64) {
	if l := j.files[ino]; l != nil {
		var st unix.Stat_t
		if unix.Fstat(int(l.file.Fd()), &st) == nil && st.Nlink > 0 {
			return // It has another name still.
		}
		l.file.Close()
		delete(j.files, ino)
	}
	if d := j.dirs[ino]; d != nil {
		d.Close()
		delete(j.dirs, ino)
		j.names = slices.DeleteFunc(j.names, func(c nameChange) bool { return c.dir == ino })
	}
}
