package vfs

import "errors"

// ErrLocked says that a living process holds the lock.
var ErrLocked = errors.New("locked by another process")
