package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/kube/environ"
	"github.com/holdfast-db/holdfast/kube/objects"
	engine "github.com/holdfast-db/holdfast/kube/runtime"
)

// store is what volumes read secrets and config maps from.
type store struct {
	sync.Mutex
	secrets    map[string]map[string]string
	configMaps map[string]map[string]string
}

func (s *store) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	s.Lock()
	defer s.Unlock()
	data, ok := s.secrets[namespace+"/"+name]
	if !ok {
		return nil, fmt.Errorf("secrets %q: %w", name, objects.ErrNotFound)
	}
	o := &corev1.Secret{Data: map[string][]byte{}}
	for key, value := range data {
		o.Data[key] = []byte(value)
	}
	return o, nil
}

func (s *store) ConfigMap(_ context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	s.Lock()
	defer s.Unlock()
	data, ok := s.configMaps[namespace+"/"+name]
	if !ok {
		return nil, fmt.Errorf("configmaps %q: %w", name, objects.ErrNotFound)
	}
	return &corev1.ConfigMap{Data: data, BinaryData: map[string][]byte{"binary": {0, 1, 255}}}, nil
}

// fixture is a node with volumes.
type fixture struct {
	t       *testing.T
	v       *Volumes
	store   *store
	cfg     Config
	changes int                       // Made so far.
	allowed func(change string) error // Nil: all.
}

// bed returns volumes. With mounts the test gets mounts of its own, which nobody else
// sees, and needs root.
func bed(t *testing.T, mounts bool) *fixture {
	t.Helper()
	dir := t.TempDir()
	if mounts {
		ownMounts(t)
	}
	f := &fixture{t: t, store: &store{secrets: map[string]map[string]string{}, configMaps: map[string]map[string]string{}}}
	f.cfg = Config{
		Dir: filepath.Join(dir, "pods"), Objects: f.store, Mounts: mounts, Clock: clocktest.New(), Logger: hclog.NewNullLogger(),
		Allocatable: func() corev1.ResourceList {
			return corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("1Gi")}
		},
	}
	f.open()
	t.Cleanup(func() {
		f.allowed = nil
		uids, err := f.v.Leftovers()
		if err != nil {
			t.Error(err)
		}
		for _, uid := range uids {
			if err := f.v.Purge(context.Background(), uid); err != nil {
				t.Error(err)
			}
		}
		f.v.Close()
	})
	return f
}

// ownMounts moves the thread of a test into a mount namespace of its own.
func ownMounts(t *testing.T) {
	t.Helper()
	if !MayMount() {
		if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
			t.Fatal("needs root, to mount")
		}
		t.Skip("needs root, to mount")
	}
	runtime.LockOSThread() // Never unlocked: the thread ends with the test.
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
}

// open is what a kubelet that starts does.
func (f *fixture) open() {
	f.t.Helper()
	if f.v != nil {
		f.v.Close()
	}
	v, err := newVolumes(f.cfg, func(change string) error {
		f.changes++
		if f.allowed != nil {
			return f.allowed(change)
		}
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.v = v
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) prepare(pod *corev1.Pod) {
	f.t.Helper()
	f.must(f.v.Prepare(context.Background(), pod))
}

// mounts of the first container.
func (f *fixture) mounts(pod *corev1.Pod) []engine.Mount {
	f.t.Helper()
	m, err := f.v.Mounts(pod, &pod.Spec.Containers[0], &environ.Environment{})
	f.must(err)
	return m
}

// source of a volume as a container gets it.
func (f *fixture) source(pod *corev1.Pod, volume string) string {
	f.t.Helper()
	c := corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: volume, MountPath: "/v"}}}
	m, err := f.v.Mounts(pod, &c, &environ.Environment{})
	f.must(err)
	return m[0].Source
}

