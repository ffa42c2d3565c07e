package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// scene is a case that runs.
type scene struct {
	*testing.T
	ctx    context.Context
	setup  Setup
	node   *Node
	engine runtime.Engine
	opened []*runtime.PodSpec

	mu      sync.Mutex
	changed map[string]int // How often the engine said so, by UID.
}

// another returns a new engine, which takes the place of the one before.
func (s *scene) another() runtime.Engine {
	s.Helper()
	if s.engine != nil {
		s.ok(s.engine.Shutdown())
	}
	return s.setup.Engine(s.T, s.node, func(uid string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.changed == nil {
			s.changed = map[string]int{}
		}
		s.changed[uid]++
	})
}

func (s *scene) heard(uid string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed[uid]
}

// close ends a case: nothing may be left of its pods.
func (s *scene) close() {
	if s.engine == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeMax) // That of the case may have ended.
	defer cancel()
	var uids []string
	for _, spec := range s.opened {
		if err := s.engine.Close(ctx, spec.UID); err != nil {
			s.Errorf("close %s: %v", spec.Name, err)
		}
		uids = append(uids, spec.UID)
	}
	if s.Failed() {
		s.tellLogs()
	}
	if err := s.engine.Shutdown(); err != nil {
		s.Errorf("shutdown: %v", err)
	}
	if len(uids) > 0 {
		var left []string
		if !poll(func() bool { left = Left(s.T, uids...); return len(left) == 0 }, time.Minute) {
			s.Errorf("left after all pods were closed:\n%s", strings.Join(left, "\n"))
		}
	}
	if s.setup.Left != nil {
		if left := s.setup.Left(s.T, s.node); len(left) > 0 {
			s.Errorf("the engine still has\n%s", strings.Join(left, "\n"))
		}
	}
}

func (s *scene) tellLogs() {
	for _, spec := range s.opened {
		logs, _ := filepath.Glob(filepath.Join(spec.Dir, "logs", "*", "*"))
		for _, name := range logs {
			if b, err := os.ReadFile(name); err == nil && len(b) < 20_000 {
				s.Logf("%s:\n%s", name, b)
			}
		}
	}
}

// poll asks until something is so, or for as long as that may take.
func poll(so func() bool, within time.Duration) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); ; <-tick.C {
		if so() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// until waits for something, and fails if it does not come.
func (s *scene) until(what string, so func() bool) {
	s.Helper()
	if !poll(so, time.Minute) {
		s.Fatalf("in vain: %s", what)
	}
}

func (s *scene) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *scene) wraps(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("error is %v, want one that wraps %q", err, want)
	}
}

func (s *scene) equal(what string, got, want any) {
	s.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		s.Errorf("%s is %s, want %s", what, g, w)
	}
}

// podSpec is a pod that is not opened yet.
func (s *scene) podSpec() *runtime.PodSpec {
	r := random(16)
	uid := strings.Join([]string{r[:8], r[8:12], r[12:16], r[16:20], r[20:]}, "-")
	spec := &runtime.PodSpec{
		UID: uid, Namespace: "conformance", Name: "pod-" + r[:8], Hostname: "pod-" + r[:8],
		Dir: filepath.Join(s.node.Dir, "pods", uid), Class: runtime.Burstable,
	}
	must(s.T, os.MkdirAll(filepath.Join(spec.Dir, "logs"), 0o755))
	return spec
}

// pod opens one.
func (s *scene) pod(change ...func(*runtime.PodSpec)) *runtime.PodSpec {
	s.Helper()
	spec := s.podSpec()
	for _, f := range change {
		f(spec)
	}
	s.open(spec)
	return spec
}

func (s *scene) open(spec *runtime.PodSpec) *runtime.Pod {
	s.Helper()
	s.opened = append(s.opened, spec)
	pod, err := s.engine.Open(s.ctx, spec)
	s.ok(err)
	return pod
}

// spec is a container of a pod that lets the program do something.
func (s *scene) spec(pod *runtime.PodSpec, args ...string) *runtime.ContainerSpec {
	c := &runtime.ContainerSpec{UID: pod.UID, Image: s.setup.Images.Plain, Args: args, Env: []string{mark(pod)}}
	s.named(pod, c, "main", 0)
	return c
}

// mark is a variable by which the processes of a pod are found.
func mark(pod *runtime.PodSpec) string { return "CONFORMANCE_POD=" + pod.UID }

// named gives a container its name and attempt.
func (s *scene) named(pod *runtime.PodSpec, c *runtime.ContainerSpec, name string, attempt int) {
	c.Name, c.Attempt = name, attempt
	c.Log = filepath.Join(pod.Dir, "logs", name, strconv.Itoa(attempt)+".log")
	must(s.T, os.MkdirAll(filepath.Dir(c.Log), 0o755))
}

