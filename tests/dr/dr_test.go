// Package dr does harm to clusters of real processes and counts what is lost.
package dr

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/tests/cluster"
)

var (
	duration = flag.Duration("harm", 0, "how long to kill minorities under load; default 60 s, 15 s with -short")
	seedFlag = flag.Int64("seed", 0, "seed of the harm; 0 draws one")
)

const (
	writersMax = 16
	killsMin   = 3 // However long a busy machine needs for them.
)

var binaries struct {
	sync.Once
	cluster.Binaries
	err error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if binaries.Holdfast != "" {
		os.RemoveAll(filepath.Dir(binaries.Holdfast)) // What is left is in a folder for such things.
	}
	os.Exit(code)
}

func newCluster(t *testing.T, n int, flags ...string) *cluster.Cluster {
	t.Helper()
	c := stopped(t, n, flags...)
	if err := c.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// stopped is a cluster none of whose members has been started.
func stopped(t *testing.T, n int, flags ...string) *cluster.Cluster {
	t.Helper()
	binaries.Do(func() {
		dir, err := os.MkdirTemp("", "holdfast-dr")
		if err != nil {
			binaries.err = err
			return
		}
		binaries.Binaries, binaries.err = cluster.Build(t.Context(), filepath.Join("..", ".."), dir)
	})
	if binaries.err != nil {
		t.Fatal(binaries.err)
	}
	c, err := cluster.New(t.TempDir(), binaries.Binaries, n, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.KillAll)
	return c
}

// acknowledged is what writers were told is stored: revisions by key.
type acknowledged struct {
	patience time.Duration // For one write. Default 3 s.
	sync.Mutex
	revisions map[string]int64
	failures  int
}

// write puts unique keys from many writers until ctx ends. Errors are counted:
// their writes may or may not be there.
func write(ctx context.Context, t *testing.T, c *cluster.Cluster, round string, acked *acknowledged) (wait func()) {
	t.Helper()
	patience := cmp.Or(acked.patience, 3*time.Second)
	var writers sync.WaitGroup
	for w := range writersMax {
		cl, err := c.Client()
		if err != nil {
			t.Fatal(err)
		}
		writers.Go(func() {
			defer cl.Close()
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("%s/%02d/%06d", round, w, i)
				put, cancel := context.WithTimeout(context.Background(), patience)
				r, err := cl.Put(put, client.Put{Key: key, Value: []byte(key)})
				cancel()
				acked.Lock()
				if err == nil {
					acked.revisions[key] = r.Header.Revision
				} else {
					acked.failures++
				}
				acked.Unlock()
			}
		})
	}
	return writers.Wait
}

// check reads everything back, from each member, and compares hashes.
func check(t *testing.T, c *cluster.Cluster, acked *acknowledged) {
	t.Helper()
	hashes := map[string]bool{}
	var at int64
	for _, m := range c.Members {
		cl, err := c.Client(m)
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		found := map[string]int64{}
		r, err := cl.Get(t.Context(), client.Get{Range: client.From("\x00")})
		if err != nil {
			t.Fatalf("read all of %s: %v", m.Name, err)
		}
		for _, kv := range r.Kvs {
			found[string(kv.Key)] = kv.ModRevision
			if string(kv.Key) != string(kv.Value) {
				t.Errorf("%s of %s holds %q", kv.Key, m.Name, kv.Value)
			}
		}
		lost := 0
		for key, revision := range acked.revisions {
			if found[key] != revision {
				if lost++; lost < 10 {
					t.Errorf("%s has %s at revision %d, acknowledged was %d", m.Name, key, found[key], revision)
				}
			}
		}
		if lost > 0 {
			t.Fatalf("%s lost %d of %d acknowledged writes", m.Name, lost, len(acked.revisions))
		}
		if at == 0 {
			at = r.Header.Revision
		}
		h, err := cl.HashKV(t.Context(), at)
		if err != nil {
			t.Fatalf("hash of %s: %v", m.Name, err)
		}
		hashes[fmt.Sprintf("%08x at %d", h.Hash, h.HashRevision)] = true
	}
	if len(hashes) != 1 {
		t.Errorf("members have different hashes: %v", hashes)
	}
	t.Logf("%d acknowledged writes, all there on all members; %d were answered with an error", len(acked.revisions), acked.failures)
}

