package volume

import (
	"errors"

	"github.com/holdfast-db/holdfast/kube/environ"
)

// Errors of volumes, beside runtime.ErrUnsupported for what needs root.
var (
	// ErrMissing: a secret, a config map, a key, or a file of the node is not there. It
	// may come. The pod waits with the reason FailedMount.
	ErrMissing = environ.ErrMissing
	// ErrInvalid: a volume cannot be made as the pod says.
	ErrInvalid = errors.New("cannot be mounted")
	// ErrEscape: a path leads out of its volume.
	ErrEscape = errors.New("leads out of its volume")
)
