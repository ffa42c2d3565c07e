package wal

const (
	// SegmentBytesDefault keeps the number of files small and makes the sync of
	// a folder rare, while one segment is still quickly allocated and read.
	SegmentBytesDefault = 64 << 20
	// SegmentBytesMin leaves room for a header and the state at the head of a
	// segment. Only tests go so low.
	SegmentBytesMin = 4 << 10
	// SegmentBytesMax keeps offsets within 32 bits in records and in memory.
	SegmentBytesMax = 1 << 30

	// NoteBytesMax and NoteKindsMax bound what each segment repeats at its head:
	// it must fit the smallest segment and leave most of it free.
	NoteBytesMax = 256
	NoteKindsMax = 8

	// bufferBytesMax is what Append gathers before it writes without being
	// asked to sync, so that a flood of entries does not pile up in memory.
	bufferBytesMax = 4 << 20
	// readChunkBytes is read at once by recovery: large enough for full disk
	// speed, small enough not to matter in memory.
	readChunkBytes = 1 << 20
	// sparesMax is how many retired segments wait for another life. One is
	// enough: the next is retired before the one after is needed.
	sparesMax = 1
)
