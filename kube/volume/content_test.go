package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/holdfast-db/holdfast/internal/task"
)

func (f *fixture) shows(pod *corev1.Pod, volume string, want map[string]string) {
	f.t.Helper()
	if got := tree(f.t, f.source(pod, volume)); !maps.Equal(got, want) {
		f.t.Errorf("%s shows %q, not %q", volume, got, want)
	}
}

func TestFilesOfSecretsAndConfigMapsFollowTheirObjects(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		f.store.secrets["ns/s"] = map[string]string{"user": "anna", "password": "secret"}
		f.store.configMaps["ns/m"] = map[string]string{"a.conf": "one", "b.conf": "two"}
		pod := podOf(secretVolume("s"), configVolume("m"), configVolume("m", corev1.KeyToPath{Key: "a.conf", Path: "etc/app/a", Mode: pointer(int32(0o755))}))
		f.prepare(pod)
		f.shows(pod, "v0", map[string]string{"user": "anna", "password": "secret"})
		f.shows(pod, "v1", map[string]string{"a.conf": "one", "b.conf": "two", "binary": "\x00\x01\xff"})
		f.shows(pod, "v2", map[string]string{"etc/app/a": "one"})
		if mode := modeAt(t, f.source(pod, "v0")+"/user"); mode != 0o644 {
			t.Errorf("a file has mode %v", mode)
		}
		if mode := modeAt(t, f.source(pod, "v2")+"/etc/app/a"); mode != 0o755 {
			t.Errorf("a file with a mode of its own has %v", mode)
		}
		for _, m := range f.mounts(pod) {
			if !m.ReadOnly {
				t.Errorf("%s may be written", m.Target)
			}
		}
		f.store.secrets["ns/s"] = map[string]string{"user": "berta"}
		f.store.configMaps["ns/m"] = map[string]string{"a.conf": "three", "c.conf": "new"}
		f.must(f.v.Refresh(context.Background(), pod))
		f.shows(pod, "v0", map[string]string{"user": "berta"})
		f.shows(pod, "v1", map[string]string{"a.conf": "three", "c.conf": "new", "binary": "\x00\x01\xff"})
		f.shows(pod, "v2", map[string]string{"etc/app/a": "three"})
		for _, m := range f.mounts(pod) {
			states := 0
			entries, err := os.ReadDir(m.Source)
			f.must(err)
			for _, e := range entries {
				if strings.HasPrefix(e.Name(), "..") && e.Name() != dataName {
					states++
				}
			}
			if states != 1 {
				t.Errorf("%s holds %d states", m.Target, states)
			}
		}
	})
}

func TestSecretsAreNeverOnTheDiskIfTheyNeedNot(t *testing.T) {
	f := bed(t, true)
	f.store.secrets["ns/s"] = map[string]string{"k": "v"}
	pod := podOf(secretVolume("s"), corev1.Volume{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}}}}}})
	f.prepare(pod)
	f.prepare(pod)
	for _, m := range f.mounts(pod) {
		var s unix.Statfs_t
		f.must(unix.Statfs(m.Source, &s))
		if s.Type != unix.TMPFS_MAGIC {
			t.Errorf("%s is on the disk", m.Target)
		}
		f.must(f.v.root.unmount(strings.TrimPrefix(m.Source, f.v.root.path+"/")))
		if under, err := os.ReadDir(m.Source); err != nil || len(under) > 0 {
			t.Errorf("below the memory of %s: %v %v", m.Target, under, err)
		}
	}
}

