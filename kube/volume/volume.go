package volume

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/environ"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Config is for New.
type Config struct {
	// Dir holds the folders of all pods of a node. It is made if it is not there.
	Dir string
	// Objects reads secrets and config maps.
	Objects environ.Objects
	// Allocatable is what the node has for pods: limits that a container does not have,
	// for files, and the size of volumes in memory.
	Allocatable func() corev1.ResourceList
	// Mounts: whether we may mount and give files away, see MayMount. Without, volumes
	// in memory and secrets are on the disk, and a pod with fsGroup is refused.
	Mounts bool

	Clock  clock.Clock
	Logger hclog.Logger
}

// Volumes are those of all pods of a node. Calls about one pod wait for each other.
type Volumes struct {
	cfg  Config
	root *folder

	mu struct {
		sync.Mutex
		pods map[string]*turn
	}
}

// turn is for those who want to work on a pod.
type turn struct {
	sync.Mutex
	waiting int // Guarded by the lock of Volumes.
}

// Names in the folder of a pod.
const (
	volumesName  = "volumes"
	subpathsName = "subpaths"
	messagesName = "messages"
)

// New returns the volumes below a folder.
func New(cfg Config) (*Volumes, error) { return newVolumes(cfg, func(string) error { return nil }) }

func newVolumes(cfg Config, before func(string) error) (*Volumes, error) {
	if err := vfs.OS().MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("folder of pods: %w", err)
	}
	// As mounts are told by the kernel: without links.
	dir, err := filepath.Abs(cfg.Dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("folder of pods: %w", err)
	}
	root, err := openFolder(dir, before)
	if err != nil {
		return nil, fmt.Errorf("folder of pods: %w", err)
	}
	v := &Volumes{cfg: cfg, root: root}
	v.mu.pods = map[string]*turn{}
	return v, nil
}

// Close lets go of the folder. Volumes stay.
func (v *Volumes) Close() { v.root.close() }

// single tells whether a text can be one name in a folder.
func single(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// lock waits until nobody else works on a pod.
func (v *Volumes) lock(uid string) (unlock func(), err error) {
	if !single(uid) {
		return nil, fmt.Errorf("pod with the UID %q: %w", uid, ErrInvalid)
	}
	v.mu.Lock()
	t := v.mu.pods[uid]
	if t == nil {
		t = &turn{}
		v.mu.pods[uid] = t
	}
	t.waiting++
	v.mu.Unlock()
	t.Lock()
	return func() {
		t.Unlock()
		v.mu.Lock()
		defer v.mu.Unlock()
		if t.waiting--; t.waiting == 0 {
			delete(v.mu.pods, uid)
		}
	}, nil
}

// part opens one of our folders of a pod, and makes it. It can be mounted from.
func (v *Volumes) part(uid, name string) (*folder, error) {
	pod, err := v.root.make(uid, 0o750)
	if err != nil {
		return nil, err
	}
	defer pod.close()
	return pod.make(name, 0o750)
}

// Prepare makes all volumes of a pod. Its error is for people: the pod waits with the
// reason FailedMount.
func (v *Volumes) Prepare(ctx context.Context, pod *corev1.Pod) error {
	unlock, err := v.lock(string(pod.UID))
	if err != nil {
		return err
	}
	defer unlock()
	group, err := v.groupOf(pod)
	if err != nil {
		return err
	}
	volumes, err := v.part(string(pod.UID), volumesName)
	if err != nil {
		return err
	}
	defer volumes.close()
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		if err := v.prepare(ctx, pod, volumes, volume, group); err != nil {
			return fmt.Errorf("volume %s: %w", volume.Name, err)
		}
	}
	return nil
}

// groupOf is the group that volumes of a pod are given to, -1 for none.
func (v *Volumes) groupOf(pod *corev1.Pod) (int, error) {
	s := pod.Spec.SecurityContext
	if s == nil || s.FSGroup == nil {
		return -1, nil
	}
	if !v.cfg.Mounts && int(*s.FSGroup) != unix.Getegid() {
		return -1, fmt.Errorf("fsGroup %d: only root can give files to it: %w", *s.FSGroup, runtime.ErrUnsupported)
	}
	return int(*s.FSGroup), nil
}

