package transport

import "time"

const (
	// FrameBytesMaxDefault is far above one message of appends (1 MiB) and the
	// largest request (1.5 MiB by default), and still bounds what one peer can make us hold.
	FrameBytesMaxDefault = 64 << 20

	// packetBytesGoal is where a batch of frames is closed: large enough that the
	// cost of a gRPC message disappears, small enough to keep a fair share of a connection.
	packetBytesGoal = 1 << 20

	// One queue per stream. The bulk queue holds what Raft may have in flight to
	// one follower; the control queue holds seconds of heartbeats and answers.
	bulkFramesMax    = 4096
	bulkBytesMax     = 64 << 20
	controlFramesMax = 4096
	controlBytesMax  = 16 << 20

	// chunkBytes of a snapshot travel in one packet: what is verified before it is handed on.
	chunkBytes = 256 << 10

	// streamWindowBytes is the flow control window of a stream: at 1 Gbit/s it
	// covers a round trip of 60 ms.
	streamWindowBytes = 8 << 20

	// learnedPeersMax bounds members that we know only from their own handshake,
	// because our state is behind theirs.
	learnedPeersMax = 16

	// urlsMax and urlBytesMax bound what a handshake may carry.
	urlsMax     = 16
	urlBytesMax = 2048

	// reasonBytesMax bounds the text of a refusal.
	reasonBytesMax = 1024

	// rosterMembersMax bounds a roster; a cluster has a handful of members.
	rosterMembersMax = 1024

	// handshakesMax connections may be between accept and the end of their TLS
	// handshake, so that strangers cannot hold our descriptors.
	handshakesMax = 256
)

const (
	// dialTimeout bounds one attempt, TCP, TLS and handshake together.
	dialTimeout = 5 * time.Second
	// backoffMin and backoffMax between attempts: quick after a restart of the
	// peer, and still quick after a long outage, since an attempt is cheap.
	backoffMin = 50 * time.Millisecond
	backoffMax = time.Second
	// refusedBackoff after a refusal: people have to act before it can change.
	refusedBackoff = time.Second
	// pingInterval on each stream, for the round trip time and to notice a dead path.
	pingInterval = time.Second
	// controlSilenceMax without an answer to a ping, and the path counts as dead.
	controlSilenceMax = 5 * time.Second
	// bulkSilenceMax is longer: a ping there waits behind megabytes.
	bulkSilenceMax = 30 * time.Second
	// sniffTimeout bounds the TLS handshake and the first bytes of a connection.
	sniffTimeout = 5 * time.Second
	// questionTimeout bounds Ask and FetchRoster when the caller's context does not.
	questionTimeout = 10 * time.Second
	// snapshotStallMax without a chunk from the sender, and a snapshot is given up.
	snapshotStallMax = 2 * time.Minute
	// snapshotTakeMax is for the receiver to take a chunk: it may copy all that it
	// has before it reads on, and verifies and syncs at the end. A receiver that is
	// gone is noticed by the connection.
	snapshotTakeMax = 10 * time.Minute
	// keepaliveTime and keepaliveTimeout end inbound streams of vanished peers.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
)
