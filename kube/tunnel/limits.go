package tunnel

import "time"

const (
	// FrameBytesMax of data are in one frame. Some frames of each session wait in a
	// server: what they hold, times the sessions, is what tunnels cost there.
	FrameBytesMax = 32 << 10

	// sessionsPerNodeMax over one tunnel, and sessionsPerUserMax of one user at one
	// server. A forwarded port has one for each connection.
	sessionsPerNodeMax = 512
	sessionsPerUserMax = 512

	// sayMax is what a server may have to say to a node on its tunnel: two for each
	// session, and as much again.
	sayMax = 4 * sessionsPerNodeMax

	// openMax is how long a node may take to open a session that it was told to open.
	openMax = 5 * time.Second

	// secretBytes of a credential.
	secretBytes = 16

	// retryDelayMin to retryDelayMax is between attempts to have a tunnel, doubling,
	// the half of it drawn: not all nodes come back to a server at once.
	retryDelayMin = 200 * time.Millisecond
	retryDelayMax = 15 * time.Second

	// followDelayMin to followDelayMax is between attempts to follow a log that was lost,
	// doubling, and followLostMax how long it is tried: a kubelet that is replaced is
	// back in seconds, and on a machine that starts anew the container has ended.
	followDelayMin = 200 * time.Millisecond
	followDelayMax = 3 * time.Second
	followLostMax  = time.Minute

	// outcomeMax is how long a node waits for a server to take the end of a session.
	outcomeMax = 10 * time.Second
)
