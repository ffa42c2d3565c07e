//go:build linux

package fusefs

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

// PowerOff is the moment of a power cut: from now on no change and no sync
// succeeds, also none that waits. It comes only while at least so many changes
// are pending, and tells whether it did. The processes that use the files are
// to be killed then; what PowerCut leaves is as of this moment.
func (f *FS) PowerOff(pendingMin int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off = f.off || len(f.journal.serials()) >= pendingMin
	return f.off
}

// DropUnsynced leaves what was synced and nothing else, as the harshest power
// cut does. Whoever uses the files has ended before.
func (f *FS) DropUnsynced() error { return f.PowerCut(vfstest.Nothing, 0) }

// PowerCut leaves what was synced, and the part of the rest that the image
// names; seed chooses where the image leaves a choice. The file system is
// mounted anew. Whoever uses the files has ended before.
func (f *FS) PowerCut(image vfstest.Image, seed uint64) error {
	if err := f.detach(); err != nil {
		return err
	}
	f.mu.Lock()
	f.counters["power cut"]++
	f.off = false
	err := f.journal.cut(image, rand.New(rand.NewPCG(seed, 1)), f.stash)
	f.mu.Unlock()
	if err != nil {
		return fmt.Errorf("power cut of %s, image %s, seed %d: %w", f.backing, image, seed, err)
	}
	return f.mount()
}

// cut decides, once for each change, whether it reached the disk.
type cut struct {
	image vfstest.Image
	rnd   *rand.Rand
	upTo  uint64 // For Prefix.
}

func (j *journal) cut(image vfstest.Image, rnd *rand.Rand, stash string) error {
	c := cut{image: image, rnd: rnd}
	if serials := j.serials(); image == vfstest.Prefix && len(serials) > 0 {
		if keep := rnd.IntN(len(serials) + 1); keep > 0 {
			c.upTo = serials[keep-1]
		}
	}
	for _, ino := range slices.Sorted(maps.Keys(j.files)) {
		if err := c.restoreFile(j.files[ino]); err != nil {
			return err
		}
	}
	if image == vfstest.Torn {
		if err := j.tear(rnd); err != nil {
			return err
		}
	}
	if err := c.restoreNames(j, stash); err != nil {
		return err
	}
	j.reset()
	return errors.Join(os.RemoveAll(stash), os.Mkdir(stash, 0o700))
}

// restoreFile picks a version of the size and of each sector.
func (c *cut) restoreFile(l *fileLog) error {
	st, err := l.file.Stat()
	if err != nil {
		return err
	}
	size := st.Size()
	if i := pick(c, l.sizes); i < len(l.sizes) {
		size = l.sizes[i].before
	}
	if err := l.file.Truncate(size); err != nil {
		return err
	}
	for _, at := range slices.Sorted(maps.Keys(l.sectors)) {
		versions := l.sectors[at]
		i := pick(c, versions)
		if i == len(versions) || at*sectorBytes >= size {
			continue
		}
		b := make([]byte, sectorBytes)
		copy(b, versions[i].before)
		if _, err := l.file.WriteAt(b[:min(sectorBytes, size-at*sectorBytes)], at*sectorBytes); err != nil {
			return err
		}
	}
	return nil
}

// pick returns which version survives: the state before the change of that
// number, or after the last.
func pick[T any, P settled[T]](c *cut, versions []T) int {
	// A failed sync lost what is newest, whatever the power cut would leave.
	end := len(versions)
	for end > 0 && P(&versions[end-1]).isLost() {
		end--
	}
	if end < len(versions) && c.image != vfstest.Random {
		versions = versions[:end]
	}
	switch c.image {
	case vfstest.Everything, vfstest.Torn, vfstest.NoNames:
		return end
	case vfstest.Prefix:
		for i := range versions {
			if !P(&versions[i]).covered(c.upTo) {
				return i
			}
		}
		return end
	case vfstest.Random:
		return c.rnd.IntN(end + 1)
	default:
		return 0
	}
}

// tear puts the end of the newest write back.
func (j *journal) tear(rnd *rand.Rand) error {
	l := j.files[j.last.ino]
	if l == nil || j.last.length == 0 {
		return nil
	}
	st, err := l.file.Stat()
	if err != nil {
		return err
	}
	from, to := j.last.offset+rnd.Int64N(j.last.length), j.last.offset+j.last.length
	for at := from / sectorBytes; at*sectorBytes < to; at++ {
		for _, v := range l.sectors[at] {
			if v.serial != j.last.serial {
				continue
			}
			b := make([]byte, sectorBytes)
			copy(b, v.before)
			low, high := max(from, at*sectorBytes), min(to, (at+1)*sectorBytes, st.Size())
			if low >= high {
				continue
			}
			if _, err := l.file.WriteAt(b[low-at*sectorBytes:high-at*sectorBytes], low); err != nil {
				return err
			}
		}
	}
	return nil
}

// restoreNames makes the folders hold what was durable and what survives.
func (c *cut) restoreNames(j *journal, stash string) error {
	wanted := make(map[place]uint64)
	for _, n := range slices.Backward(j.names) {
		wanted[place{n.dir, n.name}] = n.before
	}
	verdicts := make(map[uint64]bool)
	for _, n := range j.names {
		if c.keepsName(n, verdicts) {
			wanted[place{n.dir, n.name}] = n.after
		}
	}
	places := slices.SortedFunc(maps.Keys(wanted), func(a, b place) int {
		return cmp.Or(cmp.Compare(a.dir, b.dir), cmp.Compare(a.name, b.name))
	})
	for _, p := range places {
		if err := j.intoStash(p, stash); err != nil {
			return err
		}
	}
	for _, p := range places {
		if ino := wanted[p]; ino != 0 {
			if err := j.outOfStash(p, ino, stash); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *cut) keepsName(n nameChange, verdicts map[uint64]bool) bool {
	if n.lost {
		return false
	}
	switch c.image {
	case vfstest.Everything, vfstest.Torn, vfstest.NoData:
		return true
	case vfstest.Prefix:
		return n.serial <= c.upTo
	case vfstest.Random:
		keep, known := verdicts[n.serial]
		if !known {
			keep = c.rnd.IntN(2) == 0
			verdicts[n.serial] = keep
		}
		return keep
	default:
		return false
	}
}

func (j *journal) intoStash(p place, stash string) error {
	dir := int(j.dirs[p.dir].Fd())
	var st unix.Stat_t
	if err := unix.Fstatat(dir, p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return ignore(err, unix.ENOENT)
	}
	to := stashed(stash, st.Ino)
	if _, _, err := inodeAt(to); err == nil {
		return unix.Unlinkat(dir, p.name, 0) // It lies there already, by another name.
	}
	return unix.Renameat(dir, p.name, unix.AT_FDCWD, to)
}

func (j *journal) outOfStash(p place, ino uint64, stash string) error {
	from := stashed(stash, ino)
	_, isDir, err := inodeAt(from)
	if err != nil {
		return ignore(err, unix.ENOENT) // Only half of a rename was durable, and the other name won.
	}
	dir := int(j.dirs[p.dir].Fd())
	if isDir {
		return unix.Renameat(unix.AT_FDCWD, from, dir, p.name)
	}
	return unix.Linkat(unix.AT_FDCWD, from, dir, p.name, 0)
}

func ignore(err error, which error) error {
	if errors.Is(err, which) {
		return nil
	}
	return err
}
