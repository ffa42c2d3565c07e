package linear

import (
	"fmt"
	"time"

	"github.com/holdfast-db/holdfast/tests/check"
)

// Little traffic proves little: what must have been acknowledged at least.
const (
	beforeMin = 20
	duringMin = 60
	afterMin  = 20
)

// windowsMax are searched by porcupine, as a second opinion.
const (
	windowsMax  = 3
	windowOps   = 500
	windowLimit = 30 * time.Second
)

// harnessRule marks violations that the harness has seen itself.
const harnessRule = "harness"

// judge has the checkers look at the history, and adds what the harness found.
func (r *result) judge() {
	o := check.Options{Before: beforeMin, After: afterMin}
	if r.Stalled <= stallMax {
		o.ElectionTimeout = electionTimeout
	}
	r.Report = check.Check(r.History, o)
	r.Report.Windows(check.SearchOptions{Windows: windowsMax, Ops: windowOps, Limit: windowLimit, Seed: uint64(r.Scenario.Seed)})
	// The checkers count what was acknowledged while a fault was done. When
	// everybody was killed that is nothing: it is the whole stretch that counts.
	if r.During < duringMin {
		r.Report.Vacuous = append(r.Report.Vacuous, fmt.Sprintf("%d operations were acknowledged from the first fault to the last, want %d", r.During, duringMin))
	}
	for _, v := range r.Violations {
		r.Report.Found++
		r.Report.Violations = append(r.Report.Violations, check.Violation{Rule: harnessRule, Text: v})
	}
}
