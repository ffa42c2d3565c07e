package backend

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Config says which file to open and how.
type Config struct {
	// FS renames and removes files during Defragment. bbolt opens and maps the
	// file itself, so it must be the file system of the process. Required.
	FS vfs.FS
	// Path is the file, base.db in a generation directory. Required.
	Path string
	// PageSize of a new file in bytes, 4096 or 8192. An existing file keeps its
	// own. Default 4096.
	PageSize int
	// InitialMmapBytes is the address space reserved for the file, and so the
	// largest it may become; at least four times the quota. An existing file gets
	// four times its size if that is more. Default 64 GiB.
	InitialMmapBytes int64
	// Timeout is how long to wait for another process to let go of the file.
	// Default 1 s.
	Timeout time.Duration
	// MinTxID is the oldest transaction that the log can make good: Open refuses
	// a file whose last one is older (ErrTooOld). Default 0, any.
	MinTxID uint64
	// Logger takes what an operator should know. Required.
	Logger hclog.Logger
	// NoSync leaves out every sync. For tests and scratch files only.
	NoSync bool
	// InOrder has bbolt take the first free pages that fit, instead of any: equal
	// transactions make equal files then, so that a run can be repeated. Slow for
	// a file with many free pages. For simulations only.
	InOrder bool

	sortBytes int // Of keys of leases sorted in memory, sortBytesDefault. Tests want less.
}

// Validate reports all that is wrong, after filling in defaults.
func (c *Config) Validate() error {
	if c.PageSize == 0 {
		c.PageSize = pageBytesDefault
	}
	if c.InitialMmapBytes == 0 {
		c.InitialMmapBytes = mapBytesDefault
	}
	if c.Timeout == 0 {
		c.Timeout = time.Second
	}
	if c.sortBytes == 0 {
		c.sortBytes = sortBytesDefault
	}
	var wrong []error
	if c.FS == nil {
		wrong = append(wrong, errors.New("config field FS is required"))
	}
	if c.Path == "" {
		wrong = append(wrong, errors.New("config field Path is required"))
	}
	if c.Logger == nil {
		wrong = append(wrong, errors.New("config field Logger is required"))
	}
	if c.PageSize < pageBytesMin || c.PageSize > pageBytesMax || c.PageSize&(c.PageSize-1) != 0 {
		wrong = append(wrong, fmt.Errorf("config field PageSize %d is not 4096 or 8192", c.PageSize))
	}
	if c.InitialMmapBytes < mapBytesMin {
		wrong = append(wrong, fmt.Errorf("config field InitialMmapBytes %d is below %d", c.InitialMmapBytes, mapBytesMin))
	}
	if c.Timeout < 0 {
		wrong = append(wrong, fmt.Errorf("config field Timeout %s is negative", c.Timeout))
	}
	if len(wrong) > 0 {
		return fmt.Errorf("base configuration: %w", errors.Join(wrong...))
	}
	return nil
}
