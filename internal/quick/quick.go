// Package quick has tests do less: before a commit, when each second is waited for by
// somebody, and under the race detector where it has nothing to find.
//
// LeaveOut leaves whole scenarios out of make quick, and out of nothing else:
// clusters of members, and nodes of containers, that take seconds of real time.
//
//	func TestAMinorityMayDie(t *testing.T) {
//		quick.LeaveOut(t) // First line: so the Makefile counts, and internal/tidy sees to it.
//
// Stride thins out exhaustive tests of one goroutine, there and under the detector.
//
// Invariant: make unit leaves out nothing, and make race no test.
package quick

import (
	"os"
	"testing"
)

// variable is set by the Makefile alone, for its target quick.
const variable = "HOLDFAST_QUICK"

// LeaveOut ends a test that is a whole scenario, where only quick ones are asked for.
func LeaveOut(t testing.TB) {
	t.Helper()
	if os.Getenv(variable) != "" {
		t.Skip("a whole scenario: make unit runs it")
	}
}

// Stride is how far apart the cases are that an exhaustive test of one goroutine
// examines: 1 is all of them. The race detector finds nothing in those, and takes
// five to ten times as long for each.
func Stride() int {
	if underRace || os.Getenv(variable) != "" {
		return 3
	}
	return 1
}
