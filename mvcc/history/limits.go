package history

import "math"

const (
	// SegmentBytesDefault is small enough that compaction gives space back soon,
	// large enough that a store of the largest size has a few hundred files.
	SegmentBytesDefault = 64 << 20
	SegmentBytesMin     = 4 << 10                              // Below it headers outweigh records.
	SegmentBytesMax     = math.MaxUint32                       // Places in a segment have 32 bits.
	RecordBytesMax      = SegmentBytesMax - segmentHeaderBytes // A record lies in one segment.

	// originRevision is where the history of a store begins that was never merged.
	originRevision = 1

	// RingBytesDefault holds what live watchers and a short lag need: some ten
	// thousand changes.
	RingBytesDefault = 32 << 20
	RingBytesMin     = 16 << 10 // A few blocks, or nothing could ever leave.

	blockBytesMax = 1 << 20 // A value read without copying keeps its whole block alive.
	blockBytesMin = 4 << 10

	// Preallocation: none while a segment is tiny, so that a fresh store is,
	// then as much as is already there.
	allocateFromBytes = 16 << 10
	allocateStepMin   = 64 << 10
	allocateStepMax   = 4 << 20 // Allocating writes zeroes: more at once would delay a sync.

	waypointBytes = 64 << 10 // How far apart a scan may begin: what it reads in vain.

	chunkBytesMin = 64 << 10 // First read of a scan: many want only a few records.
	chunkBytesMax = 1 << 20

	restartKeys = 16 // Keys between two of a key table that a search can begin at.
	runVersions = 16 // Versions of a key between two that a search can begin at.
)