// podOf returns a pod with volumes, named v0, v1, … unless they have names, all
// mounted by its container.
func podOf(volumes ...corev1.Volume) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name, pod.UID = "ns", "web", types.UID("uid-1")
	pod.Spec.Containers = []corev1.Container{{Name: "c"}}
	for i, v := range volumes {
		if v.Name == "" {
			v.Name = fmt.Sprintf("v%d", i)
		}
		pod.Spec.Volumes = append(pod.Spec.Volumes, v)
		c := &pod.Spec.Containers[0]
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name})
	}
	return pod
}

func emptyDir(medium corev1.StorageMedium, limit string) corev1.Volume {
	e := &corev1.EmptyDirVolumeSource{Medium: medium}
	if limit != "" {
		q := resource.MustParse(limit)
		e.SizeLimit = &q
	}
	return corev1.Volume{VolumeSource: corev1.VolumeSource{EmptyDir: e}}
}

func secretVolume(name string, items ...corev1.KeyToPath) corev1.Volume {
	return corev1.Volume{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name, Items: items}}}
}

func configVolume(name string, items ...corev1.KeyToPath) corev1.Volume {
	return corev1.Volume{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Items: items}}}
}

func hostVolume(path string, kind corev1.HostPathType) corev1.Volume {
	return corev1.Volume{VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &kind}}}
}

func pointer[T any](v T) *T { return &v }

// tree is what a container sees of a folder: paths with contents, links followed.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	seen := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			for name, data := range tree(t, path) {
				seen[e.Name()+"/"+name] = data
			}
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		seen[e.Name()] = string(data)
	}
	return seen
}

func modeAt(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func groupAt(t *testing.T, path string) int {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		t.Fatal(err)
	}
	return int(s.Gid)
}

// both runs a test with and without mounts.
func both(t *testing.T, test func(t *testing.T, f *fixture)) {
	for _, mounts := range []bool{true, false} {
		t.Run(fmt.Sprintf("mounts %v", mounts), func(t *testing.T) { test(t, bed(t, mounts)) })
	}
}

func TestAnEmptyFolderIsForAllContainersAndIsKeptUntilThePodGoes(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		pod := podOf(emptyDir("", ""), emptyDir("Memory", "1Mi"))
		f.prepare(pod)
		for _, m := range f.mounts(pod) {
			if mode := modeAt(t, m.Source); mode != os.ModeDir|0o777 {
				t.Errorf("%s has mode %v", m.Target, mode)
			}
			if m.ReadOnly {
				t.Errorf("%s is read-only", m.Target)
			}
			f.must(os.WriteFile(m.Source+"/file", []byte("x"), 0o600))
			f.must(os.Chmod(m.Source, 0o711))
		}
		f.open()
		f.prepare(pod)
		for _, m := range f.mounts(pod) {
			if got := tree(t, m.Source); got["file"] != "x" {
				t.Errorf("%s after a restart of the kubelet: %v", m.Target, got)
			}
			if mode := modeAt(t, m.Source); mode != os.ModeDir|0o711 {
				t.Errorf("%s: what the container did to its mode was undone: %v", m.Target, mode)
			}
		}
		f.must(f.v.Remove(context.Background(), "uid-1"))
		f.must(f.v.Remove(context.Background(), "uid-1"))
		if _, err := os.Lstat(filepath.Join(f.cfg.Dir, "uid-1")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the folder of the pod: %v", err)
		}
	})
}

func TestAnEmptyFolderHasTheModeThatThePodAsksFor(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		disk, memory := emptyDir("", ""), emptyDir("Memory", "")
		disk.EmptyDir.Mode, memory.EmptyDir.Mode = pointer(int32(0o1777)), pointer(int32(0o700))
		pod := podOf(disk, memory)
		f.prepare(pod)
		if a, b := modeAt(t, f.source(pod, "v0")), modeAt(t, f.source(pod, "v1")); a != os.ModeDir|os.ModeSticky|0o777 || b != os.ModeDir|0o700 {
			t.Errorf("modes %v and %v", a, b)
		}
	})
}

