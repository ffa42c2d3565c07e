package mvcc

import (
	"errors"
	"fmt"
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

// Small values make a large index, large ones a small: a segment shall not end
// for its own size where memory is what is bounded, or a restored member would
// have many files.
func TestASegmentOfAStoreThatIsFilledEndsWithItsIndexOrItsSize(t *testing.T) {
	for valueBytes, byIndex := range map[int]bool{0: true, 8000: false} {
		cfg := diskConfig(t)
		cfg.SegmentBytes, cfg.RingBytes, cfg.Filling = 32<<20, 4<<20, true
		s := mustCreate(t, cfg)
		value := make([]byte, valueBytes)
		var index, size int64
		for i := 0; len(s.state.Load().layout.older) == 0; {
			st := s.state.Load()
			index, size = st.layout.active.bytes(), st.mark.Offset
			e := s.Begin(st.Position.Index+1, 1, 0)
			for range 200 {
				i++
				tx := e.Tx()
				if _, err := tx.Put(PutArgs{Key: fmt.Append(nil, i), Value: value}); err != nil {
					t.Fatal(err)
				}
				tx.Commit()
			}
			if err := e.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		if full := index > fillIndexBytes*9/10; full != byIndex || index > fillIndexBytes || size > cfg.SegmentBytes {
			t.Errorf("values of %d bytes: a segment of %d bytes has an index of %d", valueBytes, size, index)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
