// Package task is the only place that starts goroutines, so that each has a
// name, an owner and an end.
//
// A Group belongs to one component. Its goroutines share a context; the first
// of them that fails cancels it, and so ends the others. Wait returns that
// first failure. A panic is not contained: it means a broken invariant, and to
// let the other groups of the process go on beside it could lose data. It ends
// the process, with the name of the goroutine in the message. The name is also
// the label "task" in profiles.
//
// Invariant: when Wait has returned, no goroutine of the group is alive.
package task

import (
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"sync"
)

// Group is a set of named goroutines that live and die together.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	mu struct {
		sync.Mutex
		stopped bool
		failure error
	}
}

// errStopped is the cause of a group's end by Stop. It is not a failure.
var errStopped = errors.New("stopped by its owner")

// New returns an empty group. It ends with ctx, with Stop, or with the first
// failure of one of its goroutines.
func New(ctx context.Context) *Group {
	g := &Group{}
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	return g
}

// Context ends when the group ends.
func (g *Group) Context() context.Context { return g.ctx }

// Go starts f. The context it gets ends when the group does; f must return
// soon after. Its error ends the group, except that context.Canceled after the
// group's end is how f says that it obeyed. After Stop nothing runs, and Go
// returns false: who would wait for f, or leave something for it to close, must look.
func (g *Group) Go(name string, f func(ctx context.Context) error) (runs bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.stopped {
		return false
	}
	g.wg.Add(1)
	go g.run(name, f)
	return true
}

func (g *Group) run(name string, f func(ctx context.Context) error) {
	defer func() {
		if v := recover(); v != nil {
			// The stack below is still the one that panicked. Nobody is told that this
			// one ended: who waits would go on beside a broken invariant.
			panic(fmt.Sprintf("goroutine %q: %v", name, v))
		}
		g.wg.Done()
	}()
	var err error
	pprof.Do(g.ctx, pprof.Labels("task", name), func(ctx context.Context) { err = f(ctx) })
	if err == nil || errors.Is(err, context.Canceled) && g.ctx.Err() != nil {
		return
	}
	g.fail(fmt.Errorf("%s: %w", name, err))
}

func (g *Group) fail(err error) {
	g.mu.Lock()
	if g.mu.failure == nil {
		g.mu.failure = err
	}
	g.mu.Unlock()
	g.cancel(err)
}

// Stop asks all goroutines to end. It does not wait and may be called often.
func (g *Group) Stop() {
	g.mu.Lock()
	g.mu.stopped = true
	g.mu.Unlock()
	g.cancel(errStopped)
}

// Wait returns when all goroutines have ended, with the first failure.
func (g *Group) Wait() error {
	g.wg.Wait()
	g.Stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.failure
}