func (v *Volumes) prepare(ctx context.Context, pod *corev1.Pod, volumes *folder, volume *corev1.Volume, group int) error {
	if !single(volume.Name) {
		return fmt.Errorf("its name: %w", ErrInvalid)
	}
	switch s := &volume.VolumeSource; {
	case s.EmptyDir != nil:
		return v.emptyDir(volumes, pod, volume, group)
	case s.HostPath != nil:
		return hostPath(s.HostPath, volumes.before)
	case written(s):
		content, err := v.contentOf(ctx, pod, s)
		if err != nil {
			return err
		}
		return v.show(volumes, volume, content, group)
	}
	return fmt.Errorf("there are no volumes of its kind: %w", ErrInvalid)
}

// emptyDir makes a folder that anybody in the pod may write into.
func (v *Volumes) emptyDir(volumes *folder, pod *corev1.Pod, volume *corev1.Volume, group int) error {
	mode := uint32(0o777)
	if m := volume.EmptyDir.Mode; m != nil {
		mode = uint32(*m) & 0o1777
	}
	if group >= 0 {
		mode |= unix.S_ISGID | 0o770 // What is made in it is of the group too.
	}
	if err := volumes.complete(volume.Name, mode, group); err != nil {
		return err
	}
	if volume.EmptyDir.Medium != corev1.StorageMediumMemory || !v.cfg.Mounts {
		return nil
	}
	return volumes.memory(volume.Name, mode, group, memorySize(pod, volume.EmptyDir, v.cfg.Allocatable()), false)
}

// memorySize is how much a volume in memory may hold: the least of its limit, what the
// pod's containers may use together, and what the node has. 0: nothing is said.
func memorySize(pod *corev1.Pod, e *corev1.EmptyDirVolumeSource, node corev1.ResourceList) int64 {
	size := node.Memory().Value()
	atMost := func(n int64) {
		if n > 0 && (size == 0 || n < size) {
			size = n
		}
	}
	all, limited := int64(0), true
	for i := range pod.Spec.Containers {
		limit := pod.Spec.Containers[i].Resources.Limits.Memory().Value()
		limited = limited && limit > 0
		all += limit
	}
	if limited {
		atMost(all)
	}
	if e.SizeLimit != nil {
		atMost(e.SizeLimit.Value())
	}
	return size
}

// Notes are what of a pod's volumes is not as it asks, for events.
func (v *Volumes) Notes(pod *corev1.Pod) []string {
	if v.cfg.Mounts {
		return nil
	}
	var notes []string
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		if e := volume.EmptyDir; e != nil && e.Medium == corev1.StorageMediumMemory {
			notes = append(notes, "Volume "+volume.Name+" is on the disk: the kubelet may not mount memory")
		}
	}
	return notes
}

// Refresh has the files of secrets, config maps and fields follow their sources. What
// cannot be read stays as it is. Of a pod that was not prepared: nothing.
func (v *Volumes) Refresh(ctx context.Context, pod *corev1.Pod) error {
	unlock, err := v.lock(string(pod.UID))
	if err != nil {
		return err
	}
	defer unlock()
	group, err := v.groupOf(pod)
	if err != nil {
		return err
	}
	own, err := v.root.open(string(pod.UID))
	if notThere(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer own.close()
	volumes, err := own.open(volumesName)
	if notThere(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer volumes.close()
	var all []error
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		if !written(&volume.VolumeSource) {
			continue
		}
		content, err := v.contentOf(ctx, pod, &volume.VolumeSource)
		if err == nil {
			err = v.show(volumes, volume, content, group)
		}
		if err != nil {
			all = append(all, fmt.Errorf("volume %s: %w", volume.Name, err))
		}
	}
	return errors.Join(all...)
}
