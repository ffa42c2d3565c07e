package codec

const (
	// nestingMax bounds how deep transactions may nest. The generated decoder
	// recurses without a bound of its own, and a stack that overflows ends the
	// process. It is the bound of protobuf's own decoder.
	nestingMax = 10_000

	// spliceBytesMin is the length from which a ready part goes out in place.
	// Below it a copy costs less than one more buffer on the way: 10,000 parts
	// over gRPC take 10.5 ms of CPU copied and 13 ms in place at 1 KiB each,
	// the same either way at 2 KiB, 92 ms and 77 ms at 8 KiB.
	spliceBytesMin = 4 << 10

	// chunkBytes is the length of a buffer in which smaller parts collect: a
	// class of the pool, two HTTP/2 frames.
	chunkBytes = 32 << 10

	// bufferBytesMin and bufferBytesMax are the smallest and the largest class of
	// buffers, each twice the one before; what is larger is made to measure. gRPC's
	// own pool has no class between 32 KiB and 1 MiB, and clears a whole megabyte
	// for each page of a list.
	bufferBytesMin = 1 << 10
	bufferBytesMax = 1 << 20
)
