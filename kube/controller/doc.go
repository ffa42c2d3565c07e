// Package controller makes things as they were asked for: it watches what is, plans
// what lacks, and writes it.
//
// All controllers run in one process, the one that leads (Manager.Run). Each is a
// pure plan (replica, rollout, nodelife, endpoint, autoscale, budget, collect), and an
// executor here that hands facts to the plan and carries it out. Executors keep
// nothing that is not in the store, but what only shortens or only delays something:
// samples, the brake, which of their own writes they have to wait for.
//
// Always true: every write carries the fence of the leadership, so that one who no
// longer leads changes nothing; what depends on another object carries a guard on
// that object's resource version; nobody plans before he sees his own last writes.
// From these three, not from pauses, follows that there is never a pod too many.
//
// After a crash another process leads, lists everything, and goes on.
package controller
