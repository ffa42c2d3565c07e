// Package snapshot is a whole state as one stream of bytes: the file that
// `snapshot save` keeps, and what a member sends to another that is too far
// behind.
//
// It is logical: rows and records, not pages, so that any version and any
// layout of base can take it. Base rows as of M, the small rows and all records
// of history up to the position of the snapshot, in checked and compressed
// frames (docs/format/snapshot.md).
//
// The server writes snapshots and receives them; holdfastctl saves, verifies
// and restores files. Records enter a store through the same door as on a
// follower, so the digest of all mutations is computed again on the way.
//
// Invariant: what Receive and the restores leave was verified to the last byte:
// frames, chain of records, digest, and number and hash of base rows. Nothing
// takes its place before. A crash leaves scratch that nothing names.
package snapshot

import (
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
)

// Totals is what went through a snapshot.
type Totals struct {
	Bytes   int64  // Of the file.
	Rows    uint64 // Of base.
	Records uint64 // Of history.
}

// Position of a header.
func position(h *holdfastpb.SnapshotHeader) ident.Position {
	return ident.Position{Index: ident.Index(h.GetApplied().GetIndex()), Group: h.GetApplied().GetGroup()}
}
