package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/api"
)

// Folder is where checkpoints lie. Different pods may be written at the same time;
// one pod, the node and the history by one caller at a time.
type Folder struct {
	fs  vfs.FS
	dir string
}

// Open makes the folder if it is not there.
func Open(fsys vfs.FS, dir string) (*Folder, error) {
	if err := vfs.MakeFolder(fsys, dir); err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	return &Folder{fsys, dir}, nil
}

// Saved is what a folder holds.
type Saved struct {
	Node    *corev1.Node  // Nil: none, or it is damaged.
	Pods    []*corev1.Pod // By uid, without resource versions.
	History uint64        // 0: none.
	Damaged []Damage
	Lost    []types.UID // Pods of which no file can be read. They may run.
}

// Damage is a file that cannot be read.
type Damage struct {
	File string
	Pod  types.UID // Whose it is. Empty: of none.
	Err  error
}

// Load reads all files, removes what a crash left half written, and puts those aside
// that cannot be read, so that nothing is written over them.
func (f *Folder) Load() (*Saved, error) {
	names, err := f.fs.List(f.dir)
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".tmp") {
			if err := f.fs.Remove(filepath.Join(f.dir, name)); err != nil {
				return nil, fmt.Errorf("checkpoints: %w", err)
			}
		}
	}
	s, err := Read(f.fs, f.dir)
	if err != nil {
		return nil, err
	}
	return s, f.putAside(s)
}

// putAside renames what cannot be read. One that was put aside before, of the same name,
// is of an older version and goes.
func (f *Folder) putAside(s *Saved) error {
	for i := range s.Damaged {
		d := &s.Damaged[i]
		if strings.HasSuffix(d.File, damagedSuffix) {
			continue
		}
		to := d.File + damagedSuffix
		err := f.fs.Rename(d.File, to)
		if err == nil {
			err = f.fs.SyncDir(f.dir)
		}
		if err != nil {
			return fmt.Errorf("checkpoints: %s cannot be read (%w), nor put aside: %w", d.File, d.Err, err)
		}
		d.File = to
	}
	seen := map[string]bool{}
	s.Damaged = slices.DeleteFunc(s.Damaged, func(d Damage) bool {
		again := seen[d.File]
		seen[d.File] = true
		return again
	})
	return nil
}

// Read is Load that changes nothing.
func Read(fsys vfs.FS, dir string) (*Saved, error) {
	f := &Folder{fsys, dir}
	names, err := fsys.List(dir)
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	s, uids := &Saved{}, map[string]bool{}
	for _, name := range names {
		if uid, ok := uidOf(name); ok {
			uids[uid] = true
		} else if name == nodeName || name == historyName {
			s.tried(f, name, "", f.load(s, name))
		}
	}
	for _, uid := range slices.Sorted(maps.Keys(uids)) {
		if !f.loadPod(s, uid, names) {
			s.Lost = append(s.Lost, types.UID(uid))
		}
	}
	return s, nil
}

// loadPod takes the best file of a pod that can be read.
func (f *Folder) loadPod(s *Saved, uid string, names []string) bool {
	for _, suffix := range podSuffixes {
		name := podPrefix + uid + suffix
		if _, there := slices.BinarySearch(names, name); there && s.tried(f, name, uid, f.load(s, name)) {
			return true
		}
	}
	return false
}

// tried notes that a file could not be read, if so.
func (s *Saved) tried(f *Folder, name, uid string, err error) bool {
	if err != nil {
		s.Damaged = append(s.Damaged, Damage{filepath.Join(f.dir, name), types.UID(uid), err})
	}
	return err == nil
}

func (f *Folder) load(s *Saved, name string) error {
	b, err := vfs.ReadFile(f.fs, filepath.Join(f.dir, name))
	if err != nil {
		return err
	}
	kind, payload, err := Decode(b)
	if err != nil {
		return err
	}
	uid, isPod := uidOf(name)
	switch {
	case isPod && kind == Pod:
		return s.addPod(uid, payload)
	case name == nodeName && kind == Node:
		o, err := api.Decode(api.Node, payload, 0)
		if err != nil {
			return err
		}
		s.Node = o.(*corev1.Node)
		s.Node.ResourceVersion = ""
	case name == historyName && kind == History && len(payload) == 8:
		s.History = binary.LittleEndian.Uint64(payload)
	default:
		return fmt.Errorf("it holds a %v of %d bytes: %w", kind, len(payload), ErrDamaged)
	}
	return nil
}

func (s *Saved) addPod(uid string, payload []byte) error {
	o, err := api.Decode(api.Pod, payload, 0)
	if err != nil {
		return err
	}
	pod := o.(*corev1.Pod)
	if string(pod.UID) != uid {
		return fmt.Errorf("it holds the pod of uid %s: %w", pod.UID, ErrDamaged)
	}
	pod.ResourceVersion = ""
	s.Pods = append(s.Pods, pod)
	return nil
}

// PutPod writes a pod, in place of what was there of it. That stays beside it, one
// version long: should the disk lose the newest, as disks do at a power cut, it tells
// what the pod is.
func (f *Folder) PutPod(pod *corev1.Pod) error {
	name := podPrefix + string(pod.UID)
	err := f.fs.Rename(filepath.Join(f.dir, name), filepath.Join(f.dir, name+beforeSuffix))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("checkpoint %s: %w", name, err)
	}
	return f.put(name, Pod, pod)
}

// PutNode writes the node.
func (f *Folder) PutNode(node *corev1.Node) error { return f.put(nodeName, Node, node) }

func (f *Folder) put(name string, k Kind, o api.Object) error {
	b, err := api.Encode(o.DeepCopyObject().(api.Object)) // Encode writes to what it is given, which others read.
	if err != nil {
		return fmt.Errorf("checkpoint of %s: %w", name, err)
	}
	return f.write(name, k, b)
}

// PutHistory writes which history the node goes along with.
func (f *Folder) PutHistory(history uint64) error {
	return f.write(historyName, History, binary.LittleEndian.AppendUint64(nil, history))
}

func (f *Folder) write(name string, k Kind, payload []byte) error {
	if err := vfs.ReplaceFile(f.fs, filepath.Join(f.dir, name), Encode(k, payload)); err != nil {
		return fmt.Errorf("checkpoint %s: %w", name, err)
	}
	return nil
}

// RemovePod forgets a pod, the newest of its files last.
func (f *Folder) RemovePod(uid types.UID) error {
	removed := false
	for _, suffix := range slices.Backward(podSuffixes) {
		err := f.fs.Remove(filepath.Join(f.dir, podPrefix+string(uid)+suffix))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("checkpoint of pod %s: %w", uid, err)
		}
		removed = removed || err == nil
	}
	if !removed {
		return nil
	}
	if err := f.fs.SyncDir(f.dir); err != nil {
		return fmt.Errorf("checkpoint of pod %s: %w", uid, err)
	}
	return nil
}
