// Package probe asks running containers how they are, and runs what a container wants
// done after its start and before its end.
//
// A Watcher belongs to one attempt of one container. It asks the startup probe until
// that succeeds, then liveness and readiness, each in a goroutine of its own. Its owner
// hears by Changed that State is another one, and by Failed that the container has to
// be ended. Probes go through the owner's Exec and Dial, so that they reach into the
// network of a pod.
//
// Always true: a container with a startup probe is never ready before that probe has
// succeeded. At most one Failure comes of a Watcher; after it only readiness is asked.
// Nothing survives the process: what an earlier watcher found, who owns it gives to the
// next.
package probe
