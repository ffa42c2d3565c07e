// Package etcd moves data between etcd's files and snapshots of ours.
//
// Import makes a snapshot file out of an etcd snapshot, or of the data
// directory of an etcd that does not run; Export makes a file that etcd's own
// tools restore. holdfastctl calls both. What etcd's files look like, and what
// is carried over, is in docs/format/etcd.md.
//
// Foreign files are read by code of our own, which checks each offset before it
// follows it: no content makes it panic or take memory for what is not there.
// They are written through bbolt, the library that etcd reads them with.
//
// Invariant: the source is only read, and an existing target is never replaced.
// A target gets its name when all of it is there, verified and synced. A crash
// leaves scratch beside it, which the next try removes.
package etcd

import (
	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
)

// Config is what import and export stand on.
type Config struct {
	FS     vfs.FS
	Clock  clock.Clock
	Logger hclog.Logger

	WALDir       string                  // Of an etcd that keeps its log elsewhere. Empty: within its data directory.
	ClusterLevel string                  // Protocol level of a cluster that is restored from an import, major.minor.
	Progress     func(done, total int64) // Bytes of the source, now and then. Nil: nobody listens.

	// SortBytes of keys and values are sorted in memory. Default 32 MiB.
	SortBytes int
	// Tune changes the configuration of the scratch store. May be nil.
	Tune func(c *mvcc.Config)
}

// Report says what an import took over, and what not.
type Report struct {
	Revision ident.Revision
	Applied  ident.Index // The last entry of etcd's log that is in the snapshot.
	Keys     int64
	Leases   int
	Bytes    int64 // Of the file made.

	Hashed bool // The source ended in a SHA-256, which was right.

	FromLog   int    // Entries that etcd's log had beyond its database.
	TornEnd   bool   // Its newest record was written in part, and is left out.
	Uncertain uint64 // Entries after the last one known as committed: left out.

	Users, Roles int
	AuthEnabled  bool
}

// What a crash leaves of a target: scratch, and the file before it was verified.
const (
	scratchSuffix = ".scratch"
	partSuffix    = ".part"
)
