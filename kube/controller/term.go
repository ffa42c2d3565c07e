package controller

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/controller/nodelife"
	"github.com/holdfast-db/holdfast/kube/controller/queue"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// term is one leadership.
type term struct {
	cfg      Config
	client   *objects.Client
	clock    clock.Clock
	log      hclog.Logger
	fence    *kubepb.Fence
	views    *views
	recorder *recorder
	loops    []*loop
	quorum   *quorum
	brake    *atomic.Pointer[nodelife.Brake] // For those who watch.
	recovery *recovery
	tasks    []background
}

// background is what runs beside the loops.
type background struct {
	name string
	run  func(context.Context) error
}

// key names an object.
type key struct{ namespace, name string }

func keyOf(o api.Object) key { return key{o.GetNamespace(), o.GetName()} }

func (k key) String() string {
	if k.namespace == "" {
		return k.name
	}
	return k.namespace + "/" + k.name
}

// loop looks at objects of one kind, each by one worker at a time.
type loop struct {
	name    string
	queue   *queue.Queue[key]
	workers int
	waits   bool // While it is not settled what runs, nothing is made of objects.
	// sync looks at one object and does what is next. again: when to look without a
	// change; 0: not.
	sync func(ctx context.Context, k key) (again time.Duration, err error)
}

func newTerm(m *Manager, fence *kubepb.Fence) *term {
	t := &term{cfg: m.cfg, client: m.cfg.Client, clock: m.cfg.Clock, log: m.cfg.Logger, fence: fence, quorum: m.quorum, brake: &m.brake}
	t.views = newViews(m.cfg.Client, m.cfg.Logger)
	t.recorder = newRecorder(t)
	t.recovery = &recovery{term: t}
	t.tasks = append(t.tasks, background{"recovery", t.recovery.run})
	newReplicaSets(t)
	newDeployments(t)
	newNodes(t)
	newEndpoints(t)
	newAutoscalers(t)
	newBudgets(t)
	newCollector(t)
	newNamespaces(t)
	newRequests(t)
	return t
}

func (t *term) loop(name string, sync func(context.Context, key) (time.Duration, error)) *loop {
	l := &loop{name: name, queue: queue.New[key](t.clock), workers: t.cfg.Workers, sync: sync}
	t.loops = append(t.loops, l)
	return l
}

// run starts the loops once everything has been listed.
func (t *term) run(ctx context.Context, g *task.Group) error {
	if err := t.views.synced(ctx); err != nil {
		return err
	}
	if err := t.recovery.first(ctx); err != nil {
		return err
	}
	for _, b := range t.tasks {
		g.Go(b.name, b.run)
	}
	for _, l := range t.loops {
		for n := range l.workers {
			g.Go(l.name+" "+strconv.Itoa(n), func(ctx context.Context) error { return t.work(ctx, l) })
		}
	}
	return nil
}

// Whoever looks at an object looks at what it has: a set of thousands of pods that all
// change would have a processor to itself. After a look it has a pause of restEach
// times as long, from restMin on, restMax at most.
const (
	restEach = 4
	restMin  = 4 * time.Millisecond
	restMax  = 250 * time.Millisecond
)

func (t *term) work(ctx context.Context, l *loop) error {
	for {
		k, err := l.queue.Next(ctx)
		if err != nil {
			return err
		}
		if l.waits && t.recovery.held() {
			l.queue.AddAfter(k, recoveryLook)
			l.queue.Done(k)
			continue
		}
		began := t.clock.Mono()
		again, err := l.sync(ctx, k)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if rest := min(restEach*(t.clock.Mono()-began), restMax); rest >= restMin {
			l.queue.Rest(k, rest)
		}
		switch {
		case errors.Is(err, objects.ErrFenced):
			return err
		case err == nil:
			l.queue.Forget(k)
			if again > 0 {
				l.queue.AddAfter(k, again)
			}
		case stale(err): // What was seen was not the newest: look again.
			t.log.Debug("decided by what had changed", "controller", l.name, "object", k, "error", err)
			l.queue.Retry(k)
		default:
			t.log.Warn("cannot make it so, trying again", "controller", l.name, "object", k, "error", err)
			l.queue.Retry(k)
		}
		l.queue.Done(k)
	}
}

// stale reports whether an error says that a view lagged.
func stale(err error) bool {
	return errors.Is(err, objects.ErrConflict) || errors.Is(err, objects.ErrGuard) || errors.Is(err, objects.ErrNotFound) || errors.Is(err, objects.ErrExists)
}

// unknown reports whether an error leaves open what became of a write: the server has not
// said that it refused it.
func unknown(err error) bool {
	return !stale(err) && !errors.Is(err, objects.ErrInvalid) && !errors.Is(err, objects.ErrDenied) && !errors.Is(err, objects.ErrFull)
}

// fenced is the option that every write has.
func (t *term) fenced() objects.Option { return objects.Option{Fence: t.fence} }

// guard holds while an object is as it was seen.
func guard(o api.Object) objects.Option {
	return objects.Option{Guards: []*kubepb.Guard{{
		Object:          &kubepb.Ref{Kind: api.KindOf(o).Name, Namespace: o.GetNamespace(), Name: o.GetName()},
		ResourceVersion: versionOf(o),
	}}}
}

// exactly holds while the object that is written is as it was seen.
func exactly(o api.Object) objects.Option {
	return objects.Option{UID: string(o.GetUID()), ResourceVersion: versionOf(o)}
}

// same holds while the object is that one.
func same(o api.Object) objects.Option { return objects.Option{UID: string(o.GetUID())} }

func versionOf(o api.Object) int64 {
	n, err := api.ParseVersion(o.GetResourceVersion())
	if err != nil {
		return 0
	}
	return n
}

// memory is what a controller remembers of objects, by key.
type memory[V any] struct {
	mu     sync.Mutex
	values map[key]V
}

func (m *memory[V]) get(k key) V {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[k]
}

func (m *memory[V]) set(k key, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.values == nil {
		m.values = map[key]V{}
	}
	m.values[k] = v
}

func (m *memory[V]) drop(k key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, k)
}

// wrap says which object an error is about.
func wrap(err error, what string, o api.Object) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s %s: %w", what, api.KindOf(o).Name, keyOf(o), err)
}
