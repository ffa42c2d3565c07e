// Package scheduler gives each pod a node. It is what surrounds package placement,
// which decides: informers that tell it what changes, a queue of the pods that wait,
// and the way of a decision into the store.
//
// A process makes one Scheduler and calls Run while it leads. One goroutine owns all
// that decisions are made of; whoever learns something (informers, binds that come
// back) puts a message into its inbox. A pod that has been decided is assumed to be on
// its node, so that the next decision counts it, and bound in the background.
//
// Bind compares, in one transaction, the pod, what the node was promised, and that
// this scheduler leads. A decision can therefore be as wrong as it likes, by a stale
// view or beside a second scheduler: it is refused, what was wrong is read anew, and
// the pod tried again. Nothing here must be right for nodes not to be over-committed.
//
// What people are told (conditions, events, Explain) is written beside all this, with
// limits, and lost rather than waited for.
//
// A crash leaves nothing: pods without a node are found by who leads next.
package scheduler
