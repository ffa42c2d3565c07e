// Package supervised is the pods of an engine, each held by a supervisor: the kubelet's half
// of what package supervisor does. A Set starts supervisors, finds those of earlier runs by
// the files in its folder, speaks to each through the socket in its pod's folder, and cleans
// up after those that died.
//
// Always true: where the lock of a pod's folder is free it has no supervisor, and all that
// the last one left is killed before another is made; what was running has ended for the
// reason Lost.
//
// A crash of the kubelet at any point leaves a pod that a repetition of the call
// completes, or Close removes: the name of the pod in the Set's folder is the first that
// is written and the last that goes.
//
// Files and protocol: docs/format/supervisor.md.
package supervised
