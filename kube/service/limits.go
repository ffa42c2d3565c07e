package service

import "time"

const (
	// A map has at least slotsMin slots, and slotsPerEndpoint for each endpoint: one has
	// at most a quarter more connections than another. It grows by slotsGrowth, so that
	// it is made anew rarely.
	slotsMin         = 64
	slotsPerEndpoint = 4
	slotsGrowth      = 16
	slotsMax         = 1 << 14

	// elementsMax is how many elements one message to the kernel carries. The length of
	// the list has 16 bits, and one that names a chain takes up to 240 bytes.
	elementsMax = 256

	// pieceBytes are those of a transaction that are allocated at once: the kernel gathers
	// 1,024 pieces. With less than pieceRest left another one begins, as the 64 slots of a
	// port would not fit.
	pieceBytes = 1 << 16
	pieceRest  = 1 << 12

	// stickyMax is how many clients stick to an endpoint of one port. More than these
	// get any.
	stickyMax = 1 << 16

	// socketBytes is the buffer for a transaction, and for its acknowledgements.
	socketBytes = 64 << 20

	// kernelWait is how long the kernel may take for a transaction.
	kernelWait = 10 * time.Second

	// cutTries is how often flows that end are looked for while the kernel's list changes.
	cutTries = 4

	// forgetTries is how often clients are looked for whose time ends just then.
	forgetTries = 8

	// stickyDefault is Kubernetes' default for sessionAffinityConfig.
	stickyDefault = 3 * time.Hour

	// retryDelay is the pause before a plane that failed is given everything anew.
	retryDelay = time.Second

	// lookInterval is how often a plane to which nothing happens is looked at.
	lookInterval = 30 * time.Second

	// Userspace: how long a connection to an endpoint may take to be made, how many
	// endpoints are tried, and when a flow of UDP that is silent ends.
	dialWait     = 2 * time.Second
	dialTries    = 3
	flowIdle     = time.Minute
	datagramMax  = 1 << 16
	affinityScan = 1024 // Clients, after which those whose time is over are looked for.

	// connectionsMax of TCP, and flowsMax of UDP, go through userspace at a time. A
	// connection takes two sockets, and a pipe for each direction, of the files that the
	// process may open: together they get at most three quarters of these. One port gets
	// a quarter of each, so that a flood at one leaves the others something.
	connectionsMax     = 8192
	flowsMax           = 4096
	filesPerConnection = 6
	placesPerPort      = 4
)