func TestAProjectedVolumeJoinsItsSources(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		f.store.secrets["ns/s"] = map[string]string{"password": "secret"}
		f.store.configMaps["ns/m"] = map[string]string{"conf": "one"}
		pod := podOf(corev1.Volume{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			DefaultMode: pointer(int32(0o640)),
			Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "s"},
					Items: []corev1.KeyToPath{{Key: "password", Path: "x/password", Mode: pointer(int32(0o600))}}}},
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "m"},
					Items: []corev1.KeyToPath{{Key: "conf", Path: "x/conf"}}}},
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "absent"}, Optional: pointer(true)}},
				{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
					{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
					{Path: "x/name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}},
					{Path: "cpu", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "c", Resource: "limits.cpu", Divisor: resource.MustParse("1m")}},
				}}},
			}}}})
		pod.Labels = map[string]string{"b": "2", "a": "\"1\"\n"}
		f.prepare(pod)
		f.shows(pod, "v0", map[string]string{
			"x/password": "secret", "x/conf": "one", "x/name": "web", "labels": "a=\"\\\"1\\\"\\n\"\nb=\"2\"", "cpu": "2000",
		})
		for path, mode := range map[string]os.FileMode{"/x/password": 0o600, "/x/conf": 0o640, "/labels": 0o640} {
			if got := modeAt(t, f.source(pod, "v0")+path); got != mode {
				t.Errorf("%s has mode %v", path, got)
			}
		}
		pod.Labels["b"] = "3"
		f.must(f.v.Refresh(context.Background(), pod))
		if got := tree(t, f.source(pod, "v0"))["labels"]; !strings.HasSuffix(got, "b=\"3\"") {
			t.Errorf("labels after a change: %q", got)
		}
	})
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	f := bed(t, false)
	f.store.secrets["ns/s"] = map[string]string{"k": "v"}
	optional := func(v corev1.Volume) corev1.Volume {
		if v.Secret != nil {
			v.Secret.Optional = pointer(true)
		} else {
			v.ConfigMap.Optional = pointer(true)
		}
		return v
	}
	for _, test := range []struct {
		volume corev1.Volume
		want   string // "": it is no error.
		is     error
	}{
		{secretVolume("absent"), "volume v0: secret ns/absent: not there", ErrMissing},
		{configVolume("absent"), "volume v0: config map ns/absent: not there", ErrMissing},
		{secretVolume("s", corev1.KeyToPath{Key: "other", Path: "p"}), "volume v0: key other of secret ns/s: not there", ErrMissing},
		{optional(secretVolume("absent")), "", nil},
		{optional(configVolume("absent")), "", nil},
		{optional(secretVolume("s", corev1.KeyToPath{Key: "other", Path: "p"})), "", nil},
		{secretVolume("s", corev1.KeyToPath{Key: "k", Path: "../p"}), `volume v0: path "../p": leads out of its volume`, ErrEscape},
		{secretVolume("s", corev1.KeyToPath{Key: "k", Path: "/p"}), `volume v0: path "/p": leads out of its volume`, ErrEscape},
		{secretVolume("s", corev1.KeyToPath{Key: "k", Path: "a/../.."}), `volume v0: path "..": leads out of its volume`, ErrEscape},
		{secretVolume("s", corev1.KeyToPath{Key: "k", Path: "..data"}), `volume v0: path "..data": names that begin with .. are taken: cannot be mounted`, ErrInvalid},
		{secretVolume("s", corev1.KeyToPath{Key: "k", Path: "a"}, corev1.KeyToPath{Key: "k", Path: "a/b"}), `volume v0: path "a/b": "a" is a file: cannot be mounted`, ErrInvalid},
		{corev1.Volume{VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}}, "volume v0: there are no volumes of its kind: cannot be mounted", ErrInvalid},
		{corev1.Volume{Name: "..", VolumeSource: emptyDir("", "").VolumeSource}, "volume ..: its name: cannot be mounted", ErrInvalid},
	} {
		err := f.v.Prepare(context.Background(), podOf(test.volume))
		if test.want == "" {
			if err != nil {
				t.Errorf("%v", err)
			}
			continue
		}
		if !errors.Is(err, test.is) || err.Error() != test.want {
			t.Errorf("%v, not %s", err, test.want)
		}
	}
}

func TestARefreshThatFailsLeavesTheFiles(t *testing.T) {
	f := bed(t, false)
	f.store.secrets["ns/s"] = map[string]string{"k": "v"}
	f.store.configMaps["ns/m"] = map[string]string{"k": "1"}
	pod := podOf(secretVolume("s"), configVolume("m"))
	f.must(f.v.Refresh(context.Background(), pod)) // Not prepared: nothing.
	f.prepare(pod)
	delete(f.store.secrets, "ns/s")
	f.store.configMaps["ns/m"] = map[string]string{"k": "2"}
	if err := f.v.Refresh(context.Background(), pod); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "volume v0") {
		t.Error(err)
	}
	f.shows(pod, "v0", map[string]string{"k": "v"})
	f.shows(pod, "v1", map[string]string{"k": "2", "binary": "\x00\x01\xff"})
}

