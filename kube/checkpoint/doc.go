// Package checkpoint keeps on a node's disk what its kubelet must know without a
// control plane: the pods that it runs, whole, with their newest status; its node
// object; and which history of the objects it last went along with.
//
// The kubelet calls Put before it starts anything of a pod, and Remove once nothing
// is left of it. Each file is replaced at once and checked by a checksum when read
// (format.go, docs/format/checkpoint.md).
//
// Always true: of a pod of which something runs there is a file, named after its uid.
// A file that cannot be read is put aside under a name that still tells the uid: its
// pod may run. The version before it stands in for it; a pod of which that cannot be
// read either is told as lost, and stays so until it has ended.
// After a crash each file is the one before or the one after; what was being written
// besides is removed by Load.
package checkpoint
