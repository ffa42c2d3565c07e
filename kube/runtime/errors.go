package runtime

import "errors"

// Errors of engines; what they return wraps one of them where it fits.
var (
	ErrNotFound    = errors.New("no such container")
	ErrNotRunning  = errors.New("container is not running")
	ErrUnsupported = errors.New("the runtime of this node cannot do this") // Of a spec: another runtime could.
	ErrInvalid     = errors.New("the container cannot be made so")         // Of a spec: a repetition is in vain.
	ErrNoCommand   = errors.New("the command cannot be run")               // Not found, or not executable.
	ErrImage       = errors.New("the image cannot be had")
)
