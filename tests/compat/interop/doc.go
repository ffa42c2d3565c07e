// Package interop moves data between real etcds and ours, both ways: snapshots
// and data directories of etcd 3.7 (in this process) and of Debian's 3.4 come
// in through holdfastctl, and what it exports is restored by etcd's own tools
// and served by etcd. Keys and revision must be equal on both sides.
package interop
