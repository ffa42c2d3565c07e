// Package kubelet runs the pods that are bound to one node. It registers the node,
// keeps its lease alive, has a runtime run containers, and says in the status of pods
// and node how they are.
//
// For each pod there is a worker. It looks at what shall be (the pod, by a watch) and
// at what is (the runtime), plans without surroundings (plan.go), and acts: starts,
// stops, status, deletion. A pod that rests costs no goroutine: a worker runs when
// something changed or a back-off is over.
//
// A pod is taken in only if its requests fit beside those of the pods that are here;
// else it fails with OutOfcpu and the like: the third guard, after the scheduler and
// the ledger.
//
// Always true: a pod's object is deleted only after nothing of it is left in the
// runtime. A singleton is stopped before the node's lease can have ended, whatever
// the control plane hears of it. That a pod has ended is told when none of its containers
// runs; how it ends is on disk from when that is decided, and it never runs again.
//
// Pods that were started, with their newest status, lie on disk (package checkpoint),
// so that a kubelet that starts without a control plane goes on with them: restart counts,
// and what is to be told later; back-off begins anew. What a runtime finds again it adopts.
// Of a pod whose checkpoints cannot be read only the uid is known: what runs of it goes
// on as if it were a singleton, until the control plane says what it is.
//
// After a restore of the store (hold.go) the objects are older than what runs: nothing
// is started or ended because of them until the control plane says so. Static pods
// (static.go) are the node's own, and no hold concerns them.
package kubelet
