package dns

import "time"

const (
	// recordTTL is how long an answer about the cluster may be kept: short, since
	// endpoints come and go, and asking is cheap.
	recordTTL = 5

	// cacheTTLMax is how long an answer from outside is kept, whatever it says,
	// cacheEntriesMax how many are, and cacheBytesMax how long each may be.
	cacheTTLMax     = 30 * time.Second
	cacheEntriesMax = 4096
	cacheBytesMax   = 2048

	// datagramPlain is what a client takes that does not say more; datagramMax what is
	// sent at most, so that it fits everywhere; readMax what is read.
	datagramPlain = 512
	datagramMax   = 1232
	readMax       = 1 << 16
	messageMax    = 1<<16 - 1

	// Questions that wait for resolvers at a time, and connections at a time. One client
	// may have a quarter of them.
	forwardsMax    = 256
	connectionsMax = 128
	clientShare    = 4

	// forwardMax is how long a question may take in all: clients ask again after five
	// seconds.
	forwardMax = 5 * time.Second

	// settingsAge is how old what is known of the node's resolv.conf may be.
	settingsAge = 5 * time.Second

	connectionIdle = 10 * time.Second
	acceptPause    = time.Second // After the system could not accept a connection.

	// chaseMax is how many aliases are followed for one question.
	chaseMax = 8

	// ndots as Kubernetes has it: shorter names are looked for in the search path first.
	ndots = 5
)

// forwardWaits is how long each resolver may take, when it is asked first and once more.
var forwardWaits = []time.Duration{time.Second, 2 * time.Second}
