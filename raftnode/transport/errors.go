package transport

import "errors"

var (
	// ErrCluster means that the peer belongs to another cluster.
	ErrCluster = errors.New("peer belongs to another cluster")
	// ErrTimeline means that one side is of a life of the cluster that a restore or recovery ended.
	ErrTimeline = errors.New("peer is on another timeline of this cluster")
	// ErrWrongMember means that another member than the expected one answers at a URL.
	ErrWrongMember = errors.New("another member answers at this address")
	// ErrIncarnation means that a member lost its data directory and came back under its old name.
	ErrIncarnation = errors.New("member lost its data directory: remove it and add it again")
	// ErrRemoved means that the member was removed from the cluster.
	ErrRemoved = errors.New("member has been removed from the cluster")
	// ErrVersion means that the two sides share no version of the protocol.
	ErrVersion = errors.New("peer speaks another version of the peer protocol")
	// ErrStarting means that the peer is not ready yet.
	ErrStarting = errors.New("peer is still starting")
	// ErrUnreachable means that there is no connection to the peer now.
	ErrUnreachable = errors.New("peer is not reachable")
	// ErrBusy means that a snapshot to the same member is under way.
	ErrBusy = errors.New("a snapshot to this member is under way")
	// ErrDamaged means that received bytes do not hold what was sent.
	ErrDamaged = errors.New("peer frame is damaged")
	// ErrTooLarge means that a frame exceeds the limit.
	ErrTooLarge = errors.New("peer frame is too large")
	// ErrClosed means that the transport was closed.
	ErrClosed = errors.New("transport is closed")
)
