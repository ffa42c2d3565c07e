package history

import (
	"errors"
	"fmt"
)

var (
	// ErrDropped says that compaction has taken what was asked for.
	ErrDropped = errors.New("history was dropped")
	// ErrInvalid says that a record cannot be written as it is.
	ErrInvalid = errors.New("invalid history record")
	// ErrTooLarge says that a record or table does not fit the format.
	ErrTooLarge = errors.New("too large for a history segment")
	// ErrMalformed says that bytes are not what they should be.
	ErrMalformed = errors.New("malformed history bytes")
	// ErrVersion says that a newer program wrote the file.
	ErrVersion = errors.New("history format is newer than this program")
	// ErrNoIndex says that a sealed segment has no key index yet.
	ErrNoIndex = errors.New("history segment has no key index")
	// ErrNotSealed says that a segment still grows.
	ErrNotSealed = errors.New("history segment is not sealed")
	// ErrNotEmpty says that the folder already holds a history.
	ErrNotEmpty = errors.New("history folder is not empty")
	// ErrFailed says that a write or sync failed before: the files may no longer
	// hold what was written, and only a rebuild makes them good.
	ErrFailed = errors.New("history failed before")
	// ErrClosed says that the log was closed.
	ErrClosed = errors.New("history is closed")
)

// DamageError says that a file does not hold what was written to it.
type DamageError struct {
	File   string
	Offset int64
	Reason string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("history file %s is damaged at offset %d: %s", e.File, e.Offset, e.Reason)
}

func damagef(file string, offset int64, format string, args ...any) error {
	return &DamageError{File: file, Offset: offset, Reason: fmt.Sprintf(format, args...)}
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}
