package pods

import "time"

const (
	// retryMin to retryMax is between attempts of what the engine or the volumes of a
	// pod do not manage, doubling.
	retryMin = 250 * time.Millisecond
	retryMax = 10 * time.Second

	// volumesRetryMax is less: a config map that was applied after its pod is waited for.
	volumesRetryMax = 2 * time.Second

	// lookInterval is how often the engine is asked for all pods though it said nothing.
	lookInterval = 20 * time.Second

	// callMax bounds a call that only asks.
	callMax = 30 * time.Second

	// dialMax is how long a program at the address of its pod may take to accept a
	// connection.
	dialMax = 10 * time.Second

	// hookGraceMin is what a container has between the end of its preStop hook and KILL,
	// however long that took.
	hookGraceMin = 2 * time.Second

	// orphanGrace is for pods of which nobody knows the grace any more.
	orphanGrace = 30 * time.Second

	// logLinesMax and logBytesMax of the end of a log are told, where a pod asks for that
	// instead of a message.
	logLinesMax = 80
	logBytesMax = 2048

	// podPIDs is how many processes a pod may have if nothing else is said.
	podPIDs = 4096

	// refreshInterval is how often volumes follow their secrets and config maps, and are
	// measured.
	refreshInterval = 15 * time.Second

	// rateWindowMin is the shortest time over which use of the processor is told.
	rateWindowMin = time.Second

	// collectInterval is how often images that nobody uses are looked for.
	collectInterval = 5 * time.Minute
)
