package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/environ"
)

// subPath is where a container gets a sub-path of the first volume.
func (f *fixture) subPath(pod *corev1.Pod, sub string) (string, error) {
	c := corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: "v0", MountPath: "/v", SubPath: sub}}}
	m, err := f.v.Mounts(pod, &c, nil)
	if err != nil {
		return "", err
	}
	return m[0].Source, nil
}

func TestASubPathIsMountedAndMadeIfItIsNotThere(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		pod := podOf(emptyDir("", ""))
		f.prepare(pod)
		dir := f.source(pod, "v0")
		f.must(os.MkdirAll(dir+"/a/b", 0o755))
		f.must(os.WriteFile(dir+"/a/b/file", []byte("x"), 0o644))
		f.must(os.Symlink("a/b", dir+"/link"))
		for _, test := range [][2]string{{"a", "b/file"}, {"a/b", "file"}, {"link", "file"}, {"a/../a/b", ""}, {"a/b/file", ""}, {"./a//b/", "file"}} {
			at, err := f.subPath(pod, test[0])
			if strings.Contains(test[0], "..") {
				if !errors.Is(err, ErrEscape) {
					t.Errorf("%s: %v", test[0], err)
				}
				continue
			}
			f.must(err)
			if data, err := os.ReadFile(filepath.Join(at, test[1])); err != nil || string(data) != "x" {
				t.Errorf("%s: %q %v", test[0], data, err)
			}
		}
		at, err := f.subPath(pod, "new/one")
		f.must(err)
		if mode := modeAt(t, at); mode != os.ModeDir|0o777 {
			t.Errorf("made with mode %v", mode)
		}
		f.must(os.WriteFile(at+"/file", []byte("y"), 0o644))
		if data, err := os.ReadFile(dir + "/new/one/file"); err != nil || string(data) != "y" {
			t.Errorf("%q %v", data, err)
		}
		f.must(f.v.Remove(context.Background(), "uid-1"))
		if _, err := os.Lstat(filepath.Join(f.cfg.Dir, "uid-1")); !errors.Is(err, os.ErrNotExist) {
			t.Error("something is left", err)
		}
	})
}

func TestASubPathDoesNotLeadOutOfItsVolume(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		outside := t.TempDir()
		f.must(os.WriteFile(outside+"/file", []byte("the node's"), 0o644))
		pod := podOf(emptyDir("", ""))
		f.prepare(pod)
		dir := f.source(pod, "v0")
		f.must(os.Mkdir(dir+"/in", 0o755))
		links := map[string]string{
			"absolute": outside, "file": outside + "/file", "up": "..", "upper": "../../../..", "in/up": "../..", "self": "self", "magic": "/proc/self/root", "within": dir,
		}
		for name, target := range links {
			f.must(os.Symlink(target, dir+"/"+name))
		}
		for name := range links {
			for _, sub := range []string{name, name + "/file", name + "/new", name + "/."} {
				if at, err := f.subPath(pod, sub); !errors.Is(err, ErrEscape) {
					t.Errorf("%s leads to %q, %v", sub, at, err)
				}
			}
		}
		for _, sub := range []string{"/etc", "..", "../x", "in/../../x"} {
			if at, err := f.subPath(pod, sub); !errors.Is(err, ErrEscape) {
				t.Errorf("%s leads to %q, %v", sub, at, err)
			}
		}
		if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
			t.Errorf("the node has %v %v", entries, err)
		}
	})
}

// Somebody in the container swaps a folder for a link to the node's files, over and
// over. Whatever is mounted must be the container's own.
func TestASubPathThatChangesMeanwhileDoesNotLeadOut(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		outside := t.TempDir()
		f.must(os.WriteFile(outside+"/whose", []byte("the node's"), 0o644))
		pod := podOf(emptyDir("", ""))
		f.prepare(pod)
		dir := f.source(pod, "v0")
		f.must(os.MkdirAll(dir+"/folder/below", 0o755))
		f.must(os.WriteFile(dir+"/folder/whose", []byte("the pod's"), 0o644))
		f.must(os.WriteFile(dir+"/folder/below/whose", []byte("the pod's"), 0o644))
		f.must(os.Symlink(outside, dir+"/link"))
		g := task.New(context.Background())
		g.Go("swap", func(ctx context.Context) error {
			for ctx.Err() == nil {
				if err := unix.Renameat2(unix.AT_FDCWD, dir+"/folder", unix.AT_FDCWD, dir+"/link", unix.RENAME_EXCHANGE); err != nil {
					return err
				}
			}
			return nil
		})
		mounted, tried := 0, 0
		for ; tried < 400 || mounted == 0 && tried < 400_000; tried++ { // On a busy machine all of many meet a swap.
			sub := []string{"folder", "folder/below", fmt.Sprintf("folder/new%d", tried)}[tried%3]
			at, err := f.subPath(pod, sub)
			if err != nil {
				if !errors.Is(err, ErrEscape) && !errors.Is(err, ErrMissing) && !errors.Is(err, unix.EAGAIN) {
					t.Errorf("%s: %v", sub, err)
				}
				continue
			}
			mounted++
			if !f.cfg.Mounts {
				continue // A path is all that there is; only a mount holds on to what it was.
			}
			if data, err := os.ReadFile(at + "/whose"); err == nil && string(data) != "the pod's" {
				t.Fatalf("%s shows what is %s", sub, data)
			}
		}
		g.Stop()
		f.must(g.Wait())
		if mounted == 0 {
			t.Error("nothing was mounted: nothing was tried")
		}
		if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
			t.Errorf("the node has %v %v", entries, err)
		}
		t.Logf("%d of %d mounted", mounted, tried)
	})
}

