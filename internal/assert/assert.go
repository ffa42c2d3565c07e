// Package assert stops the process on a broken invariant.
//
// It is the only way to panic in this project, and no request, peer message
// or file content may ever reach one: those are errors. Assertions stay on in
// production, because going on with a broken invariant loses data. On hot
// paths the caller tests the condition itself, since formatting allocates.
package assert

import "fmt"

// Failf stops the process: the invariant described does not hold.
func Failf(format string, args ...any) {
	panic("invariant broken: " + fmt.Sprintf(format, args...))
}

// That stops the process unless ok.
func That(ok bool, what string) {
	if !ok {
		Failf("%s", what)
	}
}
