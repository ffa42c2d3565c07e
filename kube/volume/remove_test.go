package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

func (f *fixture) gone(uid string) {
	f.t.Helper()
	if _, err := os.Lstat(filepath.Join(f.cfg.Dir, uid)); !errors.Is(err, os.ErrNotExist) {
		f.t.Errorf("the folder of the pod is there: %v", err)
	}
}

func TestRemovalDoesNotFollowLinks(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		outside := t.TempDir()
		f.must(os.WriteFile(outside+"/file", nil, 0o600))
		pod := podOf(emptyDir("", ""), hostVolume(outside, ""))
		f.prepare(pod)
		dir := f.source(pod, "v0")
		f.must(os.Symlink(outside, dir+"/link"))
		f.must(os.Symlink("/", dir+"/root"))
		f.must(os.Symlink("..", dir+"/up"))
		f.must(os.Link(outside+"/file", dir+"/second"))
		f.must(unix.Mkfifo(dir+"/pipe", 0o600))
		f.must(f.v.Remove(context.Background(), "uid-1"))
		f.gone("uid-1")
		if _, err := os.Stat(outside + "/file"); err != nil {
			t.Error(err)
		}
	})
}

func TestRemovalTakesMountsOffAndLeavesWhatTheyShow(t *testing.T) {
	f := bed(t, true)
	outside := t.TempDir()
	f.must(os.WriteFile(outside+"/file", nil, 0o600))
	pod := podOf(emptyDir("", ""), emptyDir("Memory", ""), hostVolume(outside, ""))
	f.prepare(pod)
	for _, below := range []string{f.source(pod, "v0") + "/a b/c", f.source(pod, "v1") + "/x"} {
		f.must(os.MkdirAll(below, 0o755))
		f.must(unix.Mount(outside, below, "", unix.MS_BIND, ""))
		f.must(unix.Mount(outside, below, "", unix.MS_BIND, "")) // Twice on one place.
	}
	f.must(f.v.Remove(context.Background(), "uid-1"))
	f.gone("uid-1")
	if _, err := os.Stat(outside + "/file"); err != nil {
		t.Error("what was mounted in a volume was removed:", err)
	}
}

// Without a look at mountinfo, as when something is mounted in between.
func TestRemovalStopsAtAMount(t *testing.T) {
	f := bed(t, true)
	outside := t.TempDir()
	f.must(os.WriteFile(outside+"/file", nil, 0o600))
	f.must(os.MkdirAll(f.cfg.Dir+"/tree/below", 0o755))
	f.must(unix.Mount(outside, f.cfg.Dir+"/tree/below", "", unix.MS_BIND, ""))
	err := f.v.root.removeTree("tree")
	if err == nil || !strings.Contains(err.Error(), "something is mounted there") {
		t.Error(err)
	}
	if _, err := os.Stat(outside + "/file"); err != nil {
		t.Error(err)
	}
	f.must(unix.Unmount(f.cfg.Dir+"/tree/below", 0))
}

