package mvcc

import (
	"time"

	"github.com/holdfast-db/holdfast/mvcc/backend"
)

const (
	// A list of 4^12 keys is searched without a scan; a segment holds fewer.
	skipHeightMax = 12
	// All that 32 bits can address: 16 GiB of words, 4 GiB of keys. A segment of
	// 64 MiB with the shortest records needs half a GiB; only one request that
	// deletes some hundred million keys could ask for more, and its record would
	// not fit a segment. At a quarter a list is sealed, whatever its segment says.
	wordChunksMax = 1 << (32 - wordChunkBits)
	keyChunksMax  = 1 << (32 - keyChunkBits)

	// KeyBytesMax is what the young index has room for: 24 bits for a length, and the
	// index of leases puts eight bytes before the key. Servers take requests of 1.5 MiB
	// unless told otherwise.
	KeyBytesMax = 1<<24 - 1 - 8
	// What one entry may change: its record must fit the segment that it begins in, at
	// the end of which 3 GiB are left. A small request can ask for more, as one that
	// keeps the values of keys writes them again; what can not be written must not
	// get that far, for every member would meet it again at each start.
	// mutationOverhead bounds what a mutation has around key and value.
	entryBytesMax    = 2 << 30
	mutationOverhead = 128
	// What one request may be answered with that goes through the log: all members
	// make the answer, again at each start until a checkpoint has covered the entry,
	// and none must end for want of memory. rowOverhead is what holds a row there.
	answerBytesMax = 512 << 20
	rowOverhead    = 256

	indexSlotsMin = 64 // Half a KiB for a list of few keys.

	// A read in base is renewed after so many bytes, so that bbolt can reuse pages.
	baseReadBytesMax = 8 << 20
	// A hash lets go of base after so many keys.
	hashPageKeys = 10_000
	// Keys of a lease read from base at once.
	leaseKeysPage = 1000
	// Tables of small rows are numbered from 1.
	tablesMax = int(backend.TableMeta) + 1

	// History goes to its file in pieces of so many bytes, without a sync: small
	// enough that the sync of a checkpoint finds little, far below what the ring
	// holds.
	flushBytes = 1 << 20
	// Syncing so many bytes takes some tens of milliseconds on a slow disk: the
	// log's own syncs wait behind it.
	syncBytes = 4 << 20

	// One base transaction of a merge: about 10 ms of work and 4 MiB of pages to
	// sync, so that neither a checkpoint, nor the log, nor the end of the process
	// waits long. A key among others changes a page of its own; keys beyond the
	// last one of base share pages, and many go into fewer transactions.
	mergeKeysMax  = 5000
	mergeBytesMax = 4 << 20
	mergePage     = 4 << 10
	// After each the merge rests so many times as long as it took, its syncs
	// included: the log waits for those too, as they share a disk. That is a
	// twentieth of the time while clients write, and a fifth while nobody does. It
	// does not rest while somebody waits for it, or with so much history left to
	// merge.
	mergeRest        = 19
	mergeRestIdle    = 4
	mergeLagBytesMax = 1 << 30
	// A stream that keeps a revision from being merged is ended after so long.
	pinWaitMax = 30 * time.Second
	// A frozen state that does so is overdue when less than an eighth of the quota is
	// left and a thirty-second of it has gone meanwhile: less would not be worth it.
	frozenQuotaLeft = 8
	frozenQuotaGone = 32
	// What the index of a segment may take, as it is written, in a store that is
	// filled: memory is bounded there. Where values are large a segment still gets
	// its size: a member keeps the files of all of them open.
	fillIndexBytes = 4 << 20
	// Tables that are larger together are not merged: they would not fit one.
	tableBytesMax = 1 << 30

	// A read meets at most so many generations; more are merged in memory.
	generationsMax = 8

	// A scrubber keeps a view of base for so long: the file grows by what is
	// written meanwhile, and with 8 MiB a second most bases are read in one.
	scrubViewMax = 20 * time.Second

	// Digests at multiples of DigestEvery that are remembered: a member may be some
	// 30,000 entries behind another and still share one with it. 24 KiB.
	digestsMax = 1024

	// A range looks at its context each so many keys.
	rangeCheckKeys = 1024
)

const segmentBytesMax = 1 << 30 // A record of a large request must still fit beyond the end.

// Defaults of Config.
const (
	DefaultSegmentBytes       = 64 << 20
	DefaultRingBytes          = 32 << 20
	DefaultCheckpointBytes    = 64 << 20
	DefaultCheckpointInterval = 10 * time.Second
	DefaultHeldBytesMax       = 5 << 30 // A little more than an archive holds unless told otherwise.
)
