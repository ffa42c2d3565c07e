package load

import "time"

const (
	// clientsMax is far more than sockets and memory of one machine carry well.
	clientsMax = 100_000

	// windowBytes may be on their way to us on one stream; as much as the protocol
	// can say, so that the server never waits for this side.
	windowBytes = 1<<31 - 1
	// windowRefill is after how many bytes the window is opened again.
	windowRefill = 1 << 20

	// readBytes is the buffer of a connection: the largest frame the server may
	// send fits many times, so that frames are handled where they lie.
	readBytes   = 128 << 10
	frameBytes  = 16 << 10 // The protocol's default, which is not changed.
	messageMax  = 1 << 30  // More is taken for nonsense.
	headersMax  = 64 << 10 // Of one block, in parts.
	streamIDMax = 1<<31 - 1

	// paceInterval is how often due requests are looked for.
	paceInterval = 200 * time.Microsecond
	// progressInterval is often enough for eyes, and rare enough to cost nothing.
	progressInterval = 200 * time.Millisecond
	// stallMax is longer than an election and two timeouts of a server.
	stallMax = 20 * time.Second
	// deliveryMax is how long to wait for one more event when all is written.
	deliveryMax = 5 * time.Second
)
