package archive

import (
	"errors"
	"fmt"
)

var (
	// ErrDamaged matches every DamageError.
	ErrDamaged = errors.New("archive is damaged")
	// ErrNewerFormat means that a later version wrote an object.
	ErrNewerFormat = errors.New("object has a newer format")
	// ErrNoKey means that an object is encrypted and none of the identities opens it.
	ErrNoKey = errors.New("no identity opens the object")
	// ErrForeign means that an object belongs to another cluster or timeline.
	ErrForeign = errors.New("object is of another archive")
	// ErrGap means that records between two positions are not there.
	ErrGap = errors.New("archive has a gap")
	// ErrDisagree means that the archive holds another past than this member.
	ErrDisagree = errors.New("archive disagrees with this member")
	// ErrOutside means that a point in time is not in the archive.
	ErrOutside = errors.New("target is outside the archive's window")
	// ErrTooLarge means that what is to be archived does not fit one object.
	ErrTooLarge = errors.New("too large for an object of the archive")
	// ErrInvalid means that what was asked for cannot be done so.
	ErrInvalid = errors.New("invalid request to the archive")
	// ErrStore means that a URL does not lead to a store.
	ErrStore = errors.New("the store can not be opened")
	// ErrNoArchive means that there is nothing under the URL.
	ErrNoArchive = errors.New("no archive there")
)

// DamageError says where an object does not hold what was written.
type DamageError struct {
	Object string
	Offset int64 // Of the first byte that cannot be believed, in the object as stored.
	Reason string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("object %s is damaged at offset %d: %s", e.Object, e.Offset, e.Reason)
}

// Is makes every DamageError match ErrDamaged.
func (e *DamageError) Is(target error) bool { return target == ErrDamaged }

func damagef(object string, offset int64, format string, args ...any) error {
	return &DamageError{Object: object, Offset: offset, Reason: fmt.Sprintf(format, args...)}
}
