package server_test

import (
	"errors"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/server"
)

func TestTheScrubberFindsWhatNobodyReads(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	c := compactedWith(t, 3, func(_ int, cfg *server.Config) { cfg.ScrubInterval = 50 * time.Millisecond })
	victim := c.Members[1]
	_, base, _ := stateFiles(t, victim)
	change(t, base, changeValues)
	if err := ended(t, victim); !errors.Is(err, server.ErrDamaged) {
		t.Fatalf("ended because of %v", err)
	}
	victim.Start()
	victim.WaitReady()
	sameHashes(t, c)
}