func TestNoAcknowledgedWriteIsLostWhileMinoritiesAreKilled(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = time.Now().UnixNano()
	}
	t.Logf("replay with -seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	long := *duration
	if long == 0 {
		if long = time.Minute; testing.Short() {
			long = 15 * time.Second
		}
	}
	c := newCluster(t, 3)
	acked := &acknowledged{revisions: map[string]int64{}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := write(ctx, t, c, "load", acked)
	kills := 0
	for end := time.Now().Add(long); kills < killsMin || time.Now().Before(end); {
		pause(ctx, time.Duration(500+rng.Intn(2000))*time.Millisecond)
		m := c.Members[rng.Intn(len(c.Members))]
		m.Kill()
		kills++
		pause(ctx, time.Duration(rng.Intn(2000))*time.Millisecond)
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
		if err := m.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	wait()
	t.Logf("%d members were killed in %v", kills, long)
	if len(acked.revisions) < 100 {
		t.Fatalf("too little happened: %d kills, %d writes", kills, len(acked.revisions))
	}
	check(t, c, acked)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func TestAClusterThatWasKilledWholeComesBackWithEverything(t *testing.T) {
	c := newCluster(t, 3)
	acked := &acknowledged{revisions: map[string]int64{}}
	for round := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		wait := write(ctx, t, c, fmt.Sprintf("round%d", round), acked)
		pause(ctx, 1500*time.Millisecond)
		c.KillAll()
		cancel()
		wait()
		if err := c.StartAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(t, c, acked)
	}
}

func TestALostQuorumIsRebuiltFromASnapshot(t *testing.T) {
	c := newCluster(t, 3)
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	acked := &acknowledged{revisions: map[string]int64{}}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	write(ctx, t, c, "before", acked)()
	lease, err := cl.Grant(t.Context(), 3600, 77)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Put(t.Context(), client.Put{Key: "leased", Value: []byte("leased"), Lease: lease.ID}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(c.Dir, "backup.snap")
	ctl(t, c.Members[0].Ctl, "snapshot", "save", file)
	want, err := cl.Get(t.Context(), client.Get{Range: client.From("\x00")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Put(t.Context(), client.Put{Key: "after", Value: []byte("after")}); err != nil {
		t.Fatal(err)
	}
	c.KillAll()
	for _, m := range c.Members[:2] {
		if err := os.Rename(m.DataDir, m.DataDir+"-destroyed"); err != nil {
			t.Fatal(err)
		}
	}
	restore(t, c, file)
	if err := c.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := cl.Get(t.Context(), client.Get{Range: client.From("\x00")})
	if err != nil {
		t.Fatal(err)
	}
	sameAnswer(t, want, got)
	if got.Header.ClusterId == want.Header.ClusterId {
		t.Error("the restored cluster has the identity of the old one: members of the old could join it")
	}
	if got.Header.RaftTerm <= want.Header.RaftTerm {
		t.Errorf("the term went from %d to %d: it must go on", want.Header.RaftTerm, got.Header.RaftTerm)
	}
	ttl, err := cl.TimeToLive(t.Context(), lease.ID, true)
	if err != nil || ttl.GrantedTTL != 3600 || len(ttl.Keys) != 1 {
		t.Errorf("the lease after the restore: %v, %v", ttl, err)
	}
	check(t, c, acked)
	aside, err := filepath.Glob(c.Members[2].DataDir + "*")
	if err != nil || len(aside) < 2 {
		t.Errorf("the old directory of %s was not kept: %v, %v", c.Members[2].Name, aside, err)
	}
}

// restore rebuilds the data directories of all members from a snapshot.
func restore(t *testing.T, c *cluster.Cluster, file string) {
	t.Helper()
	ctl(t, c.Offline, "snapshot", "restore", file, "--cluster", spec(t, c), "--replace")
}

// spec writes down all members, as restores want them.
func spec(t *testing.T, c *cluster.Cluster) (file string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("members:\n")
	for _, m := range c.Members {
		fmt.Fprintf(&b, "- name: %s\n  peer-urls: [%s]\n  client-urls: [%s]\n  data-dir: %s\n", m.Name, m.PeerURL, m.ClientURL, m.DataDir)
	}
	file = filepath.Join(c.Dir, "cluster.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func ctl(t *testing.T, run func(context.Context, ...string) (string, error), args ...string) {
	t.Helper()
	out, err := run(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out)
}

func sameAnswer(t *testing.T, want, got *pb.RangeResponse) {
	t.Helper()
	if len(got.Kvs) != len(want.Kvs) || got.Header.Revision != want.Header.Revision {
		t.Fatalf("%d keys at revision %d, want %d at %d", len(got.Kvs), got.Header.Revision, len(want.Kvs), want.Header.Revision)
	}
	for i := range want.Kvs {
		if want.Kvs[i].String() != got.Kvs[i].String() {
			t.Fatalf("%v became %v", want.Kvs[i], got.Kvs[i])
		}
	}
}
