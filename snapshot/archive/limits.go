package archive

import (
	"time"

	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

const (
	// SegmentBytes of records at which a segment is cut: large enough that a busy
	// cluster makes a few objects a second, small enough to be a quick restore's
	// last step.
	SegmentBytes = 4 << 20
	// SegmentDelay is how old the oldest record of a segment gets before it is cut.
	SegmentDelay = time.Second

	// recordsBytesMax bounds a segment's records before compression, and so what a
	// reader may be made to hold. A single entry larger than that cannot be
	// archived: the log has a gap there, and a new base follows.
	recordsBytesMax = 128 << 20

	// partBytes of a base's stream in one object. A restore holds partsAhead of
	// them, and whatever else it does fits what is left of 64 MiB.
	partBytes  = 4 << 20
	partsAhead = 4

	// storedFrameBytes are checked together: how closely damage is named.
	storedFrameBytes = 256 << 10

	headBytesMax   = 64 << 10
	objectBytesMax = blobstore.MaxObject

	// textBytesMax bounds JSON objects; a manifest of a base of 8 TiB fits.
	textBytesMax = objectBytesMax

	recipientsMax = 20 // Of one archive: age adds some 200 bytes for each to every object.
)

const (
	// leaseTTL of the owner. A hand-over after a crash takes that long; history is
	// kept meanwhile.
	leaseTTL   = 15 * time.Second
	renewEvery = leaseTTL / 5

	// followEvery is how often a member that does not ship looks how far the one
	// that does has come; followSoon when somebody waits for it.
	followEvery = 3 * time.Second
	followSoon  = 50 * time.Millisecond

	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second

	// mergePause after a base that a compaction could not wait for: time to merge.
	mergePause = 5 * time.Minute

	// putTimeout ends a write that does not return. It may land later, with the same bytes.
	putTimeout = 30 * time.Second

	// ceilingBlock of revisions is reserved at once: a hundred thousand writes a
	// second take more than a day to use it up.
	ceilingBlock = 1 << 34

	// revisionsPerSecondMax is several times what any cluster has been seen to make.
	revisionsPerSecondMax = 1 << 18
)
