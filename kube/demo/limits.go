package demo

import "time"

// Limits of what one request can ask for: whoever runs a demo without limits of its
// container should not lose the machine to a typing error.
const (
	burnCoresMax = 64
	secondsMax   = 3600
	eatBytesMax  = 16 << 30

	// burnPeriod is short beside the 100 ms over which limits of processor time are
	// enforced, so that a burn below its limit is not throttled.
	burnPeriod = 20 * time.Millisecond

	drainMax  = 20 * time.Second // Below the 30 seconds that a pod has by default.
	headerMax = 10 * time.Second // For a request's head to come.
	getMax    = 10 * time.Second

	// portShift is added to a port that only root may listen on.
	portShift   = 8000
	portRootMax = 1023
)
