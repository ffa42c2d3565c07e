package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// outcome is what came of a suite.
type outcome struct {
	suite                   string
	took                    time.Duration
	passed, failed, skipped int
	failures, skips         []remark
	targets                 int   // Of fuzzing.
	executions              int64 // Of all of them.
}

// remark is a case and what there is to say about it.
type remark struct{ name, text string }

func (o *outcome) fail(name, text string) {
	o.failed++
	o.failures = append(o.failures, remark{name, text})
}

func (o *outcome) skip(name, reason string) {
	o.skipped++
	o.skips = append(o.skips, remark{name, reason})
}

// merge adds what came of some of the suite's jobs.
func (o *outcome) merge(part outcome) {
	o.passed += part.passed
	o.failed += part.failed
	o.skipped += part.skipped
	o.failures = append(o.failures, part.failures...)
	o.skips = append(o.skips, part.skips...)
	o.targets += part.targets
	o.executions += part.executions
}

// report collects the outcomes of all suites.
type report struct {
	requireAll bool // What could not run has failed.
	outcomes   []outcome
}

func (r *report) add(o outcome) {
	if r.requireAll {
		o.failed += o.skipped
		o.skipped = 0
	}
	r.outcomes = append(r.outcomes, o)
}

// last says how the newest outcome was, with all that failed.
func (r *report) last() string {
	o := r.outcomes[len(r.outcomes)-1]
	var b strings.Builder
	for _, f := range o.failures {
		fmt.Fprintf(&b, "\n--- FAIL %s: %s\n%s\n", o.suite, f.name, strings.TrimRight(f.text, "\n"))
	}
	fmt.Fprintf(&b, "%-12s %s in %.1f s\n", o.suite, o.status(), o.took.Seconds())
	return b.String()
}

func (o outcome) status() string {
	switch {
	case o.failed > 0:
		return "FAIL"
	case o.passed == 0:
		return "not run"
	default:
		return "ok"
	}
}

func (r *report) failed() int {
	n := 0
	for _, o := range r.outcomes {
		n += o.failed
	}
	return n
}

// table is the end of the output. Its last line is read by machines.
func (r *report) table() string {
	var b strings.Builder
	b.WriteString("\n")
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "suite\tseconds\tpassed\tfailed\tskipped\tstatus")
	passed, skipped := 0, 0
	for _, o := range r.outcomes {
		passed += o.passed
		skipped += o.skipped
		fmt.Fprintf(w, "%s\t%.1f\t%d\t%d\t%d\t%s\n", o.suite, o.took.Seconds(), o.passed, o.failed, o.skipped, o.status())
	}
	_ = w.Flush() // Into memory.
	for _, o := range r.outcomes {
		if o.targets > 0 {
			fmt.Fprintf(&b, "\n%s: %d executions of %d targets\n", o.suite, o.executions, o.targets)
		}
	}
	first := true
	for _, o := range r.outcomes {
		for _, s := range o.skips {
			if first {
				b.WriteString("\ncould not run" + r.verdict() + ":\n")
				first = false
			}
			fmt.Fprintf(&b, "  %s: %s: %s\n", o.suite, s.name, s.text)
		}
	}
	fmt.Fprintf(&b, "\n%d passed, %d failed, %d skipped\n", passed, r.failed(), skipped)
	return b.String()
}

func (r *report) verdict() string {
	if r.requireAll {
		return " (a failure, since HOLDFAST_REQUIRE_ALL=1)"
	}
	return ""
}
