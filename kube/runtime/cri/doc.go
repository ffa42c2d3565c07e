// Package cri runs pods on a container runtime of others, over their common interface,
// CRI v1: containerd (from 1.6, as Debian has it) and CRI-O. It is a runtime.Engine and a
// runtime.Puller.
//
// A pod is a sandbox. Everything that must be known after a restart of the kubelet is
// with the runtime, as labels and annotations: the labels are those of all kubelets, so
// that crictl shows names, and one for the node, since several kubelets may share a
// runtime in tests; what has another node's label, or none, is not seen and not touched.
// An ID is that of the runtime after the UID of the pod; people see the name of the
// runtime and its own: containerd://ID.
//
// Images are the runtime's. Those of the kubelet's own store it pulls over loopback; which
// may go is said by whoever uses the engine, and what others use of the runtime is told
// with them.
//
// Changes are heard from the runtime's events where it has them (containerd 1.7, CRI-O
// 1.26), and else seen by looking each second.
//
// The network of pods is what the CNI configuration of the machine says, in the order of
// the runtime: this package only reads the address. Cgroups are made by the runtime below
// one of the pod (Config.Cgroup, the class, the UID), whose limits are set here.
// Terminals, commands and ports go through the runtime's streaming server, in SPDY, which
// all versions speak.
//
// Logs are written by the runtime; rotation is done here, by renaming and asking it to
// open the file anew.
//
// Invariant: of the sandboxes of a pod at most one is ready; containers are started in it.
// After a crash of the kubelet: sandboxes and containers go on. What was created but not
// started is started or removed by a repetition of Start, or removed by Close.
package cri
