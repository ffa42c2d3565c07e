package backend

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"unsafe"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/holdfast-db/holdfast/internal/assert"
)

// store is one open bbolt file and those who still use it. Defragment replaces
// it; the old one is closed by whoever leaves it last.
type store struct {
	bolt     *bbolt.DB
	path     string
	pageSize int

	users  atomic.Int64  // Views, and the DB while this is its current store.
	closed chan struct{} // Closed once the file is.
	err    error         // What closing said. Read after closed.

	// broken is set when bbolt panicked in a write transaction that could not be
	// rolled back: its locks are taken for ever, and closing would wait for them.
	broken atomic.Bool
}

// openStore opens or creates a file. Any way in which bbolt chokes on it is an
// error that names the file.
func openStore(cfg *Config, path string, mapBytes int64) (s *store, err error) {
	defer catchPanic(path, debug.SetPanicOnFault(true), &err)
	freelist := bbolt.FreelistMapType
	if cfg.InOrder {
		freelist = bbolt.FreelistArrayType
	}
	bolt, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:         cfg.Timeout,
		PageSize:        cfg.PageSize,
		InitialMmapSize: int(mapBytes),
		// The file never outgrows its mapping, because remapping would wait for
		// all readers while they wait for it.
		MaxSize:      int(mapBytes - 2*growthBytesMax),
		FreelistType: freelist,
		NoSync:       cfg.NoSync,
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("open %s: %w", path, ErrLocked)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s = &store{bolt: bolt, path: path, pageSize: bolt.Info().PageSize, closed: make(chan struct{})}
	s.users.Store(1)
	return s, nil
}

// leave gives up one use; the last one closes the file.
func (s *store) leave() {
	if s.users.Add(-1) > 0 {
		return
	}
	if !s.broken.Load() {
		s.err = s.bolt.Close()
	}
	close(s.closed)
}

// isClosed reports whether the last user has left.
func (s *store) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// mapped returns the mapping as far as the file's pages go. The transaction
// holds it in place.
func (s *store) mapped(tx *bbolt.Tx) []byte {
	info := s.bolt.Info()
	start := *(*unsafe.Pointer)(unsafe.Pointer(&info.Data)) // The address is of the mapping, not of the heap.
	return unsafe.Slice((*byte)(start), tx.Size())
}

// setGrowth sets how far ahead of need the file grows, before a transaction.
func (s *store) setGrowth(fileBytes int64) {
	step := min(fileBytes/growthFraction, growthBytesMax)
	s.bolt.AllocSize = int(step) / s.pageSize * s.pageSize
}

// write runs fn in a write transaction and commits it. A panic out of bbolt
// means that it met something no intact file has.
func (s *store) write(fn func(*bbolt.Tx) error) (err error) {
	tx, err := s.bolt.Begin(true)
	if err != nil {
		return fmt.Errorf("begin a transaction in %s: %w", s.path, err)
	}
	ended := false
	defer func() {
		if !ended && !s.rollback(tx) {
			s.broken.Store(true)
		}
	}()
	defer catchPanic(s.path, debug.SetPanicOnFault(true), &err)
	if err = fn(tx); err != nil {
		return err
	}
	err = tx.Commit()
	ended = true // With an error bbolt rolled back.
	if err != nil {
		return commitError(s.path, err)
	}
	return nil
}

// rollback ends a transaction whose end may itself fail.
func (s *store) rollback(tx *bbolt.Tx) (ok bool) {
	defer func() { ok = recover() == nil }()
	_ = tx.Rollback() // Fails only when it ended already.
	return true
}

// commitError tells a full disk, after which the file is as before, from
// everything else, after which it is not to be trusted (I-10).
func commitError(path string, err error) error {
	var onPath *fs.PathError
	switch {
	case errors.Is(err, berrors.ErrMaxSizeReached):
		return fmt.Errorf("commit to %s: %w", path, ErrFull)
	case errors.As(err, &onPath) && onPath.Op != "sync" &&
		(errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)):
		return fmt.Errorf("commit to %s: %w: %w", path, ErrNoSpace, err)
	}
	return fmt.Errorf("commit to %s: %w: %w", path, ErrFailed, err)
}

// catchPanic turns a panic of bbolt, or a fault in its mapping, into an error
// that names the file. Use it deferred, with the old setting of
// debug.SetPanicOnFault, around calls into bbolt.
func catchPanic(path string, faults bool, err *error) {
	debug.SetPanicOnFault(faults)
	if r := recover(); r != nil {
		*err = &DamageError{File: path, Row: -1, Reason: fmt.Sprint(r)}
	}
}

// catchFault does the same for our own reading of pages, where only a fault
// can come from the file: it was cut short, or the disk could not read it.
func catchFault(path string, faults bool, err *error) {
	debug.SetPanicOnFault(faults)
	r := recover()
	if r == nil {
		return
	}
	if _, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	}); !ok {
		assert.Failf("reading %s: %v", path, r) // Not from the file: a mistake of ours.
	}
	*err = &DamageError{File: path, Row: -1, Reason: fmt.Sprintf("mapped page could not be read: %v", r)}
}
