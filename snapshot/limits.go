package snapshot

import "github.com/holdfast-db/holdfast/mvcc/history"

const (
	// frameBytes of content are compressed and checked together: enough for zstd
	// to work well, little enough to name damage closely.
	frameBytes = 512 << 10
	// storedBytesMax bounds what a frame may take: incompressible content grows a little.
	storedBytesMax = frameBytes + 64<<10

	// itemBytesMax bounds one row or record: a segment of history holds no larger record.
	itemBytesMax = history.RecordBytesMax

	// revisionMax is how far a restore raises the revision at most: a quarter of what
	// the protocol's integers hold is left for writes.
	revisionMax = 3 << 61

	// headerBytesMax bounds the header: IDs, positions and Raft's configuration.
	headerBytesMax = 64 << 10

	// logSegmentBytes of the first segment of a restored member's log, which holds
	// its start and little else: the member makes the next in its own size.
	logSegmentBytes = 1 << 20

	// replayBytes of a log are read at a time: enough to be quick, little to keep.
	replayBytes = 1 << 20

	// progressBytes between two reports of progress.
	progressBytes = 4 << 20

	// pieceBytes of content are written at a stretch where others need the
	// processor: a few milliseconds.
	pieceBytes = 1 << 20

	// fillRingBytes of history are kept in memory by a store that is filled.
	fillRingBytes = 4 << 20

	// FillBytesMax is what memory a restore may take beside the index of keys that
	// history has changed, whatever the size of the state. Buffers take about half
	// of it; the rest is what waits for the garbage collector, which therefore has
	// to run at FillGCPercent in a process that restores.
	FillBytesMax  = 64 << 20
	FillGCPercent = 50
)
