package archive

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/snapshot"
)

var memoryFlag = flag.Int("archive.memory-mib", 256, "how large the base is that is restored in little memory")

// newFullCluster is a cluster whose base holds so many keys; their values do not
// compress.
func newFullCluster(t testing.TB, keys, valueBytes int) *cluster {
	t.Helper()
	value := make([]byte, valueBytes)
	random := rand.NewChaCha8([32]byte{1})
	head := backend.Point{Position: ident.Position{Index: 1}, Revision: ident.Revision(keys + 1)}
	i := 0
	s, err := mvcc.CreateFrom(mvcc.Config{FS: vfs.OS(), Dir: t.TempDir(), Clock: clock.Real(), Logger: hclog.NewNullLogger()}, mvcc.Seed{
		Last: head.Position.Index,
		Meta: backend.Meta{
			Applied: head.Position, Term: 1, Time: 1, Digest: ident.Digest{1}, Revision: head.Revision, Compacted: head, Merged: head,
			Cluster: testIdentity.Cluster, Timeline: testIdentity.Timeline,
		},
		Next: func() (key, kv []byte, err error) {
			if i == keys {
				return nil, nil, nil
			}
			i++
			_, _ = random.Read(value) // It never fails.
			rev := int64(i + 1)
			key = fmt.Appendf(nil, "/registry/pods/%016d", i)
			kv, err = (&mvccpb.KeyValue{Key: key, Value: value, CreateRevision: rev, ModRevision: rev, Version: 1}).MarshalVT()
			return key, kv, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return beginBusy(t, s)
}

// The bound is what a restore is promised to take, whatever the size of a state.
func TestARestoreOfALargeBaseTakesLittleMemory(t *testing.T) {
	quick.LeaveOut(t)
	const valueBytes = 4000
	c := newFullCluster(t, *memoryFlag/quick.Stride()<<20/valueBytes, valueBytes)
	a := c.shipped(t, func() {})
	heap := restoreLatest(t, a)
	t.Logf("base of %d MiB restored, the heap grew by %.1f MiB", *memoryFlag/quick.Stride(), float64(heap)/(1<<20))
	if heap > snapshot.FillBytesMax {
		t.Errorf("that is more than %d MiB", snapshot.FillBytesMax>>20)
	}
}
