// Package fail names the places where a crash matters, so that a test from
// outside can have a member die, stall or keep silent exactly there.
//
// Code calls Here at such a place. Without the build tag failpoints that is an
// empty function, which the compiler removes; the tag makes it look whether
// somebody armed the place: by Set, by the HTTP handler, by the variable
// HOLDFAST_FAILPOINTS, or by the hook of a simulation. A build with the tag is
// for tests alone and says so in its version.
//
//	HOLDFAST_FAILPOINTS='wal/sync/before=3*off->crash;mvcc/merge/after=sleep(50ms)'
//
// What is armed is a chain of terms, each with a number of passes or, without
// one, for good; after the last the place does nothing again:
//
//	crash      the process kills itself with SIGKILL: nothing is flushed or closed
//	panic      as a broken invariant would
//	sleep(2s)  the goroutine waits
//	pause      it waits until the place is set anew or cleared
//	skip       what follows is left out, where Skip is asked and leaving it out is legal
//	off        nothing
//
// Invariant: a name stands in the table once and in the code once; a test
// reads both. State is global on purpose: places lie deep, and what a place
// would need to be told is which process it is in.
package fail

// Point is a place with a name.
type Point struct {
	Name  string
	About string
	Skips bool // Asked by Skip: what follows may be left out.
}

// Points lists all places.
func Points() []Point { return append([]Point(nil), table...) }

// table is in the order of the folders. A name begins with what its file is
// about.
var table = []Point{
	{Name: "vfs/replace/renamed", About: "a small file has its new content; the folder is not synced"},
	{Name: "datadir/identity/before", About: "a first start has made everything but IDENTITY"},
	{Name: "datadir/current/before", About: "a generation is complete and synced, and not named by CURRENT"},
	{Name: "datadir/current/after", About: "CURRENT names it; the one before is not renamed aside"},

	{Name: "wal/write/before", About: "records are encoded and not written"},
	{Name: "wal/write/after", About: "records are written and not synced"},
	{Name: "wal/sync/before", About: "before the sync that acknowledges"},
	{Name: "wal/sync/after", About: "records are durable, nobody was told"},
	{Name: "wal/segment/named", About: "a new segment has its name; the folder is not synced"},
	{Name: "wal/segment/begun", About: "the log goes on in a new segment, of which nothing is written"},
	{Name: "wal/compact/synced", About: "the new start of the log is durable, the segments before it are not retired"},
	{Name: "wal/recycle/before", About: "a retired segment is closed and keeps its name"},
	{Name: "wal/recycle/after", About: "it became a spare; the folder is not synced"},
	{Name: "wal/reset/before", About: "a snapshot is installed, the log still ends before it"},

	{Name: "raftnode/respond/before", About: "entries are durable, the leader was not told"},
	{Name: "raftnode/apply/before", About: "entries are committed and not applied"},
	{Name: "raftnode/apply/after", About: "entries are applied, and nobody sees it"},
	{Name: "raftnode/answer", About: "a result is about to go to who waits; left out, the client never knows", Skips: true},
	{Name: "raftnode/install/after", About: "the state machine has the snapshot, the log was not reset"},
	{Name: "transport/send", About: "a message to a peer is about to be queued; left out, it is lost", Skips: true},

	{Name: "history/flush/before", About: "records of history are in memory alone"},
	{Name: "history/sync/before", About: "history is written and not synced"},
	{Name: "history/sync/after", About: "history is durable"},
	{Name: "history/seal/before", About: "a segment is full, the next is not begun"},
	{Name: "history/drop/before", About: "a segment may go and is still there"},
	{Name: "history/drop/index", About: "its key table is gone, the segment is not"},
	{Name: "history/drop/after", About: "both are gone; the folder is not synced"},

	{Name: "backend/commit/before", About: "a transaction of base is filled and not committed"},
	{Name: "backend/commit/after", About: "it is committed, and readers see the state before"},
	{Name: "backend/defragment/copied", About: "the copy of base is complete and has no name"},
	{Name: "backend/defragment/renamed", About: "the copy has the name; the folder is not synced"},
	{Name: "backend/defragment/after", About: "the copy is in force"},

	{Name: "mvcc/checkpoint/before", About: "a checkpoint is due and nothing of it done"},
	{Name: "mvcc/checkpoint/synced", About: "history is durable, base does not know"},
	{Name: "mvcc/checkpoint/after", About: "base knows, the log was not told that it may go"},
	{Name: "mvcc/merge/before", About: "the next transaction of a merge is gathered"},
	{Name: "mvcc/merge/after", About: "it is committed, and the merge may go on"},
	{Name: "mvcc/merge/ended", About: "base covers C, the generations of the young index are not let go"},

	{Name: "snapshot/freeze/after", About: "the state is frozen for a snapshot"},
	{Name: "snapshot/save/written", About: "a saved snapshot is synced and not verified"},
	{Name: "snapshot/save/verified", About: "it is verified and has no name"},
	{Name: "snapshot/save/renamed", About: "it has its name; the folder is not synced"},
	{Name: "snapshot/restore/current", About: "a restored member is complete but for its names"},
	{Name: "snapshot/receive/before", About: "a peer's snapshot is about to be taken"},
	{Name: "snapshot/receive/after", About: "it is verified and synced beside the state in force"},
	{Name: "snapshot/install/before", About: "the received state is opened, CURRENT names the old one"},
	{Name: "snapshot/install/after", About: "CURRENT names the received state, requests still use the old one"},
	{Name: "snapshot/install/reloaded", About: "requests use the received state, the old one is open"},

	{Name: "watch/send/before", About: "events are taken off the queue and not sent"},
}
