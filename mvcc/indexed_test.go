package mvcc

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

func TestWhoWaitsForTheIndexIsToldOfAFullDisk(t *testing.T) {
	cfg := diskConfig(t)
	mem := vfstest.NewMem()
	var full atomic.Bool
	mem.Inject(func(op vfstest.Op) error {
		if full.Load() && op.Kind == vfstest.OpCreate && strings.Contains(op.Name, history.IndexName(1)[16:]) {
			return syscall.ENOSPC
		}
		return nil
	})
	cfg.FS, cfg.BaseFS, cfg.BaseDir, cfg.Dir, cfg.Manual = mem, cfg.FS, cfg.Dir, "/gen", false
	s := mustCreate(t, cfg)
	defer s.Close()
	full.Store(true)
	_ = fillKeys(t, s, 1, 0, 2000, make([]byte, 100))
	if err := s.WaitIndexed(t.Context()); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("waited for the index on a full disk: %v", err)
	}
}
