package snapshot

import (
	"errors"
	"syscall"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

func TestAReadThatFailsIsAnErrorOfTheStatus(t *testing.T) {
	mem := vfstest.NewMem()
	if err := vfs.ReplaceFile(mem, "a.snapshot", small(t)); err != nil {
		t.Fatal(err)
	}
	for fail := 0; ; fail++ {
		reads, hit := 0, false
		mem.Inject(func(op vfstest.Op) error {
			if op.Kind != vfstest.OpRead {
				return nil
			}
			if reads++; reads-1 != fail {
				return nil
			}
			hit = true
			return syscall.EIO
		})
		_, err := StatusOf(t.Context(), mem, "a.snapshot", StatusOptions{})
		if !hit {
			if err != nil || fail < 2 {
				t.Fatalf("after %d reads that failed: %v", fail, err)
			}
			return
		}
		if !errors.Is(err, syscall.EIO) {
			t.Fatalf("read %d failed, the status says %v", fail, err)
		}
	}
}
