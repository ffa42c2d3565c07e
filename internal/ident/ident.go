// Package ident holds the words that every part of the store shares, so that
// a revision, a log index and a term can never be mixed up by accident.
package ident

import "fmt"

type (
	// Revision counts changes of the key space as clients see them. It is one per
	// successful write request, starts at 1 and never decreases.
	Revision int64

	// Index is a position in the Raft log.
	Index uint64

	// Term is a Raft term.
	Term uint64

	// LeaseID names a lease. Zero means "no lease"; negative values are legal.
	LeaseID int64

	// MemberID names a member of the cluster; it is also its Raft node ID.
	MemberID uint64

	// ClusterID names the cluster on the wire.
	ClusterID uint64

	// Timeline numbers the lives of a cluster's history: every restore or
	// recovery begins a new one.
	Timeline uint64

	// Digest is the rolling hash over all mutations up to a position. Equal on
	// all members at equal position.
	Digest [16]byte

	// Nonce is drawn once per boot, so that requests of an earlier life of the
	// same member are never taken for requests of this one.
	Nonce uint64
)

// Position orders every change there is: an entry of the log may hold many
// requests, so an index alone does not name one.
type Position struct {
	Index Index
	Group uint32 // The request within the entry, from 0.
}

// Less reports whether p comes before q.
func (p Position) Less(q Position) bool {
	return p.Index < q.Index || p.Index == q.Index && p.Group < q.Group
}

func (p Position) String() string { return fmt.Sprintf("%d.%d", p.Index, p.Group) }

// RequestID names one proposed request for as long as its answer is awaited.
type RequestID struct {
	Member   MemberID
	Nonce    Nonce
	Sequence uint64
}

func (id MemberID) String() string  { return fmt.Sprintf("%x", uint64(id)) }
func (id ClusterID) String() string { return fmt.Sprintf("%x", uint64(id)) }
func (d Digest) String() string     { return fmt.Sprintf("%x", d[:]) }
