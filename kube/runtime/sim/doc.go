// Package sim is a runtime without containers: each is a few timers. Thousands of
// nodes fit into one process, and everything above a runtime is the real thing.
//
// What a container does is said by annotations of its pod:
//
//	sim.holdfast.dev/start: 200ms          how long it takes to start (at once)
//	sim.holdfast.dev/ready-after: 2s       from its start until it is ready (at once)
//	sim.holdfast.dev/exit-after: 1m        it ends by itself (never; init containers: at once)
//	sim.holdfast.dev/exit-code: "1"        with this code (0); without exit-after it ends at once
//	sim.holdfast.dev/fail: ErrImagePull    it cannot be started, for this reason
//	sim.holdfast.dev/stop: 5s              how long it takes to end when asked to (at once)
//	sim.holdfast.dev/cpu: 120m             what it uses; otherwise what it requests
//	sim.holdfast.dev/memory: 64Mi
//
// They hold for all containers but init containers. With the name of a container
// behind, as in sim.holdfast.dev/exit-code.setup, one holds for that container alone.
// They are read when they matter: a change of cpu counts with the next sample, a
// change of fail with the next attempt.
//
// The process may end: what the status of a pod says of its containers is all that
// there is of them, and Adopt goes on from there.
package sim