// A reader that opens two files through ..data of one moment sees one state. One whose
// way leads through the link in the moment in which it changes may have to go again.
func TestAReaderSeesOneStateOrTheNext(t *testing.T) {
	f := bed(t, false)
	set := func(n int) {
		f.store.Lock()
		defer f.store.Unlock()
		f.store.configMaps["ns/m"] = map[string]string{"a": fmt.Sprint(n), "b": fmt.Sprint(n)}
	}
	set(0)
	pod := podOf(configVolume("m"))
	f.prepare(pod)
	dir := f.source(pod, "v0")
	g := task.New(context.Background())
	seen, mixed := map[string]bool{}, []string{}
	g.Go("reader", func(ctx context.Context) error {
		for ctx.Err() == nil {
			state := -1
			if err := again(func() (err error) {
				state, err = unix.Open(dir+"/"+dataName, unix.O_RDONLY|unix.O_DIRECTORY, 0)
				return err
			}); err != nil {
				return fmt.Errorf("there is no state: %w", err)
			}
			a, errA := readAt(state, "a")
			b, errB := readAt(state, "b")
			_ = unix.Close(state)
			if errA == nil && errB == nil { // Else the state was removed after it was opened.
				seen[a] = true
				if a != b {
					mixed = append(mixed, a+" and "+b)
				}
			}
			if err := again(func() error { _, err := os.Stat(dir + "/a"); return err }); err != nil {
				return fmt.Errorf("there is no file: %w", err)
			}
			if _, err := os.Lstat(dir + "/a"); err != nil {
				return fmt.Errorf("there is a moment without the link: %w", err)
			}
		}
		return nil
	})
	for n := 1; n <= 300; n++ {
		set(n)
		f.must(f.v.Refresh(context.Background(), pod))
	}
	g.Stop()
	f.must(g.Wait())
	if len(mixed) > 0 || len(seen) < 2 {
		t.Errorf("of %d states seen, mixed: %v", len(seen), mixed)
	}
}

func again(try func() error) (err error) {
	for range 5 {
		if err = try(); err == nil {
			return nil
		}
	}
	return err
}

func readAt(dir int, name string) (string, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	b := make([]byte, 64)
	n, err := unix.Read(fd, b)
	return string(b[:max(n, 0)]), err
}

func TestHostPathsAreWhatTheirTypesSay(t *testing.T) {
	f := bed(t, false)
	dir := t.TempDir()
	f.must(os.Mkdir(dir+"/folder", 0o700))
	f.must(os.WriteFile(dir+"/file", nil, 0o600))
	f.must(os.Symlink("folder", dir+"/link"))
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	f.must(err)
	defer unix.Close(socket)
	f.must(unix.Bind(socket, &unix.SockaddrUnix{Name: dir + "/socket"}))
	found := map[string]string{"/folder": "a directory", "/link": "a directory", "/file": "a file", "/socket": "a socket", "/dev/null": "a character device"}
	kinds := map[corev1.HostPathType]string{
		corev1.HostPathDirectory: "a directory", corev1.HostPathDirectoryOrCreate: "a directory", corev1.HostPathFile: "a file", corev1.HostPathFileOrCreate: "a file",
		corev1.HostPathSocket: "a socket", corev1.HostPathCharDev: "a character device", corev1.HostPathBlockDev: "a block device",
	}
	for path, is := range found {
		at := dir + path
		if strings.HasPrefix(path, "/dev") {
			at = path
		}
		f.prepare(podOf(hostVolume(at, "")))
		for kind, want := range kinds {
			err := f.v.Prepare(context.Background(), podOf(hostVolume(at, kind)))
			if (err == nil) != (is == want) || err != nil && !strings.Contains(err.Error(), "is not "+want) {
				t.Errorf("%s as %s: %v", path, kind, err)
			}
		}
	}
	for kind, want := range kinds {
		at := filepath.Join(dir, "new", string(kind))
		err := f.v.Prepare(context.Background(), podOf(hostVolume(at, kind)))
		switch kind {
		case corev1.HostPathDirectoryOrCreate:
			f.must(err)
			f.prepare(podOf(hostVolume(at, kind)))
			if mode := modeAt(t, at); mode != os.ModeDir|0o755 {
				t.Errorf("made %v", mode)
			}
			f.must(os.RemoveAll(dir + "/new"))
		default:
			if !errors.Is(err, ErrMissing) {
				t.Errorf("%s that is not there: %v", want, err)
			}
		}
	}
	for range 2 {
		f.prepare(podOf(hostVolume(dir+"/made", corev1.HostPathFileOrCreate)))
	}
	if mode := modeAt(t, dir+"/made"); mode != 0o644 {
		t.Errorf("made %v", mode)
	}
	if err := f.v.Prepare(context.Background(), podOf(hostVolume("relative", ""))); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	m := f.mounts(podOf(hostVolume(dir+"/folder/", "")))
	if len(m) != 1 || m[0].Source != dir+"/folder" || m[0].Target != "/v0" || m[0].ReadOnly {
		t.Errorf("%+v", m)
	}
	for kind, want := range map[corev1.HostPathType]bool{"": false, corev1.HostPathCharDev: true} {
		if m := f.mounts(podOf(hostVolume("/dev/null", kind))); len(m) != 1 || m[0].Device != want {
			t.Errorf("a device as %q: %+v", kind, m)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || !slices.ContainsFunc(left, func(e os.DirEntry) bool { return e.Name() == "folder" }) {
		t.Error("what is the node's went", err)
	}
}
