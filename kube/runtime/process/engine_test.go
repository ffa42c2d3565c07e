//go:build linux

package process_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/process"
)

// node is a kubelet's side: an engine with pods, which the test closes at its end.
type node struct {
	*process.Engine
	t    *testing.T
	dir  string
	mu   sync.Mutex
	wake chan struct{}
}

func newNode(t *testing.T) *node {
	n := &node{t: t, dir: t.TempDir(), wake: make(chan struct{})}
	n.restart()
	t.Cleanup(func() {
		pods, err := n.List(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, p := range pods {
			if err := n.Close(context.Background(), p.UID); err != nil {
				t.Error(err)
			}
		}
		if err := n.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// restart makes the engine anew over the same folder, as another kubelet would.
func (n *node) restart() {
	n.t.Helper()
	if n.Engine != nil {
		if err := n.Shutdown(); err != nil {
			n.t.Fatal(err)
		}
	}
	e, err := process.New(process.Config{
		Dir: filepath.Join(n.dir, "engine"), Logger: hclog.NewNullLogger(), Clock: clock.Real(),
		Changed: func(string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			close(n.wake)
			n.wake = make(chan struct{})
		},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.Engine = e
}

func (n *node) pod(uid string) *runtime.PodSpec {
	return &runtime.PodSpec{UID: uid, Namespace: "default", Name: "pod-" + uid, Hostname: "web", Dir: filepath.Join(n.dir, "pods", uid)}
}

func (n *node) open(uid string) {
	n.t.Helper()
	if _, err := n.Open(n.t.Context(), n.pod(uid)); err != nil {
		n.t.Fatal(err)
	}
}

// sh is a container that runs a script with the node's shell.
func (n *node) sh(uid, name, script string) *runtime.ContainerSpec {
	return &runtime.ContainerSpec{
		UID: uid, Name: name, Image: &runtime.Image{Ref: "none", ID: "none"}, Command: []string{"sh", "-c", script},
		Log: filepath.Join(n.dir, "pods", uid, "logs", name, "0.log"),
	}
}

func (n *node) start(spec *runtime.ContainerSpec) string {
	n.t.Helper()
	id, err := n.Start(n.t.Context(), spec)
	if err != nil {
		n.t.Fatal(err)
	}
	return id
}

// find returns a container as List has it.
func (n *node) find(id string) (runtime.Container, bool) {
	n.t.Helper()
	pods, err := n.List(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	for _, p := range pods {
		for _, c := range p.Containers {
			if c.ID == id {
				return c, true
			}
		}
	}
	return runtime.Container{}, false
}

// until waits for a container to be so. Each change that is told is a reason to look.
func (n *node) until(id string, so func(c runtime.Container) bool) runtime.Container {
	n.t.Helper()
	deadline := time.After(time.Minute)
	for {
		n.mu.Lock()
		wake := n.wake
		n.mu.Unlock()
		c, _ := n.find(id)
		if so(c) {
			return c
		}
		select {
		case <-wake:
		case <-deadline:
			n.t.Fatalf("still %+v", c)
		}
	}
}

func exited(c runtime.Container) bool { return c.Phase == runtime.Exited }

func (n *node) log(spec *runtime.ContainerSpec) string {
	n.t.Helper()
	b, err := os.ReadFile(spec.Log)
	if err != nil {
		n.t.Fatal(err)
	}
	var out []string
	part := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(line, " ", 4)
		if f[2] == "P" {
			f[3] = strings.TrimSuffix(f[3], "\n")
		}
		if !part[f[1]] {
			f[3] = f[1][3:] + ":" + f[3]
		}
		part[f[1]] = f[2] == "P"
		out = append(out, f[3])
	}
	return strings.Join(out, "")
}

func TestContainerRunsAndItsEndIsOnRecord(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	spec := n.sh("u1", "c", `echo "$NAME in $(basename $PWD)"; echo oh >&2; exit 3`)
	spec.Env = []string{"NAME=first", "NAME=second"}
	spec.WorkingDir = "/var/data"
	id := n.start(spec)
	c := n.until(id, exited)
	if c.ExitCode != 3 || c.Reason != "" || c.Started.IsZero() || c.Finished.Before(c.Started) {
		t.Errorf("got %+v", c)
	}
	if got := n.log(spec); got != "out:second in data\nerr:oh\n" && got != "err:oh\nout:second in data\n" {
		t.Errorf("log %q", got)
	}
	if again := n.start(spec); again != id {
		t.Errorf("started again as %s", again)
	}
	if c := n.until(id, exited); c.ExitCode != 3 {
		t.Errorf("a repeated start changed it to %+v", c)
	}
	n.restart()
	if c, _ := n.find(id); c.ExitCode != 3 || c.Phase != runtime.Exited {
		t.Errorf("another kubelet sees %+v", c)
	}
}

func TestImageIsTheRootAndStaysAsItWas(t *testing.T) {
	n := newNode(t)
	top, bottom := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		filepath.Join(top, "etc", "conf"): "top", filepath.Join(bottom, "etc", "conf"): "bottom", filepath.Join(bottom, "etc", "other"): "other",
		filepath.Join(top, "etc", ".wh.gone"): "", filepath.Join(bottom, "etc", "gone"): "gone", filepath.Join(bottom, "bin", "hello"): "#!/bin/sh\necho hello from $0\ncat etc/conf etc/other etc/link data/f\nls etc\necho changed >etc/conf\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o755&^(0o111*uint32mode(!strings.Contains(name, "hello")))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/other", filepath.Join(bottom, "etc", "link")); err != nil {
		t.Fatal(err)
	}
	volume := t.TempDir()
	if err := os.WriteFile(filepath.Join(volume, "f"), []byte("file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.open("u1")
	spec := n.sh("u1", "c", "")
	spec.Command = []string{"/bin/hello"}
	spec.Image.Layers = []string{top, bottom}
	spec.Mounts = []runtime.Mount{{Source: volume, Target: "/data"}}
	c := n.until(n.start(spec), exited)
	got := n.log(spec)
	if c.ExitCode != 0 || !strings.Contains(got, "topotherotherfile\n") || strings.Contains(got, "gone") || !strings.Contains(got, filepath.Join("root", "bin", "hello")) {
		t.Errorf("%+v, log\n%s", c, got)
	}
	if b, _ := os.ReadFile(filepath.Join(top, "etc", "conf")); string(b) != "top" {
		t.Errorf("the image holds %q now", b)
	}
}

func uint32mode(yes bool) os.FileMode {
	if yes {
		return 1
	}
	return 0
}

func TestWhatAPlainProcessCannotHaveIsRefusedWithTheField(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	other := int64(os.Getuid()) + 1
	for want, change := range map[string]func(s *runtime.ContainerSpec){
		"runAsUser":              func(s *runtime.ContainerSpec) { s.Security.User = &other },
		"runAsGroup":             func(s *runtime.ContainerSpec) { s.Security.Group = &other },
		"supplementalGroups":     func(s *runtime.ContainerSpec) { s.Security.Groups = []int64{7} },
		"readOnlyRootFilesystem": func(s *runtime.ContainerSpec) { s.Security.ReadOnlyRoot = true },
		"capabilities.add":       func(s *runtime.ContainerSpec) { s.Security.AddCapabilities = []string{"NET_ADMIN"} },
		"lies in mount": func(s *runtime.ContainerSpec) {
			s.Mounts = []runtime.Mount{{Source: "/tmp", Target: "/a"}, {Source: "/tmp", Target: "/a/b"}}
		},
	} {
		spec := n.sh("u1", "c", "true")
		change(spec)
		_, err := n.Start(t.Context(), spec)
		if !errors.Is(err, runtime.ErrUnsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for _, command := range [][]string{{"no-such-command"}, {"/no/such/file"}, {n.dir}} {
		spec := n.sh("u1", "c", "")
		spec.Command = command
		if _, err := n.Start(t.Context(), spec); !errors.Is(err, runtime.ErrNoCommand) {
			t.Errorf("%q: %v", command, err)
		}
	}
	if pods, _ := n.List(t.Context()); len(pods) != 1 || len(pods[0].Containers) != 0 {
		t.Errorf("what did not begin is told: %+v", pods)
	}
}

func TestStopSendsTheSignalAndKillsAfterGrace(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	kind := n.sh("u1", "kind", `trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done`)
	rude := n.sh("u1", "rude", `trap '' TERM; echo up; while :; do sleep 0.05; done`)
	usr := n.sh("u1", "usr", `trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done`)
	usr.Image.StopSignal = "SIGUSR1"
	for _, c := range []struct {
		spec  *runtime.ContainerSpec
		grace time.Duration
		code  int32
	}{{kind, time.Minute, 7}, {rude, 100 * time.Millisecond, 137}, {usr, time.Minute, 9}} {
		id := n.start(c.spec)
		n.waitLog(c.spec, "up")
		if err := n.Stop(t.Context(), id, c.grace); err != nil {
			t.Fatal(err)
		}
		if got, _ := n.find(id); got.Phase != runtime.Exited || got.ExitCode != c.code {
			t.Errorf("%s: %+v", c.spec.Name, got)
		}
		if err := n.Stop(t.Context(), id, c.grace); err != nil {
			t.Errorf("stopped again: %v", err)
		}
	}
	if err := n.Stop(t.Context(), "u1.none.0", 0); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

// waitLog waits until a container has written something.
func (n *node) waitLog(spec *runtime.ContainerSpec, text string) {
	n.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		if b, _ := os.ReadFile(spec.Log); strings.Contains(string(b), text) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			n.t.Fatalf("%s never wrote %q", spec.Name, text)
		}
	}
}

func TestEndedAttemptsBeforeTheLastAreRemovedWithTheirLogs(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	var ids, logs []string
	for attempt := range 4 {
		spec := n.sh("u1", "c", "echo "+strconv.Itoa(attempt))
		spec.Attempt = attempt
		spec.Log = strings.Replace(spec.Log, "0.log", strconv.Itoa(attempt)+".log", 1)
		id := n.start(spec)
		n.until(id, exited)
		ids, logs = append(ids, id), append(logs, spec.Log)
	}
	for i := range ids {
		_, there := n.find(ids[i])
		_, err := os.Stat(logs[i])
		if want := i >= 2; there != want || (err == nil) != want {
			t.Errorf("attempt %d: told %v, log %v", i, there, err)
		}
	}
}

func TestMemoryAboveTheLimitIsKilledAndCalledSoft(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	spec := n.sh("u1", "c", `a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done`)
	spec.Resources.LimitMemoryBytes = 48 << 20
	c := n.until(n.start(spec), exited)
	if c.Reason != runtime.OOMKilled || c.ExitCode != 137 || !strings.Contains(c.Message, "soft") {
		t.Errorf("got %+v", c)
	}
}

func TestUsageCountsChildren(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	spec := n.sh("u1", "c", `(i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; sleep 60) & wait`)
	n.start(spec)
	n.waitLog(spec, "done")
	u, err := n.Usage(t.Context(), "u1")
	if err != nil || u["c"].CPU == 0 || u["c"].MemoryBytes < 100<<10 {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestExecHasTheEnvironmentAndItsOwnStreams(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	spec := n.sh("u1", "c", "sleep 60")
	spec.Env = []string{"A=b"}
	id := n.start(spec)
	var out, errs bytes.Buffer
	code, err := n.Exec(t.Context(), id, &runtime.ExecSpec{
		Command: []string{"sh", "-c", "read x; echo $A $x; echo no >&2; exit 4"},
		Streams: runtime.Streams{Stdin: strings.NewReader("in\n"), Stdout: &out, Stderr: &errs},
	})
	if code != 4 || err != nil || out.String() != "b in\n" || errs.String() != "no\n" {
		t.Errorf("exit %d, %v, %q, %q", code, err, out.String(), errs.String())
	}
	sizes := make(chan runtime.Size, 1)
	sizes <- runtime.Size{Columns: 91, Rows: 31}
	out.Reset()
	code, err = n.Exec(t.Context(), id, &runtime.ExecSpec{
		Command: []string{"sh", "-c", `until stty size | grep -q '31 91'; do sleep 0.01; done; test -t 0 && stty size`}, TTY: true,
		Streams: runtime.Streams{Stdout: &out, Resize: sizes},
	})
	if code != 0 || err != nil || strings.TrimSpace(out.String()) != "31 91" {
		t.Errorf("terminal: exit %d, %v, %q", code, err, out.String())
	}
	if _, err := n.Exec(t.Context(), id, &runtime.ExecSpec{Command: []string{"absent"}}); !errors.Is(err, runtime.ErrNoCommand) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	go func() { _, _ = bufReadByte(pr); cancel() }()
	_, err = n.Exec(ctx, id, &runtime.ExecSpec{Command: []string{"sh", "-c", "echo $$; exec sleep 77.25"}, Streams: runtime.Streams{Stdout: pw}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	waitNoProcess(t, "sleep\x0077.25")
	if err := n.Stop(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Exec(t.Context(), id, &runtime.ExecSpec{Command: []string{"true"}}); !errors.Is(err, runtime.ErrNotRunning) {
		t.Errorf("got %v", err)
	}
}

func bufReadByte(r io.Reader) (byte, error) {
	var b [64]byte
	_, err := r.Read(b[:])
	return b[0], err
}

// processes whose command line holds a text.
func processes(text string) []int {
	var found []int
	names, _ := os.ReadDir("/proc")
	for _, e := range names {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if b, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline"); bytes.Contains(b, []byte(text)) {
				found = append(found, pid)
			}
		}
	}
	return found
}

func waitNoProcess(t *testing.T, text string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for len(processes(text)) > 0 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("still there: %v", processes(text))
		}
	}
}

func TestAttachSharesWhatIsWrittenAndRead(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	spec := n.sh("u1", "c", `echo up; read x; echo got $x; read y; exit 5`)
	spec.Stdin = true
	id := n.start(spec)
	n.waitLog(spec, "up")
	var out bytes.Buffer
	in, feed := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- n.Attach(t.Context(), id, runtime.Streams{Stdin: in, Stdout: &out}) }()
	_, _ = feed.Write([]byte("one\n"))
	n.waitLog(spec, "got one")
	_, _ = feed.Write([]byte("two\n"))
	feed.Close()
	if err := <-done; err != nil || out.String() != "got one\n" {
		t.Errorf("%v, %q", err, out.String())
	}
	if c := n.until(id, exited); c.ExitCode != 5 {
		t.Errorf("got %+v", c)
	}
}

func TestDialReachesAPortOfTheNode(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := n.Dial(t.Context(), "u1", uint16(l.Addr().(*net.TCPAddr).Port))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if _, err := n.Dial(t.Context(), "none", 1); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestCloseLeavesNothingButLogs(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	// One that leaves its group, and one that gives its environment away too.
	spec := n.sh("u1", "c", `setsid sleep 88.5 & env -i setsid sleep 88.75 & echo up; sleep 88.125`)
	n.start(spec)
	n.waitLog(spec, "up")
	for range 2 {
		if err := n.Close(t.Context(), "u1"); err != nil {
			t.Fatal(err)
		}
	}
	if left := processes("sleep\x0088."); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	files, _ := filepath.Glob(filepath.Join(n.dir, "pods", "u1", "*"))
	if len(files) != 1 || filepath.Base(files[0]) != "logs" {
		t.Errorf("left: %q", files)
	}
	if pods, err := n.List(t.Context()); len(pods) != 0 || err != nil {
		t.Errorf("%+v, %v", pods, err)
	}
	if index, _ := os.ReadDir(filepath.Join(n.dir, "engine")); len(index) != 0 {
		t.Errorf("left: %v", index)
	}
}

func supervisorOf(t *testing.T, n *node, uid string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, "pods", uid, "engine", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestDeadSupervisorTakesItsContainersWithIt(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	spec := n.sh("u1", "c", `setsid sleep 99.5 & echo up; sleep 99.25`)
	id := n.start(spec)
	n.waitLog(spec, "up")
	if err := unix.Kill(supervisorOf(t, n, "u1"), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c := n.until(id, exited)
	if c.Reason != "SupervisorLost" || c.ExitCode != 137 || c.Message == "" {
		t.Errorf("got %+v", c)
	}
	if left := processes("sleep\x0099."); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	next := n.sh("u1", "c", "exit 6")
	next.Attempt = 1
	if c := n.until(n.start(next), exited); c.ExitCode != 6 {
		t.Errorf("the next attempt: %+v", c)
	}
	if c, _ := n.find(id); c.Reason != "SupervisorLost" {
		t.Errorf("the last one is %+v now", c)
	}
}

func TestCloseThatGaveUpWithItsContextCanBeRepeated(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	spec := n.sh("u1", "c", `echo up; sleep 66.25`)
	n.start(spec)
	n.waitLog(spec, "up")
	if err := unix.Kill(supervisorOf(t, n, "u1"), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := n.Close(ctx, "u1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := unix.Kill(supervisorOf(t, n, "u1"), unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(t.Context(), "u1"); err != nil {
		t.Error(err)
	}
	if left := processes("sleep\x0066.25"); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}
