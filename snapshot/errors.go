package snapshot

import (
	"errors"
	"fmt"
)

var (
	// ErrDamaged matches every DamageError.
	ErrDamaged = errors.New("snapshot is damaged")
	// ErrNotSnapshot means that the file is something else.
	ErrNotSnapshot = errors.New("not a holdfast snapshot")
	// ErrNewerFormat means that a later version made the snapshot.
	ErrNewerFormat = errors.New("snapshot has a newer format")
	// ErrNoHash means that the SHA-256 at the end is missing.
	ErrNoHash = errors.New("snapshot has no integrity hash at its end; if it was copied out of a data directory, --skip-hash-check accepts it")
	// ErrHistoryOnly means that a snapshot continues a state that is not here.
	ErrHistoryOnly = errors.New("snapshot continues a state that is not here")
	// ErrOlder means that a received snapshot lies behind the state it would replace.
	ErrOlder = errors.New("snapshot is older than the state here")
	// ErrNotEmpty means that the target of a restore holds something.
	ErrNotEmpty = errors.New("target is not empty")
	// ErrInvalid means that what was asked for cannot be done so.
	ErrInvalid = errors.New("invalid restore")
)

// DamageError says where a snapshot does not hold what was written.
type DamageError struct {
	Offset int64 // Of the first byte that cannot be believed, from the start of the file.
	Reason string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("snapshot is damaged at offset %d: %s", e.Offset, e.Reason)
}

// Is makes every DamageError match ErrDamaged.
func (e *DamageError) Is(target error) bool { return target == ErrDamaged }
