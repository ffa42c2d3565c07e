package codec

import "errors"

// ErrNestedTooDeep means that a transaction lies in more transactions than any
// honest client would nest.
var ErrNestedTooDeep = errors.New("transactions nested too deep")
