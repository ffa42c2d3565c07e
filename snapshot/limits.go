package snapshot

const (
	// frameBytes of content are compressed and checked together: enough for zstd
	// to work well, little enough to name damage closely.
	frameBytes = 512 << 10
	// storedBytesMax bounds what a frame may take: incompressible content grows a little.
	storedBytesMax = frameBytes + 64<<10

	// itemBytesMax bounds one row or record: a segment of history holds no larger record.
	itemBytesMax = 1 << 30

	// headerBytesMax bounds the header: IDs, positions and Raft's configuration.
	headerBytesMax = 64 << 10

	// logSegmentBytes of the first segment of a restored member's log, which holds
	// its start and little else: the member makes the next in its own size.
	logSegmentBytes = 1 << 20

	// replayBytes of a log are read at a time: enough to be quick, little to keep.
	replayBytes = 1 << 20

	// progressBytes between two reports of progress.
	progressBytes = 4 << 20
)
