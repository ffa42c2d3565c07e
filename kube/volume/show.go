package volume

import (
	"bytes"
	"crypto/rand"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// dataName is the link to the state that is shown.
const dataName = "..data"

// show has a volume show a content, and makes the volume if it is not there.
func (v *Volumes) show(volumes *folder, volume *corev1.Volume, c content, group int) error {
	mode := uint32(0o755)
	if group >= 0 {
		mode |= unix.S_ISGID
		c = c.forGroup()
	}
	if err := volumes.complete(volume.Name, mode, group); err != nil {
		return err
	}
	if n := secretSources(&volume.VolumeSource); n > 0 && v.cfg.Mounts {
		if err := volumes.memory(volume.Name, mode, group, int64(n)*secretBytesMax, true); err != nil {
			return err
		}
	}
	dir, err := volumes.openMounted(volume.Name)
	if err != nil {
		return err
	}
	defer dir.close()
	return dir.swap(v.cfg.Clock.Wall(), c, group)
}

// forGroup lets the group read what the owner may read.
func (c content) forGroup() content {
	shared := make(content, len(c))
	for name, f := range c {
		f.mode |= 0o440
		shared[name] = f
	}
	return shared
}

// swap replaces what a folder shows. Before the link ..data is renamed, all is as it
// was; after, all is new: the links of names only come and go with the names. What a
// crash left is removed last.
func (f *folder) swap(now time.Time, c content, group int) error {
	shown, err := f.state(now, c, group)
	if err != nil {
		return err
	}
	tops := map[string]bool{}
	for name := range c {
		top, _, _ := strings.Cut(name, "/")
		tops[top] = true
	}
	for _, top := range slices.Sorted(maps.Keys(tops)) {
		if err := f.link(dataName+"/"+top, top); err != nil {
			return err
		}
	}
	names, err := f.all()
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == dataName || name == shown || tops[name] {
			continue
		}
		if err := f.removeTree(name); err != nil {
			return err
		}
	}
	return nil
}

// state returns the name of the state that is shown, which is a new one unless the one
// that is there holds the content.
func (f *folder) state(now time.Time, c content, group int) (string, error) {
	shown, err := f.readLink(dataName)
	if err != nil || single(shown) && f.shows(shown, c, group) {
		return shown, err
	}
	var random [4]byte
	_, _ = rand.Read(random[:]) // It never fails.
	shown = stamped(now, random[:])
	if err := f.writeAll(shown, c, group); err != nil {
		return "", err
	}
	return shown, f.link(shown, dataName)
}

// writeAll writes a content into a new folder.
func (f *folder) writeAll(name string, c content, group int) error {
	mode := uint32(0o755)
	if group >= 0 {
		mode |= unix.S_ISGID
	}
	if err := f.mkdir(name, 0o700); err != nil {
		return err
	}
	dir, err := f.open(name)
	if err != nil {
		return err
	}
	defer dir.close()
	if err := own(f, dir.fd, name, mode, group); err != nil {
		return err
	}
	for _, p := range slices.Sorted(maps.Keys(c)) {
		if err := dir.writeAt(p, c[p], mode, group); err != nil {
			return err
		}
	}
	return nil
}

// writeAt writes a file at a path, and its folders.
func (f *folder) writeAt(p string, is file, mode uint32, group int) error {
	top, rest, below := strings.Cut(p, "/")
	if !below {
		return f.write(p, is.data, is.mode, group)
	}
	if err := f.mkdir(top, 0o700); err != nil {
		return err
	}
	dir, err := f.open(top)
	if err != nil {
		return err
	}
	defer dir.close()
	if err := own(f, dir.fd, top, mode, group); err != nil {
		return err
	}
	return dir.writeAt(rest, is, mode, group)
}

// shows tells whether a folder holds a content, whole and nothing else. When in doubt
// it does not.
func (f *folder) shows(name string, c content, group int) bool {
	dir, err := f.open(name)
	if err != nil {
		return false
	}
	defer dir.close()
	left := maps.Clone(c)
	return dir.matches("", left, group) && len(left) == 0
}

// matches takes the files of a folder out of left. It is false if one is not in it, or
// not so.
func (f *folder) matches(prefix string, left content, group int) bool {
	names, err := f.all()
	if err != nil {
		return false
	}
	for _, name := range names {
		s, err := f.stat(name)
		if err != nil || s == nil || group >= 0 && int(s.Gid) != group {
			return false
		}
		if s.Mode&unix.S_IFMT == unix.S_IFDIR {
			if !f.matchesBelow(prefix, name, left, group) {
				return false
			}
			continue
		}
		at := path.Join(prefix, name)
		want, there := left[at]
		if !there || s.Mode&unix.S_IFMT != unix.S_IFREG || s.Mode&0o7777 != want.mode || s.Size != int64(len(want.data)) {
			return false
		}
		data, err := f.read(name, s.Size+1)
		if err != nil || !bytes.Equal(data, want.data) {
			return false
		}
		delete(left, at)
	}
	return true
}

func (f *folder) matchesBelow(prefix, name string, left content, group int) bool {
	dir, err := f.open(name)
	if err != nil {
		return false
	}
	defer dir.close()
	return dir.matches(path.Join(prefix, name), left, group)
}
