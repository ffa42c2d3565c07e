package kubelet

import "time"

const (
	// restartDelayMin to restartDelayMax is waited before a container that ended is
	// started again, doubling; the first time not at all. One that ran for steadyRun
	// begins anew.
	restartDelayMin = 10 * time.Second
	restartDelayMax = 300 * time.Second
	steadyRun       = 10 * time.Minute

	// missingRetry is between attempts of a container that names a secret or a config map
	// that is not there: nodes are not told when it comes, and nothing but a read is lost.
	missingRetry = time.Second

	// leaseTTL is taken for the lease of the node until the control plane has said how
	// long it is. It is renewed each third of it; a renewal without answer for as long is
	// given up, and asked for elsewhere.
	leaseTTL = 10 * time.Second

	// leaseNoteMax bounds what a file on disk may say that is left of a lease.
	leaseNoteMax = 5 * time.Minute

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

	// staticLook is how often the folder of static pods is read.
	staticLook = 2 * time.Second

	// aloneAfter without a control plane, a node that has never seen one starts its static
	// pods.
	aloneAfter = 10 * time.Second

	// diskLook is how often the disk is measured. With less than 1/diskFreeLow of it free
	// there is pressure, until there is 1/diskFreeHigh.
	diskLook     = 10 * time.Second
	diskFreeLow  = 10
	diskFreeHigh = 8

	// imagesToldMax images, with imageNamesMax names each, are in the status of a node: it
	// is read by many.
	imagesToldMax = 50
	imageNamesMax = 5

	// holdLook is how often a node that holds looks whether it shall go on to do so, and
	// tells what has changed of what it has.
	holdLook = 2 * time.Second

	// inventoryPartBytes of pods go into one call: less than a request may have.
	inventoryPartBytes = 1 << 20

	// eventsQueued may wait to be written; more are dropped: they are for people.
	eventsQueued = 64

	// eventBytesMax and statusBytesMax are what a message of an event, and one in the
	// status of a container, may be long: registries and runtimes say what they like, again
	// and again.
	eventBytesMax  = 1 << 10
	statusBytesMax = 4 << 10

	// callMax bounds one call.
	callMax = 15 * time.Second
)
