package dr

import (
	"context"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/snapshot/blobstore/blobstoretest"
	"github.com/holdfast-db/holdfast/tests/cluster"
)

var totalTrials = flag.Int("total.trials", 0, "how many clusters are lost whole, for each mode of the archive and number of writers; default 3, 1 with -short")

// lossMax is the oldest acknowledged write that an async archive may miss.
const lossMax = 5 * time.Second

// totalLoss is a kind of cluster that is lost whole, and what came of it.
type totalLoss struct {
	mode    string
	writers int
	s3      bool

	acked, lost int
	loss        []time.Duration // How long before the end the first lost write was acknowledged; 0: none was lost.
	slowest     time.Duration
}

func (l *totalLoss) String() string {
	store := "a folder"
	if l.s3 {
		store = "a bucket"
	}
	return fmt.Sprintf("%s to %s, %d writers", l.mode, store, l.writers)
}

// Kills all members under load, destroys all they had, and restores them from
// the archive.
func TestAllMembersLostComeBackFromTheArchive(t *testing.T) {
	t.Parallel()
	seed := *seedFlag
	if seed == 0 {
		seed = time.Now().UnixNano()
	}
	t.Logf("replay with -seed %d", seed)
	trials := *totalTrials
	if trials == 0 {
		if trials = 3; testing.Short() {
			trials = 1
		}
	}
	for _, l := range []*totalLoss{
		{mode: server.ArchiveAsync, writers: 1}, {mode: server.ArchiveAsync, writers: 16},
		{mode: server.ArchiveSync, writers: 1}, {mode: server.ArchiveSync, writers: 16},
		{mode: server.ArchiveAsync, writers: 16, s3: true}, {mode: server.ArchiveSync, writers: 16, s3: true},
	} {
		if l.s3 && l.mode == server.ArchiveSync && testing.Short() {
			continue
		}
		t.Run(l.String(), func(t *testing.T) {
			rng := rand.New(rand.NewSource(seed))
			for trial := range trials {
				// Each in a test of its own: what it leaves goes before the next.
				t.Run(fmt.Sprint(trial), func(t *testing.T) { l.lose(t, rng) })
			}
			l.report(t)
		})
	}
}

func (l *totalLoss) report(t *testing.T) {
	slices.Sort(l.loss)
	n := len(l.loss)
	if n == 0 {
		return // Left out: no server for the bucket.
	}
	at := func(part int) time.Duration { return l.loss[min(n*part/100, n-1)].Round(time.Millisecond) }
	t.Logf("%s: %d total losses, %d writes acknowledged, %d of them lost; the loss reached back p50 %v, p99 %v, max %v; the slowest restore until all three served took %v",
		l, n, l.acked, l.lost, at(50), at(99), at(100), l.slowest.Round(time.Millisecond))
	if l.loss[n-1] > lossMax {
		t.Errorf("a write that was acknowledged %v before the end is lost, at most %v is promised", l.loss[n-1], lossMax)
	}
	if l.mode == server.ArchiveSync && l.lost > 0 {
		t.Errorf("%d acknowledged writes are lost, and the archive is sync", l.lost)
	}
}

func (l *totalLoss) lose(t *testing.T, rng *rand.Rand) {
	url := "file://" + t.TempDir()
	if l.s3 {
		url = blobstoretest.S3(t)
	}
	c := newCluster(t, 3, "--archive-url", url, "--archive-mode", l.mode)
	untilArchiveBegun(t, c, url)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := load(ctx, t, c, l.writers, leastWrites)
	pause(ctx, time.Duration(1000+rng.Intn(2500))*time.Millisecond)
	killed := time.Now()
	destroyAll(t, c)
	cancel()
	done := wait()
	began := time.Now()
	restoreAll(t, c, url, "latest")
	l.slowest = max(l.slowest, time.Since(began))
	l.judge(t, c, done, killed)
}

// judge compares what was acknowledged with what is there.
func (l *totalLoss) judge(t *testing.T, c *cluster.Cluster, done map[string]acked, killed time.Time) {
	t.Helper()
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	r, err := cl.Get(t.Context(), client.Get{Range: client.Prefix("load/")})
	if err != nil {
		t.Fatal(err)
	}
	there, newest := map[string]bool{}, int64(0)
	for _, kv := range r.Kvs {
		there[string(kv.Key)], newest = true, max(newest, kv.ModRevision)
	}
	kept := &acknowledged{revisions: map[string]int64{}}
	var used int64
	var oldest time.Duration
	for key, a := range done {
		used = max(used, a.revision)
		if there[key] {
			kept.revisions[key] = a.revision
			continue
		}
		l.lost++
		oldest = max(oldest, killed.Sub(a.at))
		if a.revision < newest {
			t.Errorf("%s, revision %d, is lost, and the newer revision %d is there", key, a.revision, newest)
		}
	}
	l.acked += len(done)
	l.loss = append(l.loss, oldest)
	check(t, c, kept)
	// No revision that a client ever saw gets another content.
	after, err := cl.Put(t.Context(), client.Put{Key: "after", Value: []byte("after")})
	if err != nil {
		t.Fatal(err)
	}
	if after.Header.Revision <= used {
		t.Errorf("the first new write has revision %d, and %d was acknowledged before", after.Header.Revision, used)
	}
}

// untilArchiveBegun waits for the first point in time that can be restored.
func untilArchiveBegun(t *testing.T, c *cluster.Cluster, url string) {
	t.Helper()
	until(t, func() error {
		out, err := c.Offline(t.Context(), "backup", "ls", "--archive", url)
		if err == nil && !strings.Contains(out, "can be restored") {
			err = fmt.Errorf("nothing can be restored:\n%s", out)
		}
		return err
	})
}

// until tries something that takes its time again and again.
func until(t *testing.T, ok func() error) {
	t.Helper()
	for end := time.Now().Add(cluster.ReadyMax); ; pause(t.Context(), 100*time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// destroyAll is the disaster: all members end at once, and their disks are gone.
func destroyAll(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	c.KillAll()
	for _, m := range c.Members {
		if err := os.RemoveAll(m.DataDir); err != nil {
			t.Fatal(err)
		}
	}
}

// restoreAll makes all members from the archive and starts them.
func restoreAll(t *testing.T, c *cluster.Cluster, url, to string) {
	t.Helper()
	if out, err := c.Offline(t.Context(), "restore", "--from", url, "--to", to, "--cluster", spec(t, c)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := c.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
}