func (s *scene) start(c *runtime.ContainerSpec) string {
	s.Helper()
	id, err := s.engine.Start(s.ctx, c)
	s.ok(err)
	return id
}

// ready starts a container and waits until it says a word, which is "ready" if it is
// not another.
func (s *scene) ready(c *runtime.ContainerSpec, word ...string) string {
	s.Helper()
	id := s.start(c)
	s.says(c, append(word, "ready")[0])
	return id
}

// says waits for a line of a container that begins with a word, and returns it.
func (s *scene) says(c *runtime.ContainerSpec, word string) string {
	s.Helper()
	var line string
	s.until(c.Name+" says "+word, func() bool {
		for l := range strings.Lines(text(c.Log, "")) {
			if strings.HasPrefix(l, word) {
				line = strings.TrimSpace(l)
				return true
			}
		}
		return false
	})
	return line
}

// containers lists those of a pod.
func (s *scene) containers(pod *runtime.PodSpec) []runtime.Container {
	s.Helper()
	p := s.listed(pod.UID)
	if p == nil {
		return nil
	}
	return p.Containers
}

// listed is a pod as the engine has it, or nil.
func (s *scene) listed(uid string) *runtime.Pod {
	s.Helper()
	pods, err := s.engine.List(s.ctx)
	s.ok(err)
	for i := range pods {
		if pods[i].UID == uid {
			return &pods[i]
		}
	}
	return nil
}

// container is one of a pod as the engine has it, or nil.
func (s *scene) container(pod *runtime.PodSpec, id string) *runtime.Container {
	s.Helper()
	for _, c := range s.containers(pod) {
		if c.ID == id {
			return &c
		}
	}
	return nil
}

// ended waits for the end of a container.
func (s *scene) ended(pod *runtime.PodSpec, id string) runtime.Container {
	s.Helper()
	var c *runtime.Container
	s.until("the end of "+id, func() bool {
		c = s.container(pod, id)
		return c != nil && c.Phase == runtime.Exited
	})
	return *c
}

// output runs a container to its end and returns what it wrote to standard output.
func (s *scene) output(pod *runtime.PodSpec, c *runtime.ContainerSpec) string {
	s.Helper()
	end := s.ended(pod, s.start(c))
	if end.ExitCode != 0 {
		s.Fatalf("exit code %d, %s %s: %s", end.ExitCode, end.Reason, end.Message, text(c.Log, ""))
	}
	return text(c.Log, "stdout")
}

// report is what the program tells of itself.
type report struct {
	Args, Env          []string
	Dir, Hostname      string
	PID, UID, GID      int
	Groups             []int
	Status, Namespaces map[string]string
	TTY                bool
}

func (r *report) env(name string) string {
	for _, e := range r.Env {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}

// reports runs a container that reports. The change is made to its spec.
func (s *scene) reports(change func(c *runtime.ContainerSpec)) *report {
	s.Helper()
	pod := s.pod()
	c := s.spec(pod, "report")
	change(c)
	return s.parse(s.output(pod, c))
}

func (s *scene) parse(line string) *report {
	s.Helper()
	r := &report{}
	if err := json.Unmarshal([]byte(line), r); err != nil {
		s.Fatalf("%v in %q", err, line)
	}
	return r
}

// exec runs a command of the program in a container.
func (s *scene) exec(id string, args ...string) (code int32, stdout, stderr string) {
	s.Helper()
	var out, errs buffer
	code, err := s.engine.Exec(s.ctx, id, &runtime.ExecSpec{
		Command: append([]string{s.setup.Files.Program}, args...), Streams: runtime.Streams{Stdout: &out, Stderr: &errs}})
	s.ok(err)
	return code, out.String(), errs.String()
}

// ask says a line to a port of a pod and returns the answer.
func (s *scene) ask(pod *runtime.PodSpec, port, line string) string {
	s.Helper()
	n, err := strconv.ParseUint(port, 10, 16)
	s.ok(err)
	conn, err := s.engine.Dial(s.ctx, pod.UID, uint16(n))
	s.ok(err)
	defer conn.Close()
	return s.exchange(conn, line)
}

func (s *scene) exchange(conn net.Conn, line string) string {
	s.Helper()
	_, err := fmt.Fprintln(conn, line)
	s.ok(err)
	b := make([]byte, 200)
	n, err := conn.Read(b)
	if n == 0 {
		s.ok(err)
	}
	return strings.TrimSpace(string(b[:n]))
}

// buffer may be written by one while another reads it.
type buffer struct {
	mu   sync.Mutex
	text []byte
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	return len(p), nil
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}
