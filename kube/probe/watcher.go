package probe

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/api"
)

// Config is for Watch. All fields are needed but Started, Before and Spread.
type Config struct {
	Target
	Clock  clock.Clock
	Logger hclog.Logger

	// Started is when the container began, by the wall clock: initial delays count
	// from there. The zero value: now.
	Started time.Time
	// Before is what an earlier watcher of the same attempt found. It holds until the
	// probes say otherwise: that a kubelet starts anew makes nothing unready.
	Before State
	// Spread draws from [0,1) the part of a period that passes before the first probe,
	// so that not all containers of a node that starts are asked at once. Nil: the
	// first probe comes at once, as for a container that has just begun.
	Spread func() float64

	// Changed hears that State is another one, from any goroutine. It must not call
	// Close.
	Changed func()
	// Event hears of failures, for an event of the pod (a warning): the first of a row
	// with one text, and then each tenth.
	Event func(reason, message string)
}

// Reasons of events.
const (
	Unhealthy = "Unhealthy"
	Warning   = "ProbeWarning"
)

// State is how a container is.
type State struct {
	Started bool // Its startup probe succeeded, or it has none.
	Ready   bool
}

// Failure is why a container has to be ended.
type Failure struct {
	Message string         // For an event with the reason Killing.
	Grace   *time.Duration // The probe's own. Nil: the pod's.
}

// Watcher asks one container.
type Watcher struct {
	cfg    Config
	begun  time.Duration // Monotonic: when the container started.
	tasks  *task.Group
	vital  context.Context // Of startup and liveness.
	cease  context.CancelFunc
	failed chan Failure
	after  chan struct{} // Closed when the container has started.

	mu struct {
		sync.Mutex
		state  State
		ending bool
	}
}

// Watch begins to ask.
func Watch(cfg Config) *Watcher {
	w := &Watcher{cfg: cfg, tasks: task.New(context.Background()), failed: make(chan Failure, 1), after: make(chan struct{})}
	w.vital, w.cease = context.WithCancel(w.tasks.Context())
	w.begun = cfg.Clock.Mono()
	if !cfg.Started.IsZero() {
		w.begun -= max(0, cfg.Clock.Wall().Sub(cfg.Started))
	}
	c := cfg.Container
	w.mu.state.Started = c.StartupProbe == nil || cfg.Before.Started
	w.mu.state.Ready = w.mu.state.Started && (c.ReadinessProbe == nil || cfg.Before.Ready)
	if w.mu.state.Started {
		close(w.after)
	} else {
		w.tasks.Go("startup probe", w.startup)
	}
	if c.LivenessProbe != nil {
		w.tasks.Go("liveness probe", w.liveness)
	}
	if c.ReadinessProbe != nil {
		w.tasks.Go("readiness probe", w.readiness)
	}
	return w
}

// State is how the container is now.
func (w *Watcher) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.state
}

// Failed gives at most one failure.
func (w *Watcher) Failed() <-chan Failure { return w.failed }

// Ending says that the pod is being ended: whether the container has started, and
// lives, is not asked any more; whether it is ready, is.
func (w *Watcher) Ending() {
	w.mu.Lock()
	w.mu.ending = true
	w.mu.Unlock()
	w.cease()
}

// Close ends all questions and waits for those that are under way.
func (w *Watcher) Close() {
	w.tasks.Stop()
	_ = w.tasks.Wait() // Questions fail in State and Failed only.
	w.cease()
}

func (w *Watcher) startup(context.Context) error {
	p := w.cfg.Container.StartupProbe
	return w.ask(w.vital, p, "Startup", func(r result) bool {
		if r.healthy {
			w.set(func(s *State) { s.Started, s.Ready = true, w.cfg.Container.ReadinessProbe == nil })
			close(w.after)
		} else {
			w.fail("startup", p)
		}
		return false
	})
}

func (w *Watcher) liveness(context.Context) error {
	if !w.hasStarted(w.vital) {
		return nil
	}
	p := w.cfg.Container.LivenessProbe
	return w.ask(w.vital, p, "Liveness", func(r result) bool {
		if !r.healthy {
			w.fail("liveness", p)
		}
		return r.healthy
	})
}

