// Package history keeps everything that changed, in the order it changed.
//
// One record stands for one entry of the Raft log that changed anything: its
// groups are the requests of that entry, their mutations are logical rows, and
// after each group stands the rolling digest of all mutations so far. Records
// go into a ring in memory first, in exactly the bytes they will have on disk,
// and from there into append-only segment files. Package mvcc writes here, on
// its apply goroutine, and reads values back by their place; mvcc/watch and
// snapshot read records in sequence.
//
// A sealed segment may have a key index beside it: a sorted table of the keys
// that changed in it, from which a restart builds its index in bulk.
//
// What is always true:
//   - a reader sees whole records only, and all that were appended before;
//   - bytes leave the ring only after they were written to the file;
//   - segments are numbered without a gap, each names the state it begins at,
//     and each record names the one before it: a missing record cannot pass
//     for "nothing changed";
//   - no byte of a file is handed out unless its checksum holds.
//
// What a crash leaves: everything up to the last Mark that Sync returned, and
// any part of what came after. The owner keeps that Mark, Open cuts all that
// lies beyond it, and the Raft log replays the rest. Damage below the Mark is
// an error that names file and offset, never skipped.
//
// The bytes are described in docs/format/history.md.
package history
