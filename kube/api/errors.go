package api

import "errors"

// ErrKind is that of a kind that is none of ours.
var ErrKind = errors.New("no such kind")

// ErrEncoding is that of bytes that are no object.
var ErrEncoding = errors.New("not an object")
