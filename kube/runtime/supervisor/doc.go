// Package supervisor is the process that stands between a node and the containers of
// one pod. It holds the pod's namespaces, is the parent of its containers, writes their
// logs, and records on disk how they began and ended. It outlives the kubelet: one that
// dies or is replaced finds its pods as they were. Who starts it and speaks to it is
// package supervised.
//
// A supervisor is this same binary, started as Argv0. It takes over in an init function:
// see early.go. Therefore this package, with stage and all others that it imports, imports
// little: Go initialises packages in the order of their paths, as soon as what they import
// is. What comes late (net, path/filepath, runtime/debug, whatever needs them) would have
// most of a kubelet initialised first, in each supervisor and at each start of a container.
// It also depends on nothing that an upgrade of the kubelet changes.
//
// Always true: who holds the lock of a pod's folder is its supervisor, and nobody else
// writes its records.
//
// Files and protocol: docs/format/supervisor.md. Memory: docs/decisions/0020.
package supervisor
