// Package runtimetest has an engine in memory, for tests of what stands on engines. It
// runs nothing: tests say what becomes of containers. It checks that it is called as
// the contract of engines says.
package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Engine implements runtime.Engine. The fields are set before the first call.
type Engine struct {
	Clock   clock.Clock
	About   runtime.Info
	Changed runtime.Changed
	Misuse  func(text string) // Hears of calls against the contract.

	// Run is what Exec does. Nil: nothing, with success.
	Run func(ctx context.Context, id string, spec *runtime.ExecSpec) (int32, error)
	// Connect is what Dial does. Nil: it is refused.
	Connect func(ctx context.Context, uid string, port uint16) (net.Conn, error)

	mu struct {
		sync.Mutex
		pods  map[string]*pod
		busy  map[string]string // By UID: the call that is under way.
		calls []string
		fails map[string][]error // By call, as "start web".
		last  int
	}
}

type pod struct {
	spec       runtime.PodSpec
	ip         string
	containers []*container
}

type container struct {
	spec     runtime.ContainerSpec
	is       runtime.Container
	stubborn bool
	ended    chan struct{}
	use      runtime.Use
}

// New returns an engine in which nothing runs.
func New(c clock.Clock, misuse func(string)) *Engine {
	e := &Engine{Clock: c, Misuse: misuse, Changed: func(string) {}, About: runtime.Info{Name: "fake", Version: "fake 1", Isolated: true, PodNetwork: true}}
	e.mu.pods, e.mu.busy, e.mu.fails = map[string]*pod{}, map[string]string{}, map[string][]error{}
	return e
}

// Fail has the next call fail: "open UID", "start NAME", "stop NAME", "close UID", "list".
func (e *Engine) Fail(call string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.fails[call] = append(e.mu.fails[call], err)
}

// Calls are all that changed something, in order, with their attempts and graces.
func (e *Engine) Calls() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.mu.calls)
}

// Pods is how many there are.
func (e *Engine) Pods() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.mu.pods)
}

// Spec is what the last attempt of a container was asked for with. Nil: there is none.
func (e *Engine) Spec(uid, name string) *runtime.ContainerSpec {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.lastLocked(uid, name); c != nil {
		s := c.spec
		return &s
	}
	return nil
}

// PodSpec is what a pod was opened with. Nil: it is not there.
func (e *Engine) PodSpec(uid string) *runtime.PodSpec {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.mu.pods[uid]; p != nil {
		s := p.spec
		return &s
	}
	return nil
}

// Exit ends the last attempt of a container by itself.
func (e *Engine) Exit(uid, name string, code int32, reason string) {
	e.mu.Lock()
	c := e.lastLocked(uid, name)
	if c != nil {
		e.exitLocked(c, code, reason)
	}
	e.mu.Unlock()
	e.Changed(uid)
}

// Stubborn has the last attempt of a container take no notice of TERM.
func (e *Engine) Stubborn(uid, name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.lastLocked(uid, name); c != nil {
		c.stubborn = true
	}
}

// Uses sets what the last attempt of a container has used.
func (e *Engine) Uses(uid, name string, use runtime.Use) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.lastLocked(uid, name); c != nil {
		c.use = use
	}
}

// Lose drops a pod, as if whoever watches over it had been killed.
func (e *Engine) Lose(uid string) {
	e.mu.Lock()
	delete(e.mu.pods, uid)
	e.mu.Unlock()
	e.Changed(uid)
}

// Unwire takes the address of a pod, as if whoever opened it had been killed before.
func (e *Engine) Unwire(uid string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.mu.pods[uid]; p != nil {
		p.ip = ""
	}
}

func (e *Engine) lastLocked(uid, name string) *container {
	p := e.mu.pods[uid]
	if p == nil {
		return nil
	}
	for _, c := range slices.Backward(p.containers) {
		if c.spec.Name == name {
			return c
		}
	}
	return nil
}

func (e *Engine) exitLocked(c *container, code int32, reason string) {
	if c.is.Phase == runtime.Running {
		c.is.Phase, c.is.Finished, c.is.ExitCode, c.is.Reason = runtime.Exited, e.Clock.Wall(), code, reason
		close(c.ended)
	}
}

// beginLocked notes a call, and returns the failure that was ordered for it.
func (e *Engine) beginLocked(what, detail string) error {
	e.mu.calls = append(e.mu.calls, what+detail)
	fails := e.mu.fails[what]
	if len(fails) == 0 {
		return nil
	}
	e.mu.fails[what] = fails[1:]
	return fails[0]
}

// alone checks that calls about one pod come one after the other.
func (e *Engine) alone(uid, call string) (done func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if other, ok := e.mu.busy[uid]; ok {
		e.Misuse(fmt.Sprintf("%s while %s is under way", call, other))
	}
	e.mu.busy[uid] = call
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.mu.busy, uid)
	}
}

// Info implements runtime.Engine.
func (e *Engine) Info() runtime.Info { return e.About }

// List implements runtime.Engine.
func (e *Engine) List(context.Context) ([]runtime.Pod, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if fails := e.mu.fails["list"]; len(fails) > 0 {
		e.mu.fails["list"] = fails[1:]
		return nil, fails[0]
	}
	var all []runtime.Pod
	for _, uid := range slices.Sorted(maps.Keys(e.mu.pods)) {
		all = append(all, e.mu.pods[uid].tell())
	}
	return all, nil
}

