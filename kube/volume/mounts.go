package volume

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/environ"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Mounts are those of one start of a container, what lies below another after it.
// Sub-paths are resolved anew by each call, and made if they are not there.
func (v *Volumes) Mounts(pod *corev1.Pod, c *corev1.Container, env *environ.Environment) ([]runtime.Mount, error) {
	unlock, err := v.lock(string(pod.UID))
	if err != nil {
		return nil, err
	}
	defer unlock()
	mounts := make([]runtime.Mount, 0, len(c.VolumeMounts))
	for i := range c.VolumeMounts {
		m, err := v.mount(pod, c, i, env)
		if err != nil {
			return nil, fmt.Errorf("mount of volume %s at %s: %w", c.VolumeMounts[i].Name, c.VolumeMounts[i].MountPath, err)
		}
		mounts = append(mounts, m)
	}
	slices.SortStableFunc(mounts, func(a, b runtime.Mount) int {
		return cmp.Compare(strings.Count(a.Target, "/"), strings.Count(b.Target, "/"))
	})
	return mounts, nil
}

func (v *Volumes) mount(pod *corev1.Pod, c *corev1.Container, index int, env *environ.Environment) (runtime.Mount, error) {
	m := &c.VolumeMounts[index]
	i := slices.IndexFunc(pod.Spec.Volumes, func(volume corev1.Volume) bool { return volume.Name == m.Name })
	if i < 0 || !single(m.Name) {
		return runtime.Mount{}, fmt.Errorf("the pod has no such volume: %w", ErrInvalid)
	}
	volume := &pod.Spec.Volumes[i]
	ours := written(&volume.VolumeSource)
	made := runtime.Mount{
		Source: filepath.Join(v.root.path, string(pod.UID), volumesName, m.Name), Target: filepath.Join("/", m.MountPath),
		ReadOnly: m.ReadOnly || ours,
	}
	if h := volume.HostPath; h != nil {
		made.Source = filepath.Clean(h.Path)
		// Only of a path of the node's: a container may have made the device that a sub-path leads to.
		kind := hostPathKinds[*cmp.Or(h.Type, new(corev1.HostPathType))].format
		made.Device = kind == unix.S_IFCHR || kind == unix.S_IFBLK
	}
	sub := m.SubPath
	if m.SubPathExpr != "" {
		var err error
		if sub, err = env.ExpandAll(m.SubPathExpr); err != nil {
			return runtime.Mount{}, fmt.Errorf("subPathExpr: %w", err)
		}
		if sub == "" {
			return runtime.Mount{}, fmt.Errorf("subPathExpr is empty when its variables are replaced: %w", ErrInvalid)
		}
	}
	if sub == "" {
		return made, nil
	}
	var err error
	made.Device = false
	if made.Source, err = v.subPath(pod, c, index, made.Source, sub, !ours); err != nil {
		return runtime.Mount{}, fmt.Errorf("sub-path %s: %w", sub, err)
	}
	return made, nil
}

// subPath returns a path at which a path beneath a volume is to be found. Where we may
// mount, it is one that no container can change: what was resolved is mounted on it.
func (v *Volumes) subPath(pod *corev1.Pod, c *corev1.Container, index int, source, sub string, create bool) (string, error) {
	root, err := openFolder(source, v.root.before)
	if err != nil {
		return "", err
	}
	defer root.close()
	fd, err := root.resolve(sub, create)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if !v.cfg.Mounts {
		return os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	}
	if !single(c.Name) {
		return "", fmt.Errorf("name of the container: %w", ErrInvalid)
	}
	all, err := v.part(string(pod.UID), subpathsName)
	if err != nil {
		return "", err
	}
	defer all.close()
	own, err := all.make(c.Name, 0o750)
	if err != nil {
		return "", err
	}
	defer own.close()
	name := strconv.Itoa(index)
	if err := own.place(name, fd); err != nil {
		return "", err
	}
	return own.in(name), own.bind(fd, name)
}

// place makes what an open file or folder can be mounted on.
func (f *folder) place(name string, fd int) error {
	if err := f.unmount(name); err != nil {
		return err
	}
	if err := f.removeTree(name); err != nil {
		return err
	}
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return f.failure("look at what goes to", name, err)
	}
	if s.Mode&unix.S_IFMT == unix.S_IFDIR {
		return f.mkdir(name, 0o750)
	}
	return f.write(name, nil, 0o640, -1)
}

// resolve opens what a path beneath a folder leads to. Links are followed as long as
// they stay beneath it; the kernel sees to that, whatever is renamed meanwhile.
func (f *folder) resolve(sub string, create bool) (int, error) {
	if sub == "" || filepath.IsAbs(sub) || slices.Contains(strings.Split(sub, "/"), "..") {
		return -1, ErrEscape
	}
	fd, err := openBeneath(f.fd, sub, unix.O_PATH, 0)
	if notThere(err) && create {
		if err = f.makeBeneath(sub); err == nil {
			fd, err = openBeneath(f.fd, sub, unix.O_PATH, 0)
		}
	}
	switch {
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ELOOP):
		return -1, fmt.Errorf("%w, or its links do not end (%w)", ErrEscape, err)
	case notThere(err):
		return -1, ErrMissing
	case err != nil:
		return -1, f.failure("open", sub, err)
	}
	return fd, nil
}

// makeBeneath makes the folders of a path that are not there, with mode and group of
// the volume: what may write there may write here.
func (f *folder) makeBeneath(sub string) error {
	var s unix.Stat_t
	if err := unix.Fstat(f.fd, &s); err != nil {
		return f.failure("look at", ".", err)
	}
	group := int(s.Gid)
	if unix.Geteuid() != 0 {
		group = -1 // What we make has our group: another cannot be given.
	}
	parent := "."
	for _, name := range strings.Split(filepath.Clean(sub), "/") {
		if err := f.makeIn(parent, name, s.Mode&0o7777, group); err != nil {
			return err
		}
		parent = filepath.Join(parent, name)
	}
	return nil
}

// makeIn makes a folder in a path that is resolved from the top each time: what is
// beneath it now counts, not what was.
func (f *folder) makeIn(parent, name string, mode uint32, group int) error {
	fd, err := openBeneath(f.fd, parent, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	dir := &folder{fd: fd, path: f.in(parent), before: f.before}
	defer dir.close()
	return dir.complete(name, mode, group)
}
