package api

import "errors"

// ErrKind is that of a kind that is none of ours.
var ErrKind = errors.New("no such kind")

// ErrEncoding is that of bytes that are no object.
var ErrEncoding = errors.New("not an object")

// ErrSelector is that of a selector that cannot be read.
var ErrSelector = errors.New("not a selector")

// ErrPatch is that of a patch that is none, or does not fit what it patches.
var ErrPatch = errors.New("the patch cannot be applied")

// ErrManifest is that of a file that is no list of objects.
var ErrManifest = errors.New("not a manifest")

// ErrField is that of a path that leads to no field.
var ErrField = errors.New("there is no such field")
