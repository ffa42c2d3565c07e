package quick

import "testing"

// scenario is a test that hears that it is left out, and goes on.
type scenario struct {
	testing.TB
	left bool
}

func (s *scenario) Skip(...any) { s.left = true }

func TestOnlyTheVariableLeavesAScenarioOut(t *testing.T) {
	for value, want := range map[string]bool{"": false, "1": true} {
		t.Setenv(variable, value)
		s := &scenario{TB: t}
		if LeaveOut(s); s.left != want {
			t.Errorf("with %s=%q a scenario was left out: %v", variable, value, s.left)
		}
		if got := Stride(); (got > 1) != (want || underRace) {
			t.Errorf("with %s=%q the cases are %d apart", variable, value, got)
		}
	}
}
