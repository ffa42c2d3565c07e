package leak

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// recorder is a testing.TB whose cleanups run when the test says so.
type recorder struct {
	testing.TB
	cleanup func()
	failure string
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanup = f }
func (r *recorder) Errorf(format string, args ...any) {
	r.failure = fmt.Sprintf(format, args...)
}

func blockHere(c chan struct{}) { <-c }

func TestALeftGoroutineIsShownWithItsStack(t *testing.T) {
	r := &recorder{TB: t}
	check(r, 100*time.Millisecond)
	c := make(chan struct{})
	go blockHere(c)
	r.cleanup()
	if !strings.Contains(r.failure, "1 goroutines are left") || !strings.Contains(r.failure, "leak.blockHere") {
		t.Errorf("failure is %q", r.failure)
	}
	close(c)
}

func TestWhoHasNoTimeToWaitLooksAllTheSame(t *testing.T) {
	r := &recorder{TB: t}
	check(r, -time.Second)
	r.cleanup()
	if r.failure != "" {
		t.Errorf("nothing is left, and that is a failure: %q", r.failure)
	}
}

func TestAGoroutineThatEndsIsNoLeak(t *testing.T) {
	Check(t)
	c := make(chan struct{})
	go blockHere(c)
	close(c)
}