func TestASubPathOfFilesThatWeWriteIsNotMade(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		f.store.configMaps["ns/m"] = map[string]string{"conf": "one"}
		pod := podOf(configVolume("m"))
		f.prepare(pod)
		at, err := f.subPath(pod, "conf")
		f.must(err)
		if data, err := os.ReadFile(at); err != nil || string(data) != "one" {
			t.Errorf("%q %v", data, err)
		}
		if _, err := f.subPath(pod, "absent"); !errors.Is(err, ErrMissing) {
			t.Error(err)
		}
		f.store.configMaps["ns/m"] = map[string]string{"conf": "two"}
		f.must(f.v.Refresh(context.Background(), pod))
		if f.cfg.Mounts { // As in Kubernetes: what is mounted by a sub-path does not follow.
			if data, err := os.ReadFile(at); err != nil || string(data) != "one" {
				t.Errorf("%q %v", data, err)
			}
		}
		at, err = f.subPath(pod, "conf")
		f.must(err)
		if data, err := os.ReadFile(at); err != nil || string(data) != "two" {
			t.Errorf("%q %v", data, err)
		}
	})
}

func TestASubPathExpressionKnowsTheContainersVariables(t *testing.T) {
	f := bed(t, false)
	pod := podOf(emptyDir("", ""))
	f.prepare(pod)
	c := &pod.Spec.Containers[0]
	c.Env = []corev1.EnvVar{{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}, {Name: "EMPTY"}, {Name: "UP", Value: "../.."}}
	env, err := environ.Resolve(context.Background(), pod, c, &environ.Facts{}, f.store)
	f.must(err)
	for expr, want := range map[string]error{"logs/$(POD)": nil, "$(EMPTY)": ErrInvalid, "$(ABSENT)": ErrMissing, "a/$(UP)": ErrEscape} {
		c.VolumeMounts[0].SubPathExpr = expr
		m, err := f.v.Mounts(pod, c, env)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", expr, err)
		}
		if want == nil && m[0].Source != f.v.root.path+"/uid-1/volumes/v0/logs/web" {
			t.Errorf("%s is %s", expr, m[0].Source)
		}
	}
}

func TestMountsBelowOthersComeAfterThem(t *testing.T) {
	f := bed(t, false)
	pod := podOf(emptyDir("", ""))
	f.prepare(pod)
	c := corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{
		{Name: "v0", MountPath: "/a/b/c"}, {Name: "v0", MountPath: "a", ReadOnly: true}, {Name: "v0", MountPath: "/a/b/"},
	}}
	m, err := f.v.Mounts(pod, &c, nil)
	f.must(err)
	if len(m) != 3 || m[0].Target != "/a" || !m[0].ReadOnly || m[1].Target != "/a/b" || m[2].Target != "/a/b/c" {
		t.Errorf("%+v", m)
	}
	c.VolumeMounts = []corev1.VolumeMount{{Name: "other", MountPath: "/x"}}
	if _, err := f.v.Mounts(pod, &c, nil); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

// FuzzSubPath resolves any path over a volume with any link in it: what it opens, if
// anything, is in the volume.
func FuzzSubPath(f *testing.F) {
	f.Add("a/b", "..")
	f.Add("link/x", "../..")
	f.Add("link/../link", "/")
	f.Add("new/./deep//er", "a")
	f.Add("link", "link/link")
	f.Fuzz(func(t *testing.T, sub, target string) {
		if len(sub) > 512 || len(target) > 512 {
			return
		}
		base := t.TempDir()
		top := filepath.Join(base, "volume")
		for _, dir := range []string{top, filepath.Join(top, "a"), filepath.Join(base, "outside")} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		_ = os.Symlink(target, filepath.Join(top, "link"))        // Not every text can be a link's.
		_ = os.Symlink(target, filepath.Join(top, "a", "linked")) // Likewise.
		root, err := openFolder(top, func(string) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		defer root.close()
		fd, err := root.resolve(sub, true)
		if entries, err := os.ReadDir(base); err != nil || len(entries) != 2 {
			t.Fatalf("beside the volume: %v %v", entries, err)
		}
		if entries, err := os.ReadDir(filepath.Join(base, "outside")); err != nil || len(entries) != 0 {
			t.Fatalf("outside: %v %v", entries, err)
		}
		if err != nil {
			return
		}
		defer unix.Close(fd)
		is, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil || is != top && !strings.HasPrefix(is, top+"/") {
			t.Fatalf("%q with a link to %q is %s %v", sub, target, is, err)
		}
	})
}
