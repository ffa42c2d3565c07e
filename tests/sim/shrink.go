package sim

import (
	"strings"
)

// Shrink looks for a shorter scenario that fails in the same way: single
// faults, clients and whole halves of the schedule are left out as long as the
// failure stays. It makes at most tries runs.
func Shrink(s *Scenario, f *Failure, o Options, tries int) (*Scenario, *Failure) {
	k := &shrinker{best: s, failure: f, class: classOfFailure(f), options: Options{Scratch: o.Scratch}, tries: tries}
	if end := f.At + second; f.At < s.Config.SafetyTime {
		k.try(func(c *Scenario) { c.Config.SafetyTime = end })
	}
	k.actions()
	for k.best.Config.Clients > 1 && k.try(func(c *Scenario) { c.Config.Clients--; c.Config.Watchers = min(c.Config.Watchers, c.Config.Clients) }) {
	}
	k.try(func(c *Scenario) { c.Config.Watchers = 0 })
	k.try(func(c *Scenario) { c.Config.Loss = 0 })
	k.try(func(c *Scenario) { c.Config.Duplicate = 0 })
	k.try(func(c *Scenario) { c.Config.Reorder = false })
	k.try(func(c *Scenario) { clear(c.Config.RatePPM) })
	k.actions()
	return k.best, k.failure
}

// classOfFailure is the invariant that was violated.
func classOfFailure(f *Failure) string {
	class, _, _ := strings.Cut(f.Text, ":")
	if len(class) > 20 { // No name: the beginning of the text, without numbers.
		class = strings.TrimRight(f.Text[:20], "0123456789abcdef ")
	}
	return class
}

type shrinker struct {
	best    *Scenario
	failure *Failure
	class   string
	options Options
	tries   int
}

// try keeps a change if the scenario still fails.
func (k *shrinker) try(change func(*Scenario)) bool {
	if k.tries <= 0 {
		return false
	}
	k.tries--
	c := &Scenario{Config: k.best.Config, Actions: append([]Action(nil), k.best.Actions...), Note: k.best.Note}
	c.Config.RatePPM = append([]int64(nil), k.best.Config.RatePPM...)
	change(c)
	r := Run(c, k.options)
	if r.Failure == nil || classOfFailure(r.Failure) != k.class {
		return false
	}
	k.best, k.failure = c, r.Failure
	return true
}

// actions leaves out ever smaller parts of the schedule.
func (k *shrinker) actions() {
	for size := (len(k.best.Actions) + 1) / 2; size > 0; size /= 2 {
		for at := 0; at < len(k.best.Actions); {
			end := min(at+size, len(k.best.Actions))
			if !k.try(func(c *Scenario) { c.Actions = append(c.Actions[:at:at], c.Actions[end:]...) }) {
				at = end
			}
		}
	}
}
