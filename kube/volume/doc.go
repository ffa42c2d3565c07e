// Package volume makes the folders and files of pods that their containers mount.
//
// A pod has a folder Dir/UID, of which this package owns
//
//	volumes/NAME            what a volume holds; memory and secrets: a tmpfs, if it may be
//	subpaths/CONTAINER/N    the mount N of a container, where it is a sub-path
//	messages/CONTAINER/N    what attempt N of a container writes as its last words
//
// The rest of the folder (logs, the engine's) belongs to others.
//
// Volumes of secrets, config maps and fields are written as Kubernetes does: files in a
// folder ..TIME, a link ..data to it that is replaced at once, and links NAME to
// ..data/NAME. So a container sees all of one state or all of the next.
//
// Containers write into volumes what they like, while we work in them. So all work below
// a pod's folder goes by descriptors, from the folder down, and follows no link that a
// container can have made; a sub-path is resolved by the kernel beneath its volume, and
// mounted by its descriptor. Nothing below a mount is ever removed.
//
// Always true: every step may be the last before a crash; Prepare, Refresh, Mounts and
// Remove each finish what an earlier one began. Leftovers tells of which pods something
// is there.
package volume
