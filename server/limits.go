package server

import "time"

const (
	// streamWorkers answer calls one after the other and keep their stacks: a new
	// goroutine for each call spends a tenth of a put on growing its own. Calls
	// beyond that get one.
	streamWorkers = 1024

	// TxnOpsMaxDefault operations in one transaction: the protocol's default,
	// clients rely on it.
	TxnOpsMaxDefault = 128

	// RequestBytesMaxDefault of one proposal, as clients expect it.
	RequestBytesMaxDefault = 1536 << 10

	// receiveOverheadBytes is what a message may be larger than a request: the
	// answer to those in between is in our words, above it in gRPC's.
	receiveOverheadBytes = 512 << 10

	// entryOverheadBytes is what a file of the Raft log holds besides one request,
	// and frameOverheadBytes what a frame does: other requests may come before it.
	entryOverheadBytes = 64 << 10
	frameOverheadBytes = 2 << 20

	// QuotaBytesDefault of the store, as etcd.
	QuotaBytesDefault = 2 << 30

	// LearnersMaxDefault at a time: each costs the leader a copy of everything.
	LearnersMaxDefault = 1

	// expiryInterval is how often the leader looks for leases that have run out.
	expiryInterval = 250 * time.Millisecond

	// clockInterval is how often each member asks the others for the time.
	clockInterval = time.Second

	// digestInterval is how often each member asks the others for their digests,
	// and digestsReported how many come at a time: those of the last 512 entries, so that
	// two members that are not further apart have one in common.
	digestInterval  = time.Second
	digestsReported = 16
	// bootCheckMax is how long a member that starts waits for the hashes of others;
	// compactHashCheckDefault is as etcd's.
	bootCheckMax            = 30 * time.Second
	compactHashCheckDefault = time.Minute

	// hashPatience is for another member to read all of its keys, of which many GiB may
	// have to come from its disk first.
	hashPatience = 10 * time.Minute

	// A learner is given its vote after promoteLooks in a row at which it had all but
	// promoteLagMax of the committed entries: one that falls behind again would cost
	// the quorum a vote.
	promoteInterval = time.Second
	promoteLooks    = 3
	promoteLagMax   = 100
	// splitPatience is how long members may differ without a quorum for one side:
	// the one that decides may be starting.
	splitPatience = 10 * time.Second

	// repairTimeoutDefault is long enough for peers that start at the same time, and
	// short enough that a supervisor sees why this member does not.
	repairTimeoutDefault = 5 * time.Minute
	repairPause          = time.Second

	// scrubBytesPerSecond is a share of any disk that nobody notices, and reads 28
	// GiB an hour; scrubStepBytes is what is read at a time.
	scrubBytesPerSecond  = 8 << 20
	scrubStepBytes       = 256 << 10
	scrubIntervalDefault = time.Hour

	// requestTimeout without the two election timeouts that are added to it.
	requestTimeout = 5 * time.Second

	// claimTTL of the lease that a lock or a candidate gets who brings none, in
	// seconds; giveUpPause is between attempts to take a claim back.
	claimTTL    = 60
	giveUpPause = 100 * time.Millisecond

	// putOverheadBytes and leaseOverheadBytes are what a request is counted with
	// against the quota beside its key and value.
	putOverheadBytes   = 256
	leaseOverheadBytes = 64

	// rangePartBytes is about what a part of RangeStream has: enough that its cost
	// is in the bytes, and little in memory for many streams.
	rangePartBytes = 512 << 10

	// ClientBufferBytesDefault may wait for clients that do not read: half of it for
	// watches, and as much for streams of ranges, each of which has a part and its
	// encoding. With less than the least few clients could be served.
	ClientBufferBytesDefault = 512 << 20
	clientBufferBytesMin     = 16 << 20
	rangeStreamBytes         = 2 * rangePartBytes

	// snapshotsMax are sent to clients at a time: each is a file as large as the state.
	snapshotsMax = 4
	// clientStallMax without anything being taken of a snapshot or a stream of a range,
	// and a client is left: others want the place and the space.
	clientStallMax = 5 * time.Minute
	// snapshotChunkBytes of the Snapshot stream, as etcd.
	snapshotChunkBytes = 32 << 10
	// snapshotPieceBytes are sent before others get their turn.
	snapshotPieceBytes = 32 * snapshotChunkBytes

	// Progress notices of idle watches.
	watchProgressIntervalDefault = 10 * time.Minute
	watchProgressIntervalMin     = 100 * time.Millisecond

	// strictConnected is how long a member must have been connected to a quorum
	// before it lets the members be changed.
	strictConnected = 5 * time.Second

	// learnerReadyPercent of the leader's log must be on a learner before it may vote.
	learnerReadyPercent = 90

	// sniffTimeout for the first bytes of a connection of a client.
	sniffTimeout = 5 * time.Second

	// handshakesMax connections may be between accept and their first bytes, so
	// that strangers can not hold our descriptors.
	handshakesMax = 1024

	// socketPathMax is what the system takes.
	socketPathMax = 107

	// keepaliveMin is how often a client may ask whether the connection lives;
	// keepaliveInterval and keepaliveTimeout are how this side asks. Defaults, as etcd.
	keepaliveMin      = 5 * time.Second
	keepaliveInterval = 2 * time.Hour
	keepaliveTimeout  = 20 * time.Second

	// AuthTokenTTLDefault of a token that is not used, as etcd; jwtTTLDefault of a
	// signed one, used or not.
	AuthTokenTTLDefault = 300 * time.Second
	jwtTTLDefault       = 5 * time.Minute

	// tokenPrefixBytes of a simple token: 52^16, so that it can not be guessed.
	tokenPrefixBytes = 16
	// tokensMax that are not void, of some 150 bytes each.
	tokensMax = 1 << 20
	// tokenSweepInterval is how long a void token takes up memory at most.
	tokenSweepInterval = 5 * time.Second
	// verifiedMax passwords, and as many signatures, are remembered as right.
	verifiedMax = 8 << 10
	// hashesWaitingMax passwords wait to be compared: at the default cost about a
	// minute's worth of one processor, and nobody waits longer.
	hashesWaitingMax = 1024
	// loginTriesMax when users change while a password is compared.
	loginTriesMax = 10

	// webSocketsMax at a time: each holds two goroutines, and pages leave theirs open.
	webSocketsMax = 4096

	// insideBufferBytes of the connection of an embedding program.
	insideBufferBytes = 256 << 10 // Twice: one for each direction.

	// leaderlessElections without a leader, in timeouts, and streams that need one end,
	// as in etcd: beginning them again costs more than waiting for an election.
	leaderlessElections = 3

	// stopTimeout for requests under way when the server closes, and for those that
	// came while it handed over for longer than that.
	stopTimeout    = 500 * time.Millisecond
	stopTimeoutMin = 100 * time.Millisecond
)
