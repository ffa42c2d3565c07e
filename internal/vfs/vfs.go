// Package vfs is the only place that touches files, so that tests can lose,
// tear and fail writes.
//
// Every error is a value. A write may be short only together with an error.
// What was not covered by SyncData (contents) and SyncDir (names) may be lost
// in a crash, in any order and in part.
package vfs

import (
	"io"
	iofs "io/fs"
	"time"
)

// FS is a file system. Names are paths with slashes, as package filepath
// makes them on this system.
type FS interface {
	// Create makes a new file for reading and writing, mode 0600. It fails with
	// an error matching fs.ErrExist when the name is taken.
	Create(name string) (File, error)
	// Open opens an existing file for reading.
	Open(name string) (File, error)
	// OpenWrite opens an existing file for reading and writing.
	OpenWrite(name string) (File, error)
	// MkdirAll makes a folder and its parents, mode 0700.
	MkdirAll(name string) error
	// Rename replaces newName.
	Rename(oldName, newName string) error
	// Link gives a file a second name. It fails with an error matching fs.ErrExist
	// when the name is taken: of several who link to one name, one succeeds.
	Link(oldName, newName string) error
	// Remove removes one file or empty folder.
	Remove(name string) error
	// RemoveAll removes a tree. Only for scratch the caller made itself.
	RemoveAll(name string) error
	// List returns the sorted base names in a folder.
	List(dir string) ([]string, error)
	// Stat tells size and kind.
	Stat(name string) (Info, error)
	// SyncDir makes the names in a folder durable.
	SyncDir(dir string) error
	// Lock takes an exclusive lock on a file, created when missing, and fails at
	// once with ErrLocked when somebody holds it.
	Lock(name string) (io.Closer, error)
	// Free tells how many bytes the file system that holds dir can still take.
	Free(dir string) (int64, error)
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	Name() string
	Size() (int64, error)
	// Allocate extends the file to size with zeroes that are really on disk, so
	// that a later write within it cannot fail for lack of space and needs no
	// metadata sync. It never shrinks.
	Allocate(size int64) error
	Truncate(size int64) error
	// SyncData makes contents and size durable.
	SyncData() error
	Close() error
}

// Info is what Stat tells.
type Info struct {
	Size     int64
	IsDir    bool
	IsSocket bool
	Mode     iofs.FileMode // Permission bits.
	Modified time.Time     // For people. Zero where nobody knows.
}
