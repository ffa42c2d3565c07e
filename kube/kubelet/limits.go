package kubelet

import "time"

const (
	// restartDelayMin to restartDelayMax is waited before a container that ended is
	// started again, doubling; the first time not at all. One that ran for steadyRun
	// begins anew.
	restartDelayMin = 10 * time.Second
	restartDelayMax = 300 * time.Second
	steadyRun       = 10 * time.Minute

	// ttlSeconds is the lease of the node. It is renewed each third of it; a renewal
	// without answer for as long is given up, and asked for elsewhere.
	ttlSeconds = 10

	// fenceMargin before the lease can have ended, singletons are stopped: the time to
	// stop them, and clocks that differ in rate.
	fenceMargin = time.Second

	// retryDelayMin to retryDelayMax is between attempts of whatever the control plane
	// did not take.
	retryDelayMin = 200 * time.Millisecond
	retryDelayMax = 10 * time.Second

	// statusSoon after a lease was claimed, and then each statusInterval, the node's
	// status is looked at: somebody may have written that it is not ready.
	statusSoon     = 5 * time.Second
	statusInterval = 30 * time.Second

	// sampleInterval is how often use of CPU and memory is told; and sampleSoon after
	// pods came or went.
	sampleInterval = 15 * time.Second
	sampleSoon     = 2 * time.Second

	// eventsQueued may wait to be written; more are dropped: they are for people.
	eventsQueued = 64

	// callMax bounds one call.
	callMax = 15 * time.Second
)
