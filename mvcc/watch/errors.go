package watch

import "errors"

var (
	// ErrDuplicateID means that the stream has a watcher of that number.
	ErrDuplicateID = errors.New("watch ID is taken")
	// ErrEmptyRange means that the range of a watcher ends before it begins.
	ErrEmptyRange = errors.New("watch range is empty")
	// ErrClosed means that the stream or the hub was closed.
	ErrClosed = errors.New("watch stream is closed")

	errGap = errors.New("history ends before the head")
)