func (p *pod) tell() runtime.Pod {
	told := runtime.Pod{UID: p.spec.UID, Namespace: p.spec.Namespace, Name: p.spec.Name, IP: p.ip}
	for _, c := range p.containers {
		told.Containers = append(told.Containers, c.is)
	}
	return told
}

// Open implements runtime.Engine.
func (e *Engine) Open(ctx context.Context, spec *runtime.PodSpec) (*runtime.Pod, error) {
	defer e.alone(spec.UID, "open "+spec.UID)()
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.beginLocked("open "+spec.UID, ""); err != nil {
		return nil, err
	}
	p := e.mu.pods[spec.UID]
	if p == nil {
		p = &pod{spec: *spec}
		e.mu.pods[spec.UID] = p
	}
	if p.ip == "" && !spec.HostNetwork && e.About.PodNetwork {
		e.mu.last++
		p.ip = fmt.Sprintf("10.9.0.%d", e.mu.last)
	}
	told := p.tell()
	return &told, ctx.Err()
}

// Start implements runtime.Engine.
func (e *Engine) Start(ctx context.Context, spec *runtime.ContainerSpec) (string, error) {
	defer e.alone(spec.UID, "start "+spec.Name)()
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.beginLocked("start "+spec.Name, fmt.Sprintf(" %d", spec.Attempt)); err != nil {
		return "", err
	}
	p := e.mu.pods[spec.UID]
	if p == nil {
		e.Misuse("start " + spec.Name + " in a pod that is not open")
		return "", runtime.ErrNotFound
	}
	if last := e.lastLocked(spec.UID, spec.Name); last != nil && last.spec.Attempt >= spec.Attempt {
		e.Misuse(fmt.Sprintf("start %s %d after %d", spec.Name, spec.Attempt, last.spec.Attempt))
	}
	c := &container{spec: *spec, ended: make(chan struct{}), is: runtime.Container{
		ID: fmt.Sprintf("%s-%s-%d", spec.UID, spec.Name, spec.Attempt), Name: spec.Name, Attempt: spec.Attempt, ImageID: spec.Image.ID,
		Phase: runtime.Running, Started: e.Clock.Wall(), Log: spec.Log,
	}}
	p.containers = append(p.containers, c)
	return c.is.ID, ctx.Err()
}

func (e *Engine) find(id string) (uid string, c *container) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for uid, p := range e.mu.pods {
		for _, c := range p.containers {
			if c.is.ID == id {
				return uid, c
			}
		}
	}
	return "", nil
}

// Stop implements runtime.Engine.
func (e *Engine) Stop(ctx context.Context, id string, grace time.Duration) error {
	uid, c := e.find(id)
	if c == nil {
		return nil
	}
	e.mu.Lock()
	err := e.beginLocked("stop "+c.spec.Name, fmt.Sprintf(" %v", grace))
	stubborn := c.stubborn
	if err == nil && !stubborn {
		e.exitLocked(c, 143, "")
	}
	e.mu.Unlock()
	if err != nil {
		return err
	}
	if stubborn {
		select {
		case <-c.ended:
		case <-e.Clock.After(grace):
			e.mu.Lock()
			e.exitLocked(c, 137, "")
			e.mu.Unlock()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	e.Changed(uid)
	return nil
}

// Close implements runtime.Engine.
func (e *Engine) Close(_ context.Context, uid string) error {
	defer e.alone(uid, "close "+uid)()
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.beginLocked("close "+uid, ""); err != nil {
		return err
	}
	if p := e.mu.pods[uid]; p != nil {
		for _, c := range p.containers {
			e.exitLocked(c, 137, "")
		}
	}
	delete(e.mu.pods, uid)
	return nil
}

// Exec implements runtime.Engine.
func (e *Engine) Exec(ctx context.Context, id string, spec *runtime.ExecSpec) (int32, error) {
	if _, c := e.find(id); c == nil {
		return 0, runtime.ErrNotFound
	}
	if e.Run == nil {
		return 0, nil
	}
	return e.Run(ctx, id, spec)
}

// Attach implements runtime.Engine.
func (e *Engine) Attach(ctx context.Context, id string, _ runtime.Streams) error {
	_, c := e.find(id)
	if c == nil {
		return runtime.ErrNotFound
	}
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Dial implements runtime.Engine.
func (e *Engine) Dial(ctx context.Context, uid string, port uint16) (net.Conn, error) {
	if e.Connect == nil {
		return nil, errors.New("connection refused")
	}
	return e.Connect(ctx, uid, port)
}

// Usage implements runtime.Engine.
func (e *Engine) Usage(_ context.Context, uid string) (map[string]runtime.Use, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.mu.pods[uid]
	if p == nil {
		return nil, runtime.ErrNotFound
	}
	use := map[string]runtime.Use{}
	for _, c := range p.containers {
		if c.is.Phase == runtime.Running {
			use[c.spec.Name] = c.use
		}
	}
	return use, nil
}

// Shutdown implements runtime.Engine.
func (e *Engine) Shutdown() error { return nil }
