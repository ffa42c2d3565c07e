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
// the control plane hears of it.
//
// Nothing here survives the process. What a runtime finds again it adopts; restart
// counts are in the status of the pods.
package kubelet
