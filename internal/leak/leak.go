// Package leak fails a test that leaves goroutines behind.
//
//	func TestServerStops(t *testing.T) {
//		leak.Check(t) // First line, so that it looks after all other cleanups.
//
// A goroutine that is still on its way out is given time; one that stays is
// printed with its stack. A test that uses it cannot run in parallel with
// others.
package leak

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

const (
	patience = time.Minute // How long a goroutine may take to notice that it should end, on a machine that others keep busy.
	pause    = 5 * time.Millisecond
)

// Check compares the goroutines at the end of the test with those of now.
func Check(t testing.TB) {
	t.Helper()
	check(t, patience)
}

func check(t testing.TB, patience time.Duration) {
	t.Helper()
	before := goroutines()
	t.Cleanup(func() {
		var left []string
		for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
			late := time.Now().After(deadline) // Said before the look, so that there is one however late it is.
			left = left[:0]
			for id, stack := range goroutines() {
				if _, old := before[id]; !old {
					left = append(left, stack)
				}
			}
			if len(left) == 0 {
				return
			}
			if late {
				break
			}
		}
		t.Errorf("%d goroutines are left:\n\n%s", len(left), strings.Join(left, "\n\n"))
	})
}

// goroutines returns the stacks of all goroutines but those of the runtime
// and the test framework, by the goroutine's number.
func goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	stacks := make(map[string]string)
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		words := strings.Fields(stack)
		if len(words) < 2 || ignored(stack) {
			continue
		}
		stacks[words[1]] = stack
	}
	return stacks
}

func ignored(stack string) bool {
	for _, f := range []string{
		"leak.goroutines(", // The one that looks.
		"testing.(*M).",
		"testing.tRunner(", // A test, not something a test started.
		"testing.runTests(",
		"os/signal.signal_recv(",
		"runtime.ensureSigM(",
	} {
		if strings.Contains(stack, f) && !strings.Contains(stack, "created by testing.tRunner") {
			return true
		}
	}
	return false
}
