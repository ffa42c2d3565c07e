// Package native is the runtime.Engine of nodes with root: containers by this program's
// own code, without a daemon. A pod has a supervisor, in network, IPC and UTS
// namespaces of its own, which are the pod's; each container has PID, mount and cgroup
// namespaces, an overlay over the layers of its image, cgroups with its limits, the usual
// capabilities, no new privileges and a filter of system calls. Package stage makes them.
//
// It keeps workloads apart that do not mean harm. It is no wall against hostile ones: root in a
// container is root of the node, without most of its powers; user namespaces are not used.
//
// Cgroups: version 1, version 2, and hosts that have both. The tree is
// PARENT/CLASS/podUID/NAME.ATTEMPT, in each hierarchy that matters, that of systemd among
// them: what stops the kubelet must not stop its pods. A class weighs what its pods
// request. The limit of a pod's memory has room for its supervisor on top.
//
// Nothing is mounted in the node's view and no namespace has a name, so that all of
// that goes with the processes. What can be left behind are cgroups, the network of a pod
// and files: each is found by the pod's file (package supervisor) or its UID in the
// name of a cgroup, and removed by Close, or by New where no pod claims it.
//
// /dev/shm is of each container, 64 MB; a volume in memory is how containers share more.
package native
