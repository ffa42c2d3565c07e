//go:build !failpoints

package fail

// Enabled tells whether places do anything in this build.
const Enabled = false

// Here is a place.
func Here(string) {}

// Skip is a place where what follows may be left out.
func Skip(string) bool { return false }

// SetHook has fn called at each place, in builds where places do anything.
func SetHook(func(name string)) {}
