package environ

import "errors"

// Errors of Resolve and of what makes files of the same sources. A container that has
// one waits with the reason CreateContainerConfigError.
var (
	// ErrMissing: a secret, a config map or a key is not there. It may come.
	ErrMissing = errors.New("not there")
	// ErrInvalid: the pod asks for what cannot be. A repetition is in vain until the
	// object that it names has changed.
	ErrInvalid = errors.New("cannot be a variable")
)
