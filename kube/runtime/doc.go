// Package runtime is what a node needs of whatever runs its containers: the Engine.
//
// Engines are native (namespaces and cgroups by our own code), process (plain
// processes, without root) and cri (containerd and others). They know nothing of
// objects, images' origins, volumes or probes: package pods turns a pod into calls of
// an engine. One suite, package conformance, runs against all of them.
//
// Invariant: a container belongs to one pod for ever; its ID begins with the UID of
// that pod.
// After a crash of the kubelet: pods and containers go on. List tells all that is
// there; whoever knows what should be adopts the rest or removes it.
package runtime
