package dr

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/tests/cluster"
)

var recoveryBytes = flag.Int64("recovery.bytes", 16<<20, "how large the state is of which the recovery, and the restore from the archive, are timed")

// recoveryMax is what a recovery of a gigabyte may take until a verified write.
const recoveryMax = 30 * time.Second

// The quorum of a cluster with a large state is lost, and after that all of it.
// Each time one command and a start bring it back in time.
func TestALargeStateIsBackInTime(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	url := "file://" + folder
	c := newCluster(t, 3, "--archive-url", url, "--quota-backend-bytes", fmt.Sprint(4**recoveryBytes+2<<30))
	untilArchiveBegun(t, c, url)
	keys := fillUp(t, c, *recoveryBytes)
	stored := &acknowledged{revisions: map[string]int64{}}
	untilArchived(t, c, url, putLast(t, c, stored))
	c.KillAll()
	for _, m := range c.Members[:2] {
		if err := os.Rename(m.DataDir, m.DataDir+"-destroyed"); err != nil {
			t.Fatal(err)
		}
	}
	s := c.Members[2]
	flags := s.Flags
	s.Flags = flags[2:] // Its new cluster archives nothing: the old one's is restored next.
	began := time.Now()
	recoverAuto(t, c, s, []string{c.Members[0].Name, c.Members[1].Name})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if report, err := s.Ctl(t.Context(), "recover", "verify", filepath.Join(c.Dir, "plan.json")); err != nil {
		t.Fatalf("%v\n%s", err, report)
	}
	recovered := time.Since(began)
	countKeys(t, c, keys, s)

	destroyAll(t, c)
	s.Flags = flags
	began = time.Now()
	restoreAll(t, c, url, "latest")
	restored := time.Since(began)
	countKeys(t, c, keys, c.Members...)
	t.Logf("%d MiB in %d keys: recovered from one survivor in %v until a verified write, restored from the archive to three members in %v until all served",
		*recoveryBytes>>20, keys, recovered.Round(time.Millisecond), restored.Round(time.Millisecond))
	if recovered > recoveryMax && *recoveryBytes <= 1<<30 {
		t.Errorf("the recovery took %v, at most %v is promised", recovered, recoveryMax)
	}
}

// fillUp puts as many bytes, in values of 16 KiB that do not compress.
func fillUp(t *testing.T, c *cluster.Cluster, bytes int64) (keys int64) {
	t.Helper()
	const valueBytes = 16 << 10
	keys = bytes / valueBytes
	var next atomic.Int64
	var group sync.WaitGroup
	for w := range 16 {
		cl, err := c.Client()
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			defer cl.Close()
			value := make([]byte, valueBytes)
			rng := rand.New(rand.NewSource(int64(w)))
			for i := next.Add(1); i <= keys; i = next.Add(1) {
				rng.Read(value)
				if _, err := cl.Put(t.Context(), client.Put{Key: fmt.Sprintf("large/%08d", i), Value: value}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	return keys
}

func countKeys(t *testing.T, c *cluster.Cluster, want int64, members ...*cluster.Member) {
	t.Helper()
	for _, m := range members {
		cl, err := c.Client(m)
		if err != nil {
			t.Fatal(err)
		}
		r, err := cl.Get(t.Context(), client.Get{Range: client.Prefix("large/"), CountOnly: true})
		if err != nil || r.Count != want {
			t.Errorf("%s has %d of %d keys, %v", m.Name, r.GetCount(), want, err)
		}
		cl.Close()
	}
}
