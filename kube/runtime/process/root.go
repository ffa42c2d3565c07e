//go:build linux

package process

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/supervised"
)

// folderMode: programs of images expect to read their folders.
const folderMode = 0o755

// buildRoot makes the folder of a container: its image, its mounts and its working folder.
// Whatever links the image holds, all of it is made below dir.
func buildRoot(dir string, spec *runtime.ContainerSpec) error {
	if err := os.RemoveAll(dir); err != nil { // Of a start that was cut short.
		return err
	}
	if err := os.MkdirAll(dir, folderMode); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	b := &builder{dir: dir, root: root}
	if err := b.merge(".", spec.Image.Layers); err != nil {
		return fmt.Errorf("make the root of %s: %w", spec.Image.Ref, err)
	}
	for _, m := range spec.Mounts {
		for _, other := range spec.Mounts {
			if strings.HasPrefix(path.Clean(m.Target), path.Clean(other.Target)+"/") {
				return fmt.Errorf("%w: mount %s lies in mount %s, which is a link to a folder of the node; runtimes native and cri can", runtime.ErrUnsupported, m.Target, other.Target)
			}
		}
		if err := b.mount(m); err != nil {
			return invalid("mount %s: %v", m.Target, err)
		}
	}
	wd := strings.TrimPrefix(supervised.WorkingDir(spec), "/")
	if wd == "" {
		return nil
	}
	if info, err := root.Stat(wd); err == nil && info.IsDir() {
		return nil
	}
	// A mount leads out of the root, and what is below it is there or is not.
	if info, err := os.Stat(filepath.Join(dir, wd)); err == nil && info.IsDir() {
		return nil
	}
	if err := root.MkdirAll(wd, folderMode); err != nil {
		return invalid("working folder /%s: %v", wd, err)
	}
	return nil
}

// builder fills the root of a container.
type builder struct {
	dir  string
	root *os.Root
}

// union is a folder as the layers together have it.
type union struct {
	files   map[string]string   // Where each file lies.
	folders map[string][]string // Those of the layers that count, the topmost first.
	closed  map[string]bool     // What lower layers have of this name does not count.
}

// merge makes one folder out of those of several layers, the topmost first.
func (b *builder) merge(at string, layers []string) error {
	u := union{map[string]string{}, map[string][]string{}, map[string]bool{}}
	for _, layer := range layers {
		if err := u.add(layer); err != nil {
			return err
		}
		if opaque(layer) {
			break
		}
	}
	for name, from := range u.files {
		if err := b.place(path.Join(at, name), from); err != nil {
			return err
		}
	}
	for name, dirs := range u.folders {
		to := path.Join(at, name)
		if err := b.root.Mkdir(to, folderMode); err != nil {
			return err
		}
		if err := b.merge(to, dirs); err != nil {
			return err
		}
	}
	return nil
}

// add puts the folder of a layer below those that were added before.
func (u *union) add(layer string) error {
	entries, err := os.ReadDir(layer)
	if err != nil {
		return err
	}
	var hidden []string // In the layers below this one.
	for _, e := range entries {
		name := e.Name()
		if what, ok := strings.CutPrefix(name, ".wh."); ok {
			hidden = append(hidden, what)
			continue
		}
		if u.closed[name] {
			continue
		}
		if e.IsDir() {
			u.folders[name] = append(u.folders[name], filepath.Join(layer, name))
			continue
		}
		u.closed[name] = true // A file hides folders below it, and is hidden by one above.
		if u.folders[name] == nil {
			u.files[name] = filepath.Join(layer, name)
		}
	}
	for _, name := range hidden {
		u.closed[name] = true
	}
	return nil
}

// opaque tells whether a folder hides those of the layers below it.
func opaque(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, ".wh..wh..opq")); err == nil {
		return true
	}
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		value := make([]byte, 1)
		if n, err := unix.Lgetxattr(dir, name, value); err == nil && n == 1 && value[0] == 'y' {
			return true
		}
	}
	return false
}

// place makes one file of a layer.
func (b *builder) place(to, from string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	mode := info.Mode()
	switch {
	case mode&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if filepath.IsAbs(target) {
			target = filepath.Join(b.dir, target) // The root is not at /.
		}
		return b.root.Symlink(target, to)
	case !mode.IsRegular():
		return nil // A device is a mark that hides what is below; others make no sense here.
	case mode&0o111 != 0:
		return b.root.Symlink(from, to)
	}
	return b.copy(to, from, mode.Perm()|0o200)
}

func (b *builder) copy(to, from string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := b.root.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// mount puts a link where something shall be mounted, in place of what is there.
func (b *builder) mount(m runtime.Mount) error {
	if _, err := os.Stat(m.Source); err != nil {
		return err
	}
	to := strings.TrimPrefix(path.Clean("/"+m.Target), "/")
	if to == "" {
		return errors.New("the root itself cannot be replaced")
	}
	if err := b.root.MkdirAll(path.Dir(to), folderMode); err != nil {
		return err
	}
	if err := b.root.RemoveAll(to); err != nil {
		return err
	}
	return b.root.Symlink(m.Source, to)
}
