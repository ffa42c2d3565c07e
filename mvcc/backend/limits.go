package backend

const (
	// pageBytesDefault keeps a fresh base under 40 KiB, and sparse merges small.
	pageBytesDefault = 4096
	// pageBytesMin and pageBytesMax bound Config.PageSize: smaller pages cannot
	// hold two short keys, larger ones break the limit on a fresh database.
	pageBytesMin = 4096
	pageBytesMax = 8192

	// fileBytesMin is what bbolt gives a new file, and never takes away: two meta
	// pages, a list of free pages, a root.
	fileBytesMin = 4 * pageBytesMin

	// mapBytesDefault is virtual: it costs address space, not memory. It is also
	// the largest base there can be, because a file that never outgrows its
	// mapping never has to wait for readers.
	mapBytesDefault = 64 << 30
	// mapBytesMin leaves room for a growth step at the end of the mapping.
	mapBytesMin = 16 << 20

	// growthBytesMax and growthFraction bound how much a file grows ahead of
	// need: a sixteenth of itself, so that a small base stays small, and at most
	// 4 MiB, so that a large one wastes little.
	growthBytesMax = 4 << 20
	growthFraction = 16

	// shortKeyBytesMax is the longest key that is a key of bbolt: its own limit
	// is 32 KiB, but a branch page should hold several.
	shortKeyBytesMax = 1024

	// treeDepthMax is far above what pages of two keys each need for any file
	// that can be mapped; deeper means a cycle.
	treeDepthMax = 32

	// A new file is written in blocks of writeBlockBytes, one being filled while
	// others are on their way.
	writeBlockBytes = 1 << 20
	writeBlocks     = 3

	// Rows go in batches to the goroutine that hashes them.
	hashBatchBytes = 256 << 10
	hashBatches    = 4

	// sortBytesDefault of keys of leases are sorted in memory before they go to a
	// scratch file.
	sortBytesDefault = 8 << 20

	// A leaf of large rows takes several pages rather than leave more than this
	// fraction of one empty. Rows of any size leave less in so many pages.
	leafEmptyFraction = 4
	leafPagesMax      = 8

	// syncAheadBytes of a new file are synced while the next are written: what the
	// last sync has to wait for is then little.
	syncAheadBytes = 16 << 20

	// inlineFraction of a page is what a bucket may take that lies within the
	// directory, as in bbolt.
	inlineFraction = 4

	// fillPercent leaves little room in a page written in bulk: later merges
	// split few of them.
	fillPercent = 0.95

	// defragmentFreePercent is how much of a file must be free before rewriting
	// it gives back enough to be worth it.
	defragmentFreePercent = 25

	// pollRows is how many rows long work handles between looks at its context.
	pollRows = 1024
)