func (w *Watcher) readiness(ctx context.Context) error {
	if !w.hasStarted(ctx) {
		return nil
	}
	return w.ask(ctx, w.cfg.Container.ReadinessProbe, "Readiness", func(r result) bool {
		w.set(func(s *State) { s.Ready = r.healthy })
		return true
	})
}

func (w *Watcher) hasStarted(ctx context.Context) bool {
	select {
	case <-w.after:
		return true
	case <-ctx.Done():
		return false
	}
}

func (w *Watcher) set(change func(*State)) {
	w.mu.Lock()
	before := w.mu.state
	change(&w.mu.state)
	changed := w.mu.state != before
	w.mu.Unlock()
	if changed {
		w.cfg.Changed()
	}
}

func (w *Watcher) fail(kind string, p *corev1.Probe) {
	f := Failure{Message: fmt.Sprintf("Container %s failed %s probe, will be restarted", w.cfg.Container.Name, kind)}
	if s := p.TerminationGracePeriodSeconds; s != nil {
		grace := api.Seconds(*s)
		f.Grace = &grace
	}
	w.mu.Lock()
	if !w.mu.ending {
		select {
		case w.failed <- f:
		default: // Told already.
		}
	}
	w.mu.Unlock()
	w.cease()
}

// ask asks in periods, and tells settled when as many answers of a row were equal as
// the thresholds want, from then on each; until that returns false or ctx ends.
func (w *Watcher) ask(ctx context.Context, p *corev1.Probe, kind string, settled func(result) bool) error {
	period := max(time.Duration(p.PeriodSeconds)*time.Second, periodMin)
	next := max(w.begun+time.Duration(p.InitialDelaySeconds)*time.Second, w.cfg.Clock.Mono())
	if w.cfg.Spread != nil {
		next += time.Duration(w.cfg.Spread() * float64(period))
	}
	row := row{kind: kind}
	for {
		if !w.until(ctx, next) {
			return nil
		}
		next = w.cfg.Clock.Mono() + period
		r := w.cfg.Target.probe(ctx, w.cfg.Clock, p)
		if ctx.Err() != nil {
			return nil // What was cut off says nothing.
		}
		w.tell(&row, r)
		if r.err != nil {
			continue // Nobody knows; it counts as little as if it had not been asked.
		}
		if row.n == 0 || row.healthy != r.healthy {
			row.healthy, row.n = r.healthy, 0
		}
		row.n++
		threshold := p.FailureThreshold
		if r.healthy {
			threshold = p.SuccessThreshold
		}
		if row.n >= int(threshold) && !settled(r) {
			return nil
		}
	}
}

// until waits for a time of the monotonic clock.
func (w *Watcher) until(ctx context.Context, at time.Duration) bool {
	left := at - w.cfg.Clock.Mono()
	if left <= 0 {
		return ctx.Err() == nil
	}
	reached := make(chan struct{})
	timer := w.cfg.Clock.AfterFunc(left, func() { close(reached) })
	defer timer.Stop()
	select {
	case <-reached:
		return true
	case <-ctx.Done():
		return false
	}
}

// row is what a probe answered so far, from the last change on.
type row struct {
	kind    string
	healthy bool
	n       int

	text  string // Of the last event.
	equal int    // Failures with it.
}

// tell makes events of what is not as it should be.
func (w *Watcher) tell(row *row, r result) {
	reason, text := Unhealthy, ""
	switch {
	case r.err != nil:
		text = row.kind + " probe errored: " + r.err.Error()
	case !r.healthy:
		text = row.kind + " probe failed: " + r.message
	case r.warning:
		reason, text = Warning, row.kind+" probe warning: "+r.message
	}
	if text == "" {
		row.text = ""
		return
	}
	if text != row.text {
		row.text, row.equal = text, 0
	}
	if row.equal%equalEvents == 0 {
		w.cfg.Event(reason, clip(text))
	}
	row.equal++
	w.cfg.Logger.Debug("probe", "container", w.cfg.Container.Name, "kind", row.kind, "in a row", row.equal)
}
