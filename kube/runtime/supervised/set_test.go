//go:build linux

package supervised

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/supervisor"
)

func newSet(t *testing.T, change func(c *Config)) *Set {
	t.Helper()
	cfg := Config{
		Dir: t.TempDir(), Logger: hclog.NewNullLogger(), Clock: clock.Real(), Changed: func(string) {}, Sweep: KillMarked(clock.Real()),
		Prepare: func(_ *Pod, b *supervisor.Boot) (uintptr, error) { b.Subreaper = true; return 0, nil },
	}
	if change != nil {
		change(&cfg)
	}
	s, err := NewSet(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range s.Pods() {
			if err := s.Close(context.Background(), p.Spec.UID); err != nil {
				t.Error(err)
			}
		}
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func supervisorPID(t *testing.T, p *Pod) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.Dir(), supervisor.LockFile))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestSupervisorThatDoesNotAnswerIsKilledByClose(t *testing.T) {
	s := newSet(t, nil)
	s.patience = 3 * time.Second // Also for what was killed to be gone.
	if _, err := s.Open(t.Context(), &runtime.PodSpec{UID: "u1", Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	p, err := s.Find("u1")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(supervisorPID(t, p), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context(), "u1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its folder: %v", err)
	}
}

// A pod whose making or removal failed is made or removed by the next call.
func TestFailureInBetweenIsMendedByARepetition(t *testing.T) {
	boom := errors.New("boom")
	var failing atomic.Value // Also read by who watches the pod.
	failing.Store("")
	at := func(name string) error {
		if failing.Load() == name {
			return boom
		}
		return nil
	}
	dir := t.TempDir()
	s := newSet(t, func(c *Config) {
		prepare, sweep := c.Prepare, c.Sweep
		c.Prepare = func(p *Pod, b *supervisor.Boot) (uintptr, error) {
			if err := at("prepare"); err != nil {
				return 0, err
			}
			return prepare(p, b)
		}
		c.Opened = func(_ context.Context, p *Pod, pid int) error { p.IP = strconv.Itoa(pid); return at("opened") }
		c.Sweep = func(p *Pod, records []supervisor.Record) error { return errors.Join(at("sweep"), sweep(p, records)) }
		c.Clean = func(context.Context, *Pod) error { return at("clean") }
	})
	spec := &runtime.PodSpec{UID: "u1", Dir: filepath.Join(dir, "u1")}
	for _, fail := range []string{"sweep", "prepare", "opened"} {
		failing.Store(fail)
		if _, err := s.Open(t.Context(), spec); !errors.Is(err, boom) {
			t.Errorf("%s: %v", fail, err)
		}
		if pods, err := s.List(t.Context()); fail != "sweep" && (len(pods) != 1 || err != nil) {
			t.Errorf("%s: told as %+v, %v", fail, pods, err)
		}
	}
	failing.Store("")
	pod, err := s.Open(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if p, _ := s.Find("u1"); pod.IP != strconv.Itoa(supervisorPID(t, p)) {
		t.Errorf("address %s", pod.IP)
	}
	for _, fail := range []string{"sweep", "clean"} {
		failing.Store(fail)
		if err := s.Close(t.Context(), "u1"); !errors.Is(err, boom) {
			t.Errorf("%s: %v", fail, err)
		}
	}
	failing.Store("")
	if err := s.Close(t.Context(), "u1"); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(s.cfg.Dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A process that does not end though it was killed, as one that waits for a file system which
// does not answer, must not hide what becomes of other pods.
func TestWhatCannotBeKilledOfOnePodHidesNoOther(t *testing.T) {
	var stuck atomic.Bool
	s := newSet(t, func(c *Config) {
		sweep := c.Sweep
		c.Sweep = func(p *Pod, records []supervisor.Record) error {
			if p.Spec.UID == "u1" && stuck.Load() {
				return errors.New("it does not end")
			}
			return sweep(p, records)
		}
	})
	for _, uid := range []string{"u1", "u2"} {
		if _, err := s.Open(t.Context(), &runtime.PodSpec{UID: uid, Dir: t.TempDir()}); err != nil {
			t.Fatal(err)
		}
	}
	p, err := s.Find("u1")
	if err != nil {
		t.Fatal(err)
	}
	record := `{"version":1,"id":"u1.c.0","name":"c","state":"running","log":"/l","started":"2026-01-01T00:00:00Z"}`
	if err := os.WriteFile(filepath.Join(p.Dir(), supervisor.RecordFolder, "c.0.json"), []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	stuck.Store(true)
	if err := unix.Kill(supervisorPID(t, p), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if held, err := s.waitGone(t.Context(), p.Dir(), time.Minute); held || err != nil {
		t.Fatal(held, err)
	}
	pods, err := s.List(t.Context())
	if err != nil || len(pods) != 2 {
		t.Fatalf("%d pods are told, %v", len(pods), err)
	}
	phase := func() runtime.Phase {
		for _, p := range pods {
			if p.UID == "u1" && len(p.Containers) == 1 {
				return p.Containers[0].Phase
			}
		}
		return 0
	}
	if phase() != runtime.Running {
		t.Errorf("what does not end is told as %v", phase())
	}
	if err := s.Stop(t.Context(), "u1.c.0", 0); err == nil {
		t.Error("it is said to have been stopped")
	}
	stuck.Store(false)
	if pods, err = s.List(t.Context()); err != nil || phase() != runtime.Exited {
		t.Errorf("once it has ended it is told as %v, %v", phase(), err)
	}
	if err := s.Stop(t.Context(), "u1.c.0", 0); err != nil {
		t.Error(err)
	}
}

// What a newer kubelet may say to a supervisor, and an older one hear.
func TestUnknownCallsAreRefusedAndUnknownMembersIgnored(t *testing.T) {
	s := newSet(t, nil)
	if _, err := s.Open(t.Context(), &runtime.PodSpec{UID: "u1", Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	p, _ := s.Find("u1")
	c := client{p.Dir()}
	if _, err := c.call(t.Context(), &supervisor.Request{Call: "checkpoint"}); !errors.Is(err, runtime.ErrUnsupported) || !strings.Contains(err.Error(), "checkpoint") {
		t.Errorf("got %v", err)
	}
	ask := func(frame []byte) (byte, string) {
		var conn net.Conn
		err := supervisor.Beneath(p.Dir(), func(socket string) (err error) { conn, err = net.Dial("unix", socket); return err })
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = conn.Write(frame)
		kind, text, _ := supervisor.ReadFrame(conn)
		return kind, string(text)
	}
	kind, text := ask(supervisor.EncodeFrame(supervisor.FrameRequest, []byte(`{"version":9,"call":"hello","later":{"a":[1]}}`)))
	if kind != supervisor.FrameAnswer || !strings.Contains(text, `"version":1`) || !strings.Contains(text, `"uid":"u1"`) {
		t.Errorf("%c %s", kind, text)
	}
	if kind, text = ask(supervisor.EncodeFrame(supervisor.FrameRequest, []byte(`{`))); !strings.Contains(text, "failure") {
		t.Errorf("%c %s", kind, text)
	}
	if kind, text = ask([]byte("GET / HTTP/1.1\r\n\r\n")); kind != 0 {
		t.Errorf("%c %s", kind, text)
	}
	if _, err := c.call(t.Context(), &supervisor.Request{Call: supervisor.CallHello}); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

func TestSupervisorInheritsNoDescriptorOfItsMakersMaker(t *testing.T) {
	name := filepath.Join(t.TempDir(), "held")
	fd, err := unix.Open(name, unix.O_CREAT|unix.O_RDWR, 0o600) // Not marked, as a shell leaves them.
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	s := newSet(t, nil)
	if _, err := s.Open(t.Context(), &runtime.PodSpec{UID: "u1", Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	p, _ := s.Find("u1")
	open, err := filepath.Glob("/proc/" + strconv.Itoa(supervisorPID(t, p)) + "/fd/*")
	if err != nil || len(open) < 3 {
		t.Fatal(open, err)
	}
	for _, link := range open {
		if to, _ := os.Readlink(link); to == name {
			t.Errorf("%s is %s", link, to)
		}
	}
}
