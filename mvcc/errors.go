package mvcc

import "errors"

// Outcomes of requests: deterministic, and mapped to wire errors by the server.
var (
	// ErrCompacted means that a revision asked for is below the compaction revision.
	ErrCompacted = errors.New("required revision has been compacted")
	// ErrFutureRevision means that a revision asked for does not exist yet.
	ErrFutureRevision = errors.New("required revision is a future revision")
	// ErrKeyNotFound means that a put should keep the value or lease of a key that does not exist.
	ErrKeyNotFound = errors.New("key not found")
	// ErrTooLarge means that a key is longer than KeyBytesMax, that the entry would
	// change more at once than a record of history holds, or that the answer would be
	// more than memory should.
	ErrTooLarge = errors.New("key, change or answer is too large")
)

// Failures: the member stops, or the caller comes too late.
var (
	// ErrClosed means that the store was closed.
	ErrClosed = errors.New("store is closed")
	// ErrFormat means that another version of holdfast wrote the directory.
	ErrFormat = errors.New("written by another version of holdfast")
	// ErrGap means that a record does not continue this store's history.
	ErrGap = errors.New("record does not continue the history")
	// ErrOverdue means that a frozen state has kept a compaction waiting for too long.
	ErrOverdue = errors.New("a compaction cannot wait for this state any longer")
	// ErrDiverged means that a record leads to another state here than where it came from.
	ErrDiverged = errors.New("record has another digest here")

	errMalformedRow = errors.New("malformed row")
	errMixture      = errors.New("base is ahead of its readers")
)
