//go:build linux

package dr

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/tests/cluster"
	"github.com/holdfast-db/holdfast/tests/fusefs"
)

var powerTrials = flag.Int("power.trials", 0, "how many quorums are lost in power cuts, each member survives in turn; default 3, 1 with -short")

// The power of all members is cut under load: no disk has more than was synced
// and a part of the rest. Two of the disks are destroyed. What is in the log of
// the third one is kept, and together they have all that was acknowledged.
func TestAQuorumLostInAPowerCutIsRecovered(t *testing.T) {
	if err := fusefs.Available(); err != nil {
		if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Parallel()
	trials := *powerTrials
	if trials == 0 {
		if trials = 3; testing.Short() {
			trials = 1
		}
	}
	seed := *seedFlag
	if seed == 0 {
		seed = time.Now().UnixNano()
	}
	t.Logf("replay with -seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	var sum quorumCounts
	images := []vfstest.Image{vfstest.Nothing, vfstest.Prefix, vfstest.Random, vfstest.Torn}
	for trial := range trials {
		c := stopped(t, 3)
		disks := mountAll(t, c)
		if err := c.StartAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		loseQuorum(t, rng, c, 16, trial, &sum, func(c *cluster.Cluster) {
			for _, d := range disks {
				d.PowerOff(0)
			}
			c.KillAll()
			for _, d := range disks {
				if err := d.PowerCut(images[rng.Intn(len(images))], rng.Uint64()); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	sum.report(t)
}

// mountAll gives each member a disk that forgets what was not synced.
func mountAll(t *testing.T, c *cluster.Cluster) (disks []*fusefs.FS) {
	t.Helper()
	for i, m := range c.Members {
		mount := filepath.Join(c.Dir, fmt.Sprintf("disk%d", i+1))
		d, err := fusefs.Mount(mount, filepath.Join(c.Dir, fmt.Sprintf("backing%d", i+1)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			m.Kill()
			if err := d.Unmount(); err != nil {
				t.Error(err)
			}
		})
		m.DataDir = filepath.Join(mount, "data")
		disks = append(disks, d)
	}
	return disks
}
