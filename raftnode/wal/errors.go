package wal

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound: the folder holds no log. Either none was created or Create
	// was cut off before its last step, which leaves nothing behind.
	ErrNotFound = errors.New("no raft log in this folder")
	// ErrExists: Create found a log.
	ErrExists = errors.New("folder already holds a raft log")
	// ErrForeign: Create found a file that is not of a raft log.
	ErrForeign = errors.New("folder for the raft log holds something else, choose an empty one")
	// ErrNewerFormat: the file was written by a later version of holdfast.
	ErrNewerFormat = errors.New("raft log has a newer format than this program reads")
	// ErrCompacted: the entry was dropped by Compact or Reset.
	ErrCompacted = errors.New("log entry is compacted")
	// ErrUnavailable: the entry is above the last synced one.
	ErrUnavailable = errors.New("log entry is not there yet")
	// ErrOrder: entries with a gap, out of order, or superseding what is
	// committed; or a hard state that goes back.
	ErrOrder = errors.New("raft log would lose its order")
	// ErrTooLarge: a record that no segment can hold.
	ErrTooLarge = errors.New("record is larger than a log segment allows")
	// ErrNoSegment: the next segment could not be made, as on a full disk. The
	// log is unharmed; the same call may be made again once the cause is gone.
	ErrNoSegment = errors.New("no new log segment")
	// ErrFailed: a write or sync failed earlier. Final for this Log (I-10).
	ErrFailed = errors.New("raft log failed and takes no more writes")
	// ErrReadOnly: the log was opened to be read.
	ErrReadOnly = errors.New("raft log is open for reading alone")
	// ErrClosed: the Log was closed.
	ErrClosed = errors.New("raft log is closed")
)

// mendDamage is what an operator can do about damage that no crash explains.
const mendDamage = "look at it with `holdfastctl inspect wal`, then either remove this member and add it again, so that its peers fill it, or restore a snapshot"

// DamageError says that bytes which were once synced can no longer be
// believed. The log is left as it is.
type DamageError struct {
	File   string
	Offset int64
	Reason string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("raft log damaged: %s at offset %d: %s; %s", e.File, e.Offset, e.Reason, mendDamage)
}
