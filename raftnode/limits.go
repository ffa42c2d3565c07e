package raftnode

import "time"

const (
	// RequestBytesDefault leaves room for the protocol's own limit of 1.5 MiB
	// and what the server adds to a request.
	RequestBytesDefault = 2 << 20

	// RequestTimeoutDefault is what etcd waits for a request, with its default
	// election timeout.
	RequestTimeoutDefault = 7 * time.Second
	// timeoutCheckInterval is how late a request may end for that.
	timeoutCheckInterval = 250 * time.Millisecond

	// BatchBytesMax ends an entry: small enough that a follower's append and an
	// apply stay short, large enough that a sync pays. One larger request makes
	// an entry by itself.
	BatchBytesMax = 1 << 20
	// BatchRequestsMax bounds the work of one apply for tiny requests.
	BatchRequestsMax = 4096
	// BatchesMax is how many entries one proposal carries at most.
	BatchesMax = 16

	// AppendsInFlightMax holds proposals back while so many appends wait for the
	// disk: they could not be synced earlier, and gathered in one entry they
	// cost less. Two keep the disk busy while the loop turns.
	AppendsInFlightMax = 2

	// WaitingRequestsMax and WaitingBytesMax bound what clients can pile up on a
	// member while the cluster is slow or has no leader.
	WaitingRequestsMax = 64 << 10
	WaitingBytesMax    = 256 << 20

	// ApplyLagMax is how many committed entries may wait for apply before this
	// member takes no more requests: they would only wait longer.
	ApplyLagMax = 5000

	// UncommittedBytesMax is Raft's bound on a leader's uncommitted tail.
	UncommittedBytesMax = 64 << 20
	// ApplyingBytesMax bounds entries on their way through apply.
	ApplyingBytesMax = 8 << 20

	// MessageBytesMax is the size at which Raft ends an append message.
	MessageBytesMax = 1 << 20
	// InflightMessagesMax and InflightBytesMax bound what is under way to one
	// follower; the transport's queue has room for that.
	InflightMessagesMax = 256
	InflightBytesMax    = 16 << 20

	// LogReadBytesMax bounds one read of old entries, because the loop waits for it.
	LogReadBytesMax = 1 << 20
	// RecentBytesMax and RecentEntriesMax bound the log kept in memory. Followers
	// that keep up and apply never read the disk.
	RecentBytesMax   = 32 << 20
	RecentEntriesMax = 64 << 10

	// InboxMessagesMax is how many messages of peers may wait for the loop. More
	// are dropped: Raft sends again what matters.
	InboxMessagesMax = 4096

	// CatchUpEntriesDefault is how many entries behind the checkpoint are kept
	// for followers, as etcd does.
	CatchUpEntriesDefault = 5000
	// CatchUpBytesMax is where that ends: entries may be as large as requests, and
	// a follower that lacks so much gets the state about as fast.
	CatchUpBytesMax = 1 << 30
	// catchUpMarkBytes is how exactly it is kept: there are so many bytes between
	// two marks, and few marks.
	catchUpMarkBytes = CatchUpBytesMax / 64
	// SnapshotHoldEntriesMax and SnapshotHoldBytesMax are how far the log may grow
	// behind a snapshot under way: a follower that takes longer needs another one,
	// and must not fill the leader's disk.
	SnapshotHoldEntriesMax = 500_000
	SnapshotHoldBytesMax   = 8 << 30

	// snapshotPauseElectionsMax is the longest pause between two tries to bring a
	// follower a state that it did not take, in election timeouts. The first is
	// one, each next one twice as long.
	snapshotPauseElectionsMax = 16

	// snapshotIdleElections is how many election timeouts a frozen state waits
	// for a follower that wants it.
	snapshotIdleElections = 3

	// ClockWarnMin is when a clock is worth a word: machines whose clocks are kept
	// agree to milliseconds, and etcd warns there too.
	ClockWarnMin = time.Second
	// ClockLeadMax is the bound past which a member does not lead: far above what
	// a measurement can be wrong by (ClockRoundTripMax) and what a machine drifts
	// before it is noticed, far below what makes a recovery to a time of day useless.
	ClockLeadMax = 10 * time.Second
	// ClockRoundTripMax is the longest round trip that still measures a clock: the
	// result is wrong by half of it at most.
	ClockRoundTripMax = time.Second
	// clockFreshElections is how many election timeouts a measurement counts:
	// about ten of them are made meanwhile.
	clockFreshElections = 10
	// clockFarElections is how long a clock has to be past the bound: one that is
	// set by hand is wrong until the next measurement of each peer.
	clockFarElections = 3
	// clockPatienceElections without a leader, and a member with a wrong clock
	// stands for election: the others had several tries.
	clockPatienceElections = 5
	// yieldElectionsMin and yieldElectionsMax are the pauses, growing, between two
	// attempts to hand over. Each may cost one election timeout.
	yieldElectionsMin = 4
	yieldElectionsMax = 256

	// stallElections, and StallMin at least, is how long a write to the log may
	// take before its disk counts as one that takes nothing: far above the slowest
	// sync of a disk that works, below what clients wait for a request.
	stallElections = 3
	StallMin       = 3 * time.Second
	// followerStalls is how many times longer a follower that answers may store
	// nothing: besides its disk there is a line between, on which one large message
	// may take seconds.
	followerStalls = 3

	// CloseTransferMax bounds how long a stopping leader waits for its successor.
	CloseTransferMax = 800 * time.Millisecond
	// diskFullPause is how long append waits before it tries a full disk again.
	diskFullPause = 200 * time.Millisecond

	// FrameRequestBytesMax ends a frame of forwarded requests.
	FrameRequestBytesMax = 1 << 20

	// readContextBytesMax bounds the context of a peer's read round.
	readContextBytesMax = 64
	// electionTicksAtStart is what remains of the shortest election timeout when a
	// member starts, so that a new cluster elects within a second. A leader that
	// runs already is heard before, and pre-vote protects it anyway.
	electionTicksAtStart = 2
)
