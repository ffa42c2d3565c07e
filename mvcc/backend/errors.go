package backend

import (
	"errors"
	"fmt"
)

var (
	// ErrDamaged matches every DamageError.
	ErrDamaged = errors.New("base file is damaged")
	// ErrNewerFormat means that a later version wrote the file.
	ErrNewerFormat = errors.New("base file has a newer format")
	// ErrTooOld means that the file is older than the log can make good.
	ErrTooOld = errors.New("base file is older than the log can make good")
	// ErrLocked means that another process has the file open.
	ErrLocked = errors.New("base file is in use by another process")
	// ErrExists means that Create found a file.
	ErrExists = errors.New("base file exists already")
	// ErrMissing means that Open found none.
	ErrMissing = errors.New("base file does not exist")
	// ErrFull means that the file would outgrow Config.InitialMmapBytes.
	ErrFull = errors.New("base file has reached its largest size")
	// ErrNoSpace means that the disk is full. Nothing changed; the write may be
	// tried again once there is room.
	ErrNoSpace = errors.New("no space left for the base file")
	// ErrFailed means that an earlier write or sync failed: this file takes no
	// more writes and has to be rebuilt (I-10).
	ErrFailed = errors.New("base file failed earlier and takes no more writes")
	// ErrUnsorted means that changes or rows did not come in rising key order.
	ErrUnsorted = errors.New("rows are not in rising key order")
	// ErrBadRow means that a row handed in is not one: an empty key, or bytes
	// that are not a KeyValue.
	ErrBadRow = errors.New("row is not valid")
	// ErrClosed means that the base was closed.
	ErrClosed = errors.New("base is closed")
)

// DamageError says which file is damaged, where, and how it shows. It matches
// ErrDamaged.
type DamageError struct {
	File   string
	Page   uint64 // 0 when the damage is not at one page.
	Row    int    // The row within the page, -1 when it is the page itself.
	Reason string
}

func (e *DamageError) Error() string {
	switch {
	case e.Page == 0:
		return fmt.Sprintf("base file %s is damaged: %s", e.File, e.Reason)
	case e.Row < 0:
		return fmt.Sprintf("base file %s is damaged at page %d: %s", e.File, e.Page, e.Reason)
	}
	return fmt.Sprintf("base file %s is damaged at page %d, row %d: %s", e.File, e.Page, e.Row, e.Reason)
}

// Is makes every DamageError match ErrDamaged.
func (e *DamageError) Is(target error) bool { return target == ErrDamaged }