func TestRemovalOfATreeThatIsDeeperThanAPathCanBe(t *testing.T) {
	f := bed(t, false)
	pod := podOf(emptyDir("", "1Gi"))
	f.prepare(pod)
	at, err := unix.Open(f.source(pod, "v0"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	f.must(err)
	name := strings.Repeat("d", 50)
	for range 1000 {
		f.must(unix.Mkdirat(at, name, 0o755))
		next, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		f.must(err)
		_ = unix.Close(at)
		at = next
		file, err := unix.Openat(at, "file", unix.O_CREAT|unix.O_WRONLY, 0o600)
		f.must(err)
		_ = unix.Close(file)
	}
	_ = unix.Close(at)
	if message, exceeded := f.v.Exceeded(context.Background(), pod); !exceeded || !strings.Contains(message, "deeper than 512") {
		t.Errorf("a tree that cannot be measured: %q %v", message, exceeded)
	}
	f.must(f.v.Remove(context.Background(), "uid-1"))
	f.gone("uid-1")
}

func TestRemovalOfWhatItsOwnerMadeUnreadable(t *testing.T) {
	f := bed(t, false)
	if unix.Geteuid() == 0 { // A thread that is nobody to the file system.
		for dir := f.cfg.Dir; strings.Contains(dir, "Removal"); dir = filepath.Dir(dir) {
			f.must(os.Chown(dir, 65534, 65534))
		}
		lockThreadAs(t, 65534)
		defer lockThreadAs(t, 0)
		f.open()
	}
	pod := podOf(emptyDir("", ""))
	f.prepare(pod)
	dir := f.source(pod, "v0")
	f.must(os.MkdirAll(dir+"/a/b/c", 0o755))
	f.must(os.WriteFile(dir+"/a/b/file", nil, 0))
	f.must(os.Chmod(dir+"/a/b/c", 0))
	f.must(os.Chmod(dir+"/a/b", 0o500))
	f.must(os.Chmod(dir+"/a", 0o200))
	f.must(f.v.Remove(context.Background(), "uid-1"))
	f.gone("uid-1")
}

func TestLeftoversAreFoundAndAPurgeTakesLogsToo(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		pod := podOf(emptyDir("Memory", ""))
		f.prepare(pod)
		f.must(os.MkdirAll(f.cfg.Dir+"/uid-1/logs/c", 0o755))
		f.must(os.MkdirAll(f.cfg.Dir+"/uid-2/engine", 0o755))
		f.must(os.WriteFile(f.cfg.Dir+"/file", nil, 0o600))
		f.open()
		uids, err := f.v.Leftovers()
		f.must(err)
		slices.Sort(uids)
		if got := fmt.Sprint(uids); got != "[uid-1 uid-2]" {
			t.Error(got)
		}
		f.must(f.v.Remove(context.Background(), "uid-1"))
		if entries, err := os.ReadDir(f.cfg.Dir + "/uid-1"); err != nil || len(entries) != 1 || entries[0].Name() != "logs" {
			t.Errorf("after Remove: %v %v", entries, err)
		}
		f.must(f.v.Purge(context.Background(), "uid-1"))
		f.gone("uid-1")
		f.must(f.v.Purge(context.Background(), "uid-2"))
		f.must(f.v.Purge(context.Background(), "uid-3"))
		for _, uid := range []string{"", ".", "..", "a/b", "../pods"} {
			if err := f.v.Purge(context.Background(), uid); !errors.Is(err, ErrInvalid) {
				t.Errorf("%q: %v", uid, err)
			}
			other := pod.DeepCopy()
			other.UID = "../x"
			if err := f.v.Prepare(context.Background(), other); !errors.Is(err, ErrInvalid) {
				t.Error(err)
			}
		}
	})
}

func TestUsageCountsAFileOnceAndNothingElsewhere(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		pod := podOf(emptyDir("", "2Mi"))
		f.prepare(pod)
		dir := f.source(pod, "v0")
		if message, exceeded := f.v.Exceeded(context.Background(), pod); exceeded {
			t.Error(message)
		}
		f.must(os.MkdirAll(dir+"/a/b", 0o755))
		f.must(os.WriteFile(dir+"/a/b/big", make([]byte, 1<<20), 0o600))
		for i := range 8 {
			f.must(os.Link(dir+"/a/b/big", fmt.Sprintf("%s/again%d", dir, i)))
		}
		f.must(os.Symlink("/", dir+"/root"))
		if f.cfg.Mounts {
			outside := t.TempDir()
			f.must(os.WriteFile(outside+"/big", make([]byte, 4<<20), 0o600))
			f.must(os.Mkdir(dir+"/mounted", 0o755))
			f.must(unix.Mount(outside, dir+"/mounted", "", unix.MS_BIND, ""))
		}
		if message, exceeded := f.v.Exceeded(context.Background(), pod); exceeded {
			t.Error(message)
		}
		f.must(os.WriteFile(dir+"/a/more", make([]byte, 1<<20+4096), 0o600))
		if message, exceeded := f.v.Exceeded(context.Background(), pod); !exceeded || message != `Usage of EmptyDir volume "v0" exceeds the limit "2Mi".` {
			t.Errorf("%q %v", message, exceeded)
		}
	})
}

