package image

import (
	"errors"
	"fmt"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Errors of images. What Resolve returns wraps runtime.ErrImage.
var (
	ErrName     = fmt.Errorf("%w: no name of an image", runtime.ErrImage)                                 // InvalidImageName.
	ErrAbsent   = fmt.Errorf("%w: it is not on this node, and must not be fetched", runtime.ErrImage)     // ErrImageNeverPull.
	ErrRefused  = fmt.Errorf("%w: the registry refuses", runtime.ErrImage)                                // Login wrong or missing.
	ErrUnknown  = fmt.Errorf("%w: the registry does not have it", runtime.ErrImage)                       // No such repository or tag.
	ErrPlatform = fmt.Errorf("%w: it is not for this kind of machine", runtime.ErrImage)                  // Other system or processor.
	ErrContent  = fmt.Errorf("%w: its content is damaged or not allowed", runtime.ErrImage)               // Hashes, sizes, evil layers.
	ErrInUse    = errors.New("the image is in use by a container")                                        // Of Remove.
	ErrFormat   = errors.New("the folder of images was written by another version of this program")       // Of Open.
	errBuiltin  = fmt.Errorf("%w: it is part of this program, which cannot be removed", runtime.ErrImage) // Of Remove.
)
