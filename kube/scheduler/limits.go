package scheduler

import "time"

const (
	// recoveryLook is how often it is asked whether a recovery is settled.
	recoveryLook = time.Second

	// bindsMax are on their way to the store at a time: it puts what waits into one
	// batch, so more in flight is more a second, up to about here.
	bindsMax = 64

	// bindTimeout is when a bind is given up: two elections of the store. It may have
	// been done all the same; the next one finds out.
	bindTimeout = 15 * time.Second

	// refusalsMax binds of a pod may be refused in a row before it waits: each refusal
	// means that somebody else was faster, or that what we know of a node is wrong.
	refusalsMax = 3

	// A pod that found no node waits before it tries again: a second, doubling.
	backoffMin = time.Second
	backoffMax = 10 * time.Second

	// parkedMax is how long a pod waits for an event before it tries unasked, should
	// one have been overlooked; parkedLook is how often that is looked for.
	parkedMax  = time.Minute
	parkedLook = 10 * time.Second

	// wakeInterval is how often events wake pods: a pass looks at each pod that waits.
	// Where thousands do, there is a pause of wakePause times what the pass took.
	wakeInterval = 50 * time.Millisecond
	wakePause    = 10

	// wakeNodesMax nodes are looked at one by one in a pass. If more have changed, all
	// pods are woken that one of the changes could help.
	wakeNodesMax = 16

	// conditionsRate a second are written, after conditionsBurst at once: they are
	// for people, and compete with binds for the store.
	conditionsRate  = 100
	conditionsBurst = 1000

	// eventsRate and eventsBurst likewise; eventsWaitingMax wait, the rest is dropped:
	// Explain tells the same, and the pod's conditions.
	eventsRate       = 50
	eventsBurst      = 500
	eventsWaitingMax = 1000

	// eventsKnownMax are remembered, so that one that happens again is counted and not
	// written anew; eventRepeat is how often its count is written.
	eventsKnownMax = 4096
	eventRepeat    = time.Minute

	// decisionsMax of each pod are kept, of the podsExplained that were decided last.
	decisionsMax  = 5
	podsExplained = 10_000
)
