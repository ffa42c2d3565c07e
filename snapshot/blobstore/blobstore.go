// Package blobstore is the seam to object stores: a few verbs on whole, named,
// small objects, with the conditions that make one writer win.
//
// Objects are bytes of at most MaxObject, written by one request each and seen
// whole or not at all. Everything above (archive, recovery) stands on four
// promises that the conformance suite tests for each driver, between processes:
// a write is durable once Put returned; of two writes with a condition at most
// one succeeds; a read sees the newest write that returned; a list has all of
// them, in order.
package blobstore

import (
	"context"
	"errors"
	"time"
)

// MaxObject is the largest object in bytes: one request, held in memory whole.
const MaxObject = 64 << 20

var (
	// ErrNotFound says that no object has the name.
	ErrNotFound = errors.New("no such object")
	// ErrCondition says that the object is there, or is not as it was: what is
	// there now is somebody else's. Where the caller tried before, or a request had
	// to be sent again, an earlier one may have been written, and replaced since:
	// who must know looks for a trace of it in the contents.
	ErrCondition = errors.New("the object was written by somebody else")
	// ErrUnsupported says that the store does not know conditions at all.
	ErrUnsupported = errors.New("the store has no conditional writes")
)

// Tag names one write of an object. Equal tags mean equal bytes, and may be all
// they mean: where tags are hashes, an object that was changed and changed back
// matches. Who must notice that writes bytes that never come again.
type Tag string

// Condition is what must hold for a write; the zero value always does.
type Condition struct {
	Absent bool // No object has the name.
	Match  Tag  // The object is as it was when it had this tag.
}

// Object is an entry of a list.
type Object struct {
	Name     string
	Size     int64
	Modified time.Time // By the store's clock: for people, not for decisions.
}

// Store is one place for objects. Names are paths with slashes: letters, digits,
// and ._-= within the parts, which are never empty, "." or "..". No name is a
// folder of another: a folder of files has room for one of them. Its methods
// may be called by several goroutines.
type Store interface {
	// Put writes an object whole. An error other than ErrCondition says nothing
	// about whether the write will be seen: it may land later.
	Put(ctx context.Context, name string, data []byte, c Condition) (Tag, error)

	// Get returns an object and the tag of the write that it read, or ErrNotFound.
	Get(ctx context.Context, name string) ([]byte, Tag, error)

	// GetRange returns length bytes from offset on, fewer where the object ends.
	GetRange(ctx context.Context, name string, offset, length int64) ([]byte, error)

	// List calls fn for each object whose name begins with prefix and comes after
	// the name `after`, by rising name (of bytes), until fn returns an error.
	List(ctx context.Context, prefix, after string, fn func(Object) error) error

	// Delete removes an object; that none has the name is no error.
	Delete(ctx context.Context, name string) error

	// String is the URL for messages, without secrets.
	String() string

	Close() error
}
