package client

import (
	"math"
	"time"
)

const (
	dialTimeout      = 5 * time.Second
	requestTimeout   = 15 * time.Second // Two timeouts of a server: 5 s and two elections each.
	keepAliveTime    = 10 * time.Second // What gRPC raises anything lower to; servers allow 5 s.
	keepAliveTimeout = 3 * time.Second  // As etcd's clients. A member that hangs is left before a request has to end.

	// A member that restarts is back within a second: try it often at first,
	// and still several times a minute when it stays away.
	connectDelayMin = 50 * time.Millisecond
	connectDelayMax = 3 * time.Second

	// Between attempts of one call, or streams of one watcher. An election
	// takes about a second; longer waits only lengthen the outage.
	retryDelayMin = 25 * time.Millisecond
	retryDelayMax = 500 * time.Millisecond

	// loginsMax for one call: users may change while it is made, but not so often.
	loginsMax = 5

	// The server bounds answers by what was asked for: whoever asks for
	// everything gets it.
	messageBytesMax = math.MaxInt32

	// A renewal goes out each third of the TTL, so that two may be lost. A
	// shorter wait than this only loads the leader.
	renewalWaitMin = 200 * time.Millisecond

	// renewalPatienceMin is the least time a renewal may stay unanswered
	// before another member is asked.
	renewalPatienceMin = time.Second
)