func TestTheLastWordsOfAContainerAreReadAndOlderOnesGo(t *testing.T) {
	f := bed(t, false)
	pod := podOf()
	c := &pod.Spec.Containers[0]
	for attempt := range 4 {
		m, err := f.v.Message(pod, c, attempt)
		f.must(err)
		if m.Target != "/dev/termination-log" || m.ReadOnly || modeAt(t, m.Source) != 0o666 {
			t.Errorf("%+v", m)
		}
		f.must(os.WriteFile(m.Source, []byte(fmt.Sprint("attempt ", attempt)), 0o666))
	}
	for attempt, want := range []string{"", "", "attempt 2", "attempt 3", ""} {
		if got := f.v.ReadMessage("uid-1", "c", attempt); got != want {
			t.Errorf("attempt %d said %q", attempt, got)
		}
	}
	c.TerminationMessagePath = "tmp/last"
	m, err := f.v.Message(pod, c, 3) // Again: the kubelet died before the start.
	f.must(err)
	if m.Target != "/tmp/last" || f.v.ReadMessage("uid-1", "c", 3) != "" {
		t.Errorf("%+v", m)
	}
	f.must(os.WriteFile(m.Source, []byte(strings.Repeat("x", 5000)+"\xff"), 0o666))
	if got := f.v.ReadMessage("uid-1", "c", 3); len(got) != 4096 {
		t.Errorf("%d bytes", len(got))
	}
	f.must(os.Remove(m.Source))
	f.must(os.Symlink("/etc/hostname", m.Source))
	if got := f.v.ReadMessage("uid-1", "c", 3); got != "" {
		t.Errorf("read by a link: %q", got)
	}
	f.must(os.Remove(m.Source))
	f.must(unix.Mkfifo(m.Source, 0o666))
	if got := f.v.ReadMessage("uid-1", "c", 3); got != "" {
		t.Errorf("read from a pipe: %q", got)
	}
	f.must(f.v.Remove(context.Background(), "uid-1"))
	f.gone("uid-1")
}

// errDeath is where the process dies.
var errDeath = errors.New("killed")

// phase is a part of a pod's life, and how it can be seen to be over.
type phase struct {
	name string
	do   func() error
	is   func()
}

func (f *fixture) life(pod *corev1.Pod) []phase {
	state := func(n string) {
		f.store.secrets["ns/s"] = map[string]string{"k": n, "k" + n: ""}
		f.store.configMaps["ns/m"] = map[string]string{"a": n}
	}
	return []phase{
		{"prepare", func() error { state("1"); return f.v.Prepare(context.Background(), pod) }, func() {
			f.shows(pod, "v2", map[string]string{"k": "1", "k1": ""})
			f.shows(pod, "v3", map[string]string{"x/y/a": "1"})
			if mode := modeAt(f.t, f.source(pod, "v0")) & os.ModePerm; mode != 0o777 {
				f.t.Errorf("mode %v", mode)
			}
		}},
		{"mounts", func() error { _, err := f.v.Mounts(pod, &pod.Spec.Containers[0], nil); return err }, func() {
			if mode := modeAt(f.t, f.mounts(pod)[0].Source) & os.ModePerm; mode != 0o777 {
				f.t.Errorf("mode %v of a sub-path", mode)
			}
		}},
		{"message", func() error { _, err := f.v.Message(pod, &pod.Spec.Containers[0], 0); return err }, func() {}},
		{"refresh", func() error { state("2"); return f.v.Refresh(context.Background(), pod) }, func() {
			f.shows(pod, "v2", map[string]string{"k": "2", "k2": ""})
			f.shows(pod, "v3", map[string]string{"x/y/a": "2"})
		}},
		{"remove", func() error { return f.v.Remove(context.Background(), "uid-1") }, func() { f.gone("uid-1") }},
	}
}

// The kubelet is killed before each change that it makes to the disk, from the first on,
// through a pod's whole life; the next kubelet brings each to its end.
func TestADeathBeforeAnyChangeIsMendedByTheNextKubelet(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		pod := podOf(emptyDir("", ""), emptyDir("Memory", "1Mi"), secretVolume("s"), configVolume("m", corev1.KeyToPath{Key: "a", Path: "x/y/a"}))
		pod.Spec.Containers[0].VolumeMounts[0].SubPath = "sub/path"
		if f.cfg.Mounts {
			pod = bedGroup(pod)
		}
		life := f.life(pod)
		deaths := 0
		for step, phase := range life {
			for at := 1; ; at++ {
				f.allowed = nil
				for _, before := range life[:step] {
					f.must(before.do())
				}
				n := 0
				f.allowed = func(string) error {
					if n++; n >= at {
						return errDeath
					}
					return nil
				}
				err := phase.do()
				f.allowed = nil
				f.open()
				if err == nil {
					break // It makes fewer changes than that.
				}
				deaths++
				if !errors.Is(err, errDeath) {
					t.Fatalf("%s, at change %d: %v", phase.name, at, err)
				}
				f.must(phase.do())
				phase.is()
				f.must(f.v.Remove(context.Background(), "uid-1"))
				f.gone("uid-1")
			}
			f.must(f.v.Remove(context.Background(), "uid-1"))
		}
		t.Logf("%d deaths", deaths)
		if deaths < 60 {
			t.Errorf("only %d deaths", deaths)
		}
	})
}
