//go:build linux

package resident

import (
	"context"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/pages"
)

const (
	// lookEvery is how often the memory of the process is looked at, and looksMax after
	// how many looks it is given back in any case.
	lookEvery = time.Second
	looksMax  = 60

	// growMaxBytes more than it needed is given back at once. What a process needs
	// while it is busy comes back within a second, and is not grown.
	growMaxBytes = 4 << 20
)

// Keep gives memory back until ctx ends: a second after it is called, when the process has
// grown, and each minute.
func Keep(ctx context.Context, c clock.Clock) error {
	for k := (keeper{looks: looksMax}); ; {
		select {
		case <-c.After(lookEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
		if k.due(pages.Resident()) {
			Release()
		}
	}
}

// keeper decides when.
type keeper struct {
	looks  int   // Since memory was given back.
	needed int64 // Bytes, at the first of these.
}

func (k *keeper) due(now int64) bool {
	if k.looks++; k.looks == 1 {
		k.needed = now
	}
	if k.looks < looksMax && now < k.needed+growMaxBytes {
		return false
	}
	k.looks = 0
	return true
}
