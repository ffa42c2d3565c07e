// Package state is ClusterState: the only one that writes the keys of the scheduler
// layer, so that identity, validation and every rule between objects have one place.
//
// Reading. A cache holds all objects, and the keys under /holdfast/, as of one
// revision: it lists them once and follows them with one watch of the store, so that
// it is a state that the store was in, across all kinds. A read without a resource
// version first asks the store how far it is (a linearizable read of one count) and
// waits until the cache has come there: whoever wrote sees what he wrote. Watchers
// get events from the cache, each encoded once; one that does not keep up is told
// that its watch expired.
//
// Writing. A write is one transaction of the store. It is decided by what the cache
// says, and compares the revision of every key that the decision looked at; if one
// differs, the answer of the transaction brings the newest, and the write is decided
// anew (attempt.go). An error that was decided by the cache is decided again by the
// store before anybody hears it. So all rules hold at every revision: a pod is bound
// only where it fits (ledger.go), a namespace that ends takes nothing in, an address
// is given once.
//
// After a restore (standing.go, recovery.go) the store is older than what runs. Nodes
// tell what they have (inventory.go), Recover records it (adopt.go), as far as it is
// believed (doubt.go), and until that is settled no pod is given a node and no
// controller ends one.
//
// Invariant: the ledger of a node is the sum of what its pods that have not ended
// ask for, and what it has told that it runs besides after a restore; they change in
// one transaction. Nothing here survives the process: a crash leaves whole transactions.
package state
