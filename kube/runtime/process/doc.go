// Package process is the runtime.Engine of nodes without root: a container is a plain
// process of the node, in a process group and a folder of its own. Nothing keeps it from
// what the kubelet's user may do, so a container that asks for more than its own user
// and the node's file system is refused, with the field that asks.
//
// How a container finds its files, without a file system of its own:
//
//   - Its root is a folder, made at its start from the layers of its image: folders
//     are made, programs are links into the layer, other files are copies, so that what
//     it writes does not change the image. It is gone when the container has ended.
//   - HOLDFAST_ROOT is the path of that folder. Its working folder is below it: what it
//     opens with a relative path is its own, an absolute one is the node's.
//   - A mount is a link in the root to what is mounted. ReadOnly is not enforced.
//   - A command is looked for in the root, by its path or in the PATH, and then in the
//     node's own folders.
//
// Memory is looked at four times a second, and a container above its limit is killed with
// the reason OOMKilled: a soft limit, as its message says. Limits of processor and
// of processes are not enforced. The pod's addresses, names and DNS are the node's.
//
// Its processes are known by a variable in their environment, HOLDFAST_CONTAINER: one that takes
// it away and leaves the group lives until its pod is closed.
//
// State, crashes and logs: package supervisor.
package process
