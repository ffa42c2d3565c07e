// Package placement decides on which node a pod shall run. It is the scheduler
// without its surroundings: no goroutine, no clock, no network. A Snapshot and a Pod
// go in, a Decision comes out.
//
// A Snapshot holds what a decision looks at: nodes with what they offer and what
// their pods ask for, and tallies of pods by domain for the rules that speak of other
// pods. It is brought up to date a change at a time; a decision never walks over all
// pods. A Core holds what goes from one decision to the next: where the sampling of
// nodes goes on, and the seeded chance that breaks ties.
//
// A plugin is a rule with a name that people know from Kubernetes. Filters say why a
// node cannot take a pod, scores (0 to 100, weighted by the profile) which of those
// that can is the best.
//
// Always true: the same snapshot, core and pod give the same decision; a decision that
// names a node fits the snapshot; one that names none has looked at every node.
// Neither type is safe for use by several goroutines at once.
package placement