func TestMemoryIsBoundedByItsLimitThePodsAndTheNodes(t *testing.T) {
	f := bed(t, true)
	pod := podOf(emptyDir("Memory", "2Mi"), emptyDir("Memory", ""), emptyDir("Memory", "8Gi"))
	f.prepare(pod)
	sizes := func() (all []int64) {
		for _, m := range f.mounts(pod) {
			var s unix.Statfs_t
			f.must(unix.Statfs(m.Source, &s))
			if s.Type != unix.TMPFS_MAGIC {
				t.Fatalf("%s is no memory", m.Target)
			}
			all = append(all, int64(s.Blocks)*s.Bsize)
		}
		return all
	}
	if got := fmt.Sprint(sizes()); got != fmt.Sprint([]int64{2 << 20, 1 << 30, 1 << 30}) {
		t.Errorf("sizes are %s", got)
	}
	if err := os.WriteFile(f.mounts(pod)[0].Source+"/big", make([]byte, 3<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("3 MiB into 2: %v", err)
	}
	f.must(f.v.Remove(context.Background(), "uid-1"))
	pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"memory": resource.MustParse("64Mi")}
	f.prepare(pod)
	if got := fmt.Sprint(sizes()); got != fmt.Sprint([]int64{2 << 20, 64 << 20, 64 << 20}) {
		t.Errorf("sizes with a limit of the container are %s", got)
	}
}

func TestWithoutMountsMemoryIsOnTheDiskAndThePodIsTold(t *testing.T) {
	f := bed(t, false)
	pod := podOf(emptyDir("Memory", "1Mi"), emptyDir("", ""))
	f.prepare(pod)
	if notes := f.v.Notes(pod); len(notes) != 1 || !strings.Contains(notes[0], "v0") {
		t.Errorf("notes: %q", notes)
	}
	f.must(os.WriteFile(f.source(pod, "v0")+"/big", make([]byte, 2<<20), 0o600))
	if message, exceeded := f.v.Exceeded(context.Background(), pod); !exceeded || message != `Usage of EmptyDir volume "v0" exceeds the limit "1Mi".` {
		t.Errorf("%q %v", message, exceeded)
	}
	group := bedGroup(pod)
	if err := f.v.Prepare(context.Background(), group); !errors.Is(err, engine.ErrUnsupported) {
		t.Errorf("a group without root: %v", err)
	}
}

func bedGroup(pod *corev1.Pod) *corev1.Pod {
	pod = pod.DeepCopy()
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: pointer(int64(4711))}
	return pod
}

func TestFilesBelongToTheGroupOfThePod(t *testing.T) {
	f := bed(t, true)
	f.store.secrets["ns/s"] = map[string]string{"key": "value"}
	pod := bedGroup(podOf(emptyDir("", ""), emptyDir("Memory", ""),
		secretVolume("s", corev1.KeyToPath{Key: "key", Path: "a/key", Mode: pointer(int32(0o400))})))
	f.prepare(pod)
	for path, mode := range map[string]os.FileMode{
		"v0": os.ModeDir | os.ModeSetgid | 0o777, "v1": os.ModeDir | os.ModeSetgid | 0o777, "v2": os.ModeDir | os.ModeSetgid | 0o755,
		"v2/a": os.ModeDir | os.ModeSetgid | 0o755, "v2/a/key": 0o440,
	} {
		volume, _, _ := strings.Cut(path, "/")
		at := f.source(pod, volume) + strings.TrimPrefix(path, volume)
		if got := modeAt(t, at); got != mode {
			t.Errorf("%s has mode %v, not %v", path, got, mode)
		}
		if got := groupAt(t, at); got != 4711 {
			t.Errorf("%s belongs to group %d", path, got)
		}
	}
	before := f.changes
	f.must(f.v.Refresh(context.Background(), pod))
	if link, err := os.Readlink(f.source(pod, "v2") + "/..data"); err != nil || f.changes != before {
		t.Errorf("%d changes to files that are as they should be; %s %v", f.changes-before, link, err)
	}
}

// lockThreadAs makes the thread of the test somebody else to the file system.
func lockThreadAs(t *testing.T, uid int) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Setfsuid(uid); err != nil {
		t.Fatal(err)
	}
}
