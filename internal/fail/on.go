//go:build failpoints

package fail

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/holdfast-db/holdfast/internal/assert"
	"github.com/holdfast-db/holdfast/internal/clock"
)

// Enabled tells whether places do anything in this build.
const Enabled = true

// Variable arms places from the start, in any program with the tag.
const Variable = "HOLDFAST_FAILPOINTS"

// Status tells how a place stands.
type Status struct {
	Point
	Action  string // What is armed, as it was set.
	Passed  uint64 // How often the place was reached.
	Fired   uint64 // How often something other than off happened.
	Waiting int    // Goroutines that pause there.
}

// place is a point and what is armed there.
type place struct {
	Point
	passed atomic.Uint64

	mu struct { // Never held while something happens.
		sync.Mutex
		action  string
		terms   []term
		changed chan struct{} // Closed when the place is set anew.
		fired   uint64
		waiting int
	}
}

var (
	places = sync.OnceValue(load)
	hook   atomic.Pointer[func(string)]
	real   = clock.Real()
)

func load() map[string]*place {
	all := map[string]*place{}
	for _, p := range table {
		x := &place{Point: p}
		x.mu.changed = make(chan struct{})
		all[p.Name] = x
	}
	for _, part := range strings.Split(os.Getenv(Variable), ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, action, _ := strings.Cut(part, "=")
		if err := set(all, name, action); err != nil {
			assert.Failf("%s: %v", Variable, err)
		}
	}
	return all
}

// Here is a place.
func Here(name string) { pass(name) }

// Skip is a place where what follows may be left out.
func Skip(name string) bool { return pass(name) }

// SetHook has fn called at each place before anything that is armed, or
// nothing when fn is nil. What fn does there, it does on the goroutine that
// came by: it may end it.
func SetHook(fn func(name string)) {
	if fn == nil {
		hook.Store(nil)
		return
	}
	hook.Store(&fn)
}

// Set arms a place. An empty action, or off, clears it.
func Set(name, action string) error { return set(places(), name, action) }

func set(all map[string]*place, name, action string) error {
	x := all[name]
	if x == nil {
		return fmt.Errorf("no failpoint is called %q: GET / lists them", name)
	}
	terms, err := parse(action)
	if err != nil {
		return err
	}
	for _, t := range terms {
		if t.kind == kindSkip && !x.Skips {
			return fmt.Errorf("failpoint %s: nothing may be left out there", name)
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mu.action, x.mu.terms, x.mu.fired = action, terms, 0
	close(x.mu.changed)
	x.mu.changed = make(chan struct{})
	return nil
}

// List tells how all places stand, in the order of the table.
func List() []Status {
	var list []Status
	for _, p := range table {
		x := places()[p.Name]
		x.mu.Lock()
		list = append(list, Status{Point: p, Action: x.mu.action, Passed: x.passed.Load(), Fired: x.mu.fired, Waiting: x.mu.waiting})
		x.mu.Unlock()
	}
	return list
}

func pass(name string) (skip bool) {
	x := places()[name]
	if x == nil {
		assert.Failf("failpoint %q is not in the table", name)
	}
	x.passed.Add(1)
	if fn := hook.Load(); fn != nil {
		(*fn)(name)
	}
	t, changed := x.next()
	switch t.kind {
	case kindCrash:
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // Until the signal is here.
	case kindPanic:
		assert.Failf("failpoint %s", name)
	case kindSleep:
		<-real.After(t.sleep)
	case kindPause:
		<-changed
		x.mu.Lock()
		x.mu.waiting--
		x.mu.Unlock()
	}
	return t.kind == kindSkip
}

// next takes one pass off the chain.
func (x *place) next() (term, <-chan struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.mu.terms) == 0 {
		return term{}, nil
	}
	t := &x.mu.terms[0]
	now := *t
	if t.passes > 0 {
		if t.passes--; t.passes == 0 {
			x.mu.terms = x.mu.terms[1:]
		}
	}
	if now.kind != kindOff {
		x.mu.fired++
	}
	if now.kind == kindPause {
		x.mu.waiting++
	}
	return now, x.mu.changed
}
