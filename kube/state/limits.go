package state

import (
	"time"

	"github.com/holdfast-db/holdfast/kube/api"
)

const (
	// writeTriesMax is how often a write is decided anew because others were faster.
	// Each loss means that another write of the same keys won.
	writeTriesMax = 64

	// readsMax keys that one write may depend on: what a transaction of the store
	// can compare and, in vain, read.
	readsMax = 100

	// guardsMax of one request: the rest of readsMax is the server's own.
	guardsMax = 16

	// patienceMax is how long a read waits for the cache. Two timeouts of the store.
	patienceMax = 15 * time.Second

	// progressRetry is how often the store is asked again how far a watch is, while
	// it catches up.
	progressRetry = 10 * time.Millisecond

	// listPageKeys are read at a time when the cache fills and for the rest of a list.
	listPageKeys = 2000

	// relistDelay is between attempts to fill the cache.
	relistDelay = 500 * time.Millisecond

	// eventsKept per kind, for watches that begin in the past; and their bytes.
	eventsKept      = 16 << 10
	eventsKeptBytes = 64 << 20

	// watchQueueMax events may wait for one watcher before its watch expires.
	watchQueueMax = 16 << 10

	// watchBatchEvents and watchBatchBytes go out in one message.
	watchBatchEvents = 500
	watchBatchBytes  = 1 << 20

	// bookmarkInterval is how often an idle watch is told how far it is.
	bookmarkInterval = 10 * time.Second

	// objectBytesMax of one object: what one request of the store may be, less what
	// else is in the transaction.
	objectBytesMax = 1 << 20

	// nameBytesMax of an object, as a DNS name; generatedBytes of them are drawn.
	nameBytesMax   = api.NameBytesMax
	generatedBytes = 5

	// generateTriesMax names are drawn for one object: with a million of 14 million taken,
	// all of them are taken once in 10^9.
	generateTriesMax = 8

	// problemsMax fields that are wrong are told at a time.
	problemsMax = 20

	// selectorBytesMax of a label or field selector.
	selectorBytesMax = 16 << 10
)

const (
	// heartbeatTTL in seconds, unless Config says otherwise, is how long a dead node is waited for. A node renews
	// every third of it.
	heartbeatTTL    = 10
	heartbeatTTLMax = 300

	// renewalStreams are enough for thousands of nodes: a stream of the store answers
	// one renewal after the other, some thousand a second.
	renewalStreams = 8

	// eventTTL in seconds is how long an event stays. Events share a lease for
	// eventLeaseShare seconds: to the store a lease is a thing of its own.
	eventTTL        = 3600
	eventLeaseShare = 300

	// eventBytesMax of one: some thousand words. What a source writes in an hour stays so
	// long, and must not fill the store.
	eventBytesMax = 16 << 10

	// Each source of events may write eventsPerSecond, and eventsBurst at once; so
	// many sources are told apart.
	eventsPerSecond = 10
	eventsBurst     = 100
	// The scheduler and the controllers speak of all pods.
	partEventsPerSecond = 200
	partEventsBurst     = 2000
	eventSourcesMax     = 16 << 10

	// Strangers may try bootstrapsPerSecond join tokens, all together.
	bootstrapsPerSecond = 50
	bootstrapsBurst     = 500
	tokenBytesMax       = 1 << 10
	csrBytesMax         = 64 << 10

	// rootsInterval is how old the authorities may be that nodes are told of: they
	// change once in years, and then in steps that wait for all nodes.
	rootsInterval = 10 * time.Second

	// budgetsMax that may protect one pod: with more nobody can say which counts.
	budgetsMax = 1

	// sampleLife is how long a sample tells what is: some intervals of kubelets. Later
	// its node is dead, or tells another server.
	sampleLife = time.Minute

	// passOnMax bounds a call of another server.
	passOnMax = 5 * time.Second

	// connectMax is what another server's node may take longer than the server.
	connectMax = 5 * time.Second

	// commandWordsMax and commandBytesMax of a command in a container.
	commandWordsMax = 4096
	commandBytesMax = 128 << 10

	// samplePodsMax and sampleContainersMax of one sample.
	samplePodsMax       = 1000
	sampleContainersMax = 100

	// inventoryPodsMax of one node: more than a kubelet takes. Twice as many are kept: all
	// may be others before it tells which of them are no more.
	inventoryPodsMax = 2000

	// Ports of the node that services may have.
	nodePortMin, nodePortMax = 30000, 32767
)
