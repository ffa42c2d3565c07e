//go:build linux

package native_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
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
	"github.com/holdfast-db/holdfast/kube/runtime/native"
)

// need leaves out, or fails, what a machine cannot run.
func need(t *testing.T, why string, ok bool) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// node is a kubelet's side, with a node name of its own.
type node struct {
	*native.Engine
	t         *testing.T
	name, dir string
	layer     string
	network   runtime.Network

	mu   sync.Mutex
	wake chan struct{}
}

func newNode(t *testing.T) *node {
	need(t, "runtime native needs root", os.Getuid() == 0)
	n := &node{t: t, name: "t" + strings.ToLower(rand.Text()[:8]), dir: t.TempDir(), wake: make(chan struct{})}
	n.layer = makeLayer(t)
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
		// A first process of a namespace that was killed waits, without memory and groups,
		// for the machine's init to reap what its supervisor would have.
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		left := leftovers(n.name, n.dir)
		for deadline := time.Now().Add(time.Minute); len(left) > 0 && time.Now().Before(deadline); left = leftovers(n.name, n.dir) {
			<-tick.C
		}
		if len(left) > 0 {
			t.Errorf("left: %q", left)
		}
		removeParents(n.name)
	})
	return n
}

// makeLayer is a layer of an image: a shell and its tools, and a list of users.
func makeLayer(t *testing.T) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	need(t, "busybox is not installed (Debian: busybox-static)", err == nil)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil { // It becomes the container's root, for all its users.
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "etc", "tmp", "var"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "busybox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields("sh cat echo ls id sleep mount umount touch mkdir hostname stty grep sed tail dd mknod unshare chmod su wc env readlink nc ip test true dmesg") {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "etc", "passwd"), "root:x:0:0:root:/:/bin/sh\nweb:x:1000:1001:web:/tmp:/bin/sh\n")
	write(t, filepath.Join(dir, "etc", "group"), "root:x:0:\nweb:x:1001:\nextra:x:1005:web\n")
	return dir
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (n *node) restart() {
	n.t.Helper()
	if n.Engine != nil {
		if err := n.Shutdown(); err != nil {
			n.t.Fatal(err)
		}
	}
	e, err := native.New(native.Config{
		Dir: filepath.Join(n.dir, "engine"), Node: n.name, Network: n.network, Logger: hclog.NewNullLogger(), Clock: clock.Real(),
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

// leftovers are what an engine with no pods should not have.
func leftovers(name, dir string) []string {
	var left []string
	for _, pattern := range []string{"/sys/fs/cgroup/*/holdfast-" + name + "/*/pod*", "/sys/fs/cgroup/holdfast-" + name + "/*/pod*"} {
		found, _ := filepath.Glob(pattern)
		left = append(left, found...)
	}
	for _, sub := range []string{"engine/*", "pods/*/engine"} {
		found, _ := filepath.Glob(filepath.Join(dir, sub))
		left = append(left, found...)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir) {
			left = append(left, line)
		}
	}
	pids, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, p := range pids {
		if b, _ := os.ReadFile(p); strings.Contains(string(b), "/holdfast-"+name+"/") {
			// One that waits for its parent to notice is no leftover of ours.
			if stat, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "stat")); !strings.Contains(string(stat), ") Z ") {
				left = append(left, p+" "+string(stat))
			}
		}
	}
	return left
}

// removeParents removes the groups that stay for a node's next pods.
func removeParents(name string) {
	for _, pattern := range []string{"/sys/fs/cgroup/*/holdfast-" + name, "/sys/fs/cgroup/holdfast-" + name} {
		found, _ := filepath.Glob(pattern)
		for _, parent := range found {
			for _, class := range []string{"guaranteed", "burstable", "besteffort"} {
				_ = unix.Rmdir(filepath.Join(parent, class))
			}
			_ = unix.Rmdir(parent)
		}
	}
}

func (n *node) pod(uid string) *runtime.PodSpec {
	return &runtime.PodSpec{UID: uid, Namespace: "default", Name: "pod-" + uid, Hostname: "web", Dir: filepath.Join(n.dir, "pods", uid), Class: runtime.Burstable}
}

func (n *node) open(uid string) {
	n.t.Helper()
	if _, err := n.Open(n.t.Context(), n.pod(uid)); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) sh(uid, name, script string) *runtime.ContainerSpec {
	return &runtime.ContainerSpec{
		UID: uid, Name: name, Image: &runtime.Image{Ref: "busybox", ID: "sha256:0", Layers: []string{n.layer}}, Command: []string{"sh", "-c", script},
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

func (n *node) find(id string) runtime.Container {
	n.t.Helper()
	pods, err := n.List(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	for _, p := range pods {
		for _, c := range p.Containers {
			if c.ID == id {
				return c
			}
		}
	}
	return runtime.Container{}
}

func (n *node) untilExit(id string) runtime.Container {
	n.t.Helper()
	deadline := time.After(time.Minute)
	for {
		n.mu.Lock()
		wake := n.wake
		n.mu.Unlock()
		c := n.find(id)
		if c.Phase == runtime.Exited {
			return c
		}
		select {
		case <-wake:
		case <-deadline:
			n.t.Fatalf("still %+v", c)
		}
	}
}

// run runs a container to its end and returns what it wrote.
func (n *node) run(spec *runtime.ContainerSpec) (runtime.Container, string) {
	n.t.Helper()
	c := n.untilExit(n.start(spec))
	return c, n.log(spec)
}

func (n *node) log(spec *runtime.ContainerSpec) string {
	n.t.Helper()
	b, err := os.ReadFile(spec.Log)
	if err != nil {
		n.t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(line, " ", 4)
		if f[2] == "P" {
			f[3] = strings.TrimSuffix(f[3], "\n")
		}
		out.WriteString(f[3])
	}
	return out.String()
}

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

func TestContainerSeesItsOwnMachine(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	spec := n.sh("u1", "c", `echo pid $$; hostname; cat /etc/hostname; id -u; ls /dev | wc -l; ls /proc/1/fd; cat /proc/self/cgroup | grep -c holdfast; ls /; touch /var/x && echo wrote; grep -c . /proc/mounts >/dev/null; echo $HOME $PATH`)
	start := time.Now()
	c, got := n.run(spec)
	t.Logf("%v\n%s", time.Since(start), got)
	if c.ExitCode != 0 || !strings.HasPrefix(got, "pid 1\nweb\nweb\n0\n") || !strings.Contains(got, "wrote\n") {
		t.Errorf("%+v\n%s", c, got)
	}
	if _, err := os.Stat(filepath.Join(n.layer, "var", "x")); err == nil {
		t.Error("the image was written to")
	}
}

func TestExecJoinsTheContainerWithTheSameRights(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	spec := n.sh("u1", "c", "echo up; sleep 60")
	spec.Image.User = "web"
	spec.Env = []string{"A=b"}
	id := n.start(spec)
	n.waitLog(spec, "up")
	var out bytes.Buffer
	script := `id; echo $A $HOME; cat /proc/1/cmdline; grep -E 'Cap(Eff|Bnd)|NoNewPrivs|Seccomp:' /proc/self/status; cat /proc/self/cgroup | grep -c c.0; hostname; ls /proc/self/fd`
	code, err := n.Exec(t.Context(), id, &runtime.ExecSpec{Command: []string{"sh", "-c", script}, Streams: runtime.Streams{Stdout: &out, Stderr: &out}})
	if code != 0 || err != nil {
		t.Fatal(code, err, out.String())
	}
	t.Log(out.String())
	for _, want := range []string{"uid=1000(web) gid=1001(web)", "1005(extra)", "b /tmp", "CapEff:\t0000000000000000", "CapBnd:\t00000000a80425fb", "NoNewPrivs:\t1", "Seccomp:\t2", "web\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if _, err := n.Exec(t.Context(), id, &runtime.ExecSpec{Command: []string{"absent"}}); !errors.Is(err, runtime.ErrNoCommand) {
		t.Errorf("got %v", err)
	}
}

func TestMemoryLimitIsTheKernelsAndItsKillIsTold(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	spec := n.sh("u1", "c", `a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done`)
	spec.Resources.LimitMemoryBytes = 24 << 20
	c, _ := n.run(spec)
	if c.Reason != runtime.OOMKilled || c.ExitCode != 137 {
		t.Errorf("got %+v", c)
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
	spec := n.sh("u1", "c", `echo up; sleep 60`)
	id := n.start(spec)
	n.waitLog(spec, "up")
	if err := unix.Kill(supervisorOf(t, n, "u1"), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if c := n.untilExit(id); c.Reason != "SupervisorLost" || c.ExitCode != 137 {
		t.Errorf("got %+v", c)
	}
	next := n.sh("u1", "c", "exit 6")
	next.Attempt = 1
	if c, _ := n.run(next); c.ExitCode != 6 {
		t.Errorf("the next attempt: %+v", c)
	}
}
