package sim

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

func itoa(n int) string { return strconv.Itoa(n) }

// SortedKeys are the keys of a map in order.
func SortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// target is a file that can be damaged.
type target struct {
	name string
	base bool
	size int64
}

// targets are all files with contents, of a class or of all.
func (d *disk) targets(class string) (list []target) {
	var walk func(dir string)
	walk = func(dir string) {
		names, err := d.mem.List(dir)
		if err != nil {
			return
		}
		for _, base := range names {
			name := filepath.Join(dir, base)
			info, err := d.mem.Stat(name)
			switch {
			case err != nil:
			case info.IsDir:
				walk(name)
			case info.Size > 0 && base != "LOCK" && (class == "" || class == classOf(name)):
				list = append(list, target{name: name, size: info.Size})
			}
		}
	}
	d.inside = true
	walk(dataDir)
	d.inside = false
	if class == "" || class == "base" {
		for _, name := range SortedKeys(d.base) {
			if size := int64(len(pagesInOrder(d.base[name])) * pageBytes); size > 0 {
				list = append(list, target{name: name, base: true, size: size})
			}
		}
	}
	return list
}

// edit changes the bytes of a file on a disk that is not in use.
func (d *disk) edit(t target, change func([]byte) []byte) error {
	if t.base {
		d.base[t.name] = inOrder(d.base[t.name], change)
		return nil
	}
	d.inside = true
	defer func() { d.inside = false }()
	data, err := vfs.ReadFile(d.mem, t.name)
	if err != nil {
		return err
	}
	data = change(data)
	f, err := d.mem.OpenWrite(t.name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(int64(len(data))); err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	return f.SyncData()
}

// damage does harm to one file of a member that is down. It reports what it
// did; nothing when there is no such file.
func (d *disk) damage(id, class string) (string, error) {
	list := d.targets(class)
	if len(list) == 0 {
		return "", nil
	}
	t := list[d.chance.Below(len(list))]
	at := int(d.chance.Next() % uint64(t.size))
	what := fmt.Sprintf("%s at %d of %d", t.name, at, t.size)
	var change func([]byte) []byte
	switch id {
	case "D10":
		bit := byte(1) << d.chance.Below(8)
		change = func(b []byte) []byte { b[at] ^= bit; return b }
	case "D11":
		page, fill := at/pageBytes*pageBytes, byte(d.chance.Below(2)*0xa5)
		change = func(b []byte) []byte {
			for i := page; i < min(page+pageBytes, len(b)); i++ {
				b[i] = fill
			}
			return b
		}
	case "D12": // A sector was written somewhere else.
		const sector = 512
		from, to := at/sector*sector, int(d.chance.Next()%uint64(t.size))/sector*sector
		change = func(b []byte) []byte {
			copy(b[to:min(to+sector, len(b))], bytes.Clone(b[from:min(from+sector, len(b))]))
			return b
		}
	case "D13":
		if !t.base || d.stale[t.name] == nil {
			return "", nil
		}
		d.base[t.name] = bytes.Clone(d.stale[t.name])
		change = func(b []byte) []byte { return b }
	case "D15":
		change = func(b []byte) []byte { return b[:at] }
	}
	d.damaged = true
	return what, d.edit(t, change)
}

// wipe takes everything away.
func (d *disk) wipe() {
	fresh := newDisk(d.m)
	d.mem, d.base, d.stale = fresh.mem, map[string][]byte{}, map[string][]byte{}
	clear(d.unnamed)
	d.damaged = true
}
