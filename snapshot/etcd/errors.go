package etcd

import (
	"errors"
	"fmt"
)

var (
	// ErrDamaged matches every DamageError.
	ErrDamaged = errors.New("file of etcd is damaged")
	// ErrNotEtcd means that a source is something else.
	ErrNotEtcd = errors.New("neither a snapshot nor a data directory of etcd")
	// ErrExists means that the target's name is taken.
	ErrExists = errors.New("it exists already: choose another name, or move it away")
	// ErrRunning means that somebody works in the data directory.
	ErrRunning = errors.New("an etcd runs on it: stop it, or take a snapshot from it with 'etcdctl snapshot save' and import that")
	// ErrVersion means that no export for this version of etcd is known.
	ErrVersion = errors.New("no such version of etcd to export for: use 3.4, 3.5, 3.6 or 3.7")
)

// DamageError says where a file does not hold what etcd writes.
type DamageError struct {
	File   string
	Offset int64 // Of the page, record or byte that cannot be believed.
	Reason string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("%s is damaged at offset %d: %s", e.File, e.Offset, e.Reason)
}

// Is makes every DamageError match ErrDamaged.
func (e *DamageError) Is(target error) bool { return target == ErrDamaged }
