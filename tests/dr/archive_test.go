package dr

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/snapshot/blobstore/blobstoretest"
	"github.com/holdfast-db/holdfast/tests/cluster"
)

var outage = flag.Duration("outage", 0, "how long an archive is down under load; default 20 s, 4 s with -short")

// An async archive that is down costs no write, and then has all of them.
func TestAnArchiveThatIsDownCostsNoAcknowledgedWrite(t *testing.T) {
	t.Parallel()
	t.Run("a folder that is gone", func(t *testing.T) {
		t.Parallel()
		folder := filepath.Join(t.TempDir(), "archive")
		move := func(from, to string) {
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
		endureOutage(t, "file://"+folder, func() { move(folder, folder+"-gone") }, func() { move(folder+"-gone", folder) })
	})
	if testing.Short() { // The folder is enough.
		return
	}
	t.Run("a bucket that refuses", func(t *testing.T) {
		t.Parallel()
		s := blobstoretest.StartS3(t)
		down := func() {
			s.Proxy.Choose(func(*http.Request) blobstoretest.Fault { return blobstoretest.Refused })
		}
		endureOutage(t, s.URL(""), down, func() { s.Proxy.Choose(nil) })
	})
}

func endureOutage(t *testing.T, url string, down, up func()) {
	t.Helper()
	// What a busy machine holds up is no write that the archive has cost: one leader, and
	// writers with patience.
	c := newCluster(t, 3, "--archive-url", url, "--election-timeout=10000")
	untilArchiveBegun(t, c, url)
	stored := &acknowledged{patience: time.Minute, revisions: map[string]int64{}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := write(ctx, t, c, "load", stored)
	phase := func(d time.Duration) (perSecond float64) {
		before := stored.count()
		pause(ctx, d)
		return float64(stored.count()-before) / d.Seconds()
	}
	before := phase(2 * time.Second)
	down()
	during := phase(outageTime())
	up()
	returned := time.Now()
	after := phase(2 * time.Second)
	cancel()
	wait()
	if stored.failures > 0 || during == 0 {
		t.Errorf("%d writes failed, and %.0f were acknowledged in a second of the outage", stored.failures, during)
	}
	last := putLast(t, c, stored)
	untilArchived(t, c, url, last)
	t.Logf("writes a second: %.0f before the outage, %.0f in it, %.0f after it; the archive had caught up %v after it was back",
		before, during, after, time.Since(returned).Round(time.Millisecond))
	nothingMissing(t, c, url)
	destroyAll(t, c)
	restoreAll(t, c, url, "latest")
	check(t, c, stored)
}

func outageTime() time.Duration {
	switch {
	case *outage > 0:
		return *outage
	case testing.Short():
		return 4 * time.Second
	}
	return 20 * time.Second
}

// When the member that archives falls silent another goes on, without a gap, and
// without a word against what the first may still say.
func TestAnotherMemberArchivesWhenTheOwnerIs(t *testing.T) {
	t.Parallel()
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		handOver(t, (*cluster.Member).Kill, func(m *cluster.Member) error { return m.Start() })
	})
	if testing.Short() { // The killed one is enough.
		return
	}
	t.Run("stopped, and goes on as if nothing had been", func(t *testing.T) {
		t.Parallel()
		handOver(t, func(m *cluster.Member) { m.Signal(syscall.SIGSTOP) },
			func(m *cluster.Member) error { m.Signal(syscall.SIGCONT); return nil })
	})
}

func handOver(t *testing.T, silence func(*cluster.Member), wake func(*cluster.Member) error) {
	t.Helper()
	folder := t.TempDir()
	url := "file://" + folder
	c := newCluster(t, 3, "--archive-url", url)
	untilArchiveBegun(t, c, url)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stored := &acknowledged{revisions: map[string]int64{}}
	wait := write(ctx, t, c, "load", stored)
	pause(ctx, 2*time.Second)
	first := owner(t, c, folder)
	silence(first)
	silent := time.Now()
	var second *cluster.Member
	until(t, func() error {
		if second = owner(t, c, folder); second == first {
			return fmt.Errorf("%s owns the archive still", first.Name)
		}
		return nil
	})
	took := time.Since(silent)
	pause(ctx, 2*time.Second)
	if err := wake(first); err != nil {
		t.Fatal(err)
	}
	if err := first.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	pause(ctx, 2*time.Second)
	cancel()
	wait()
	untilArchived(t, c, url, putLast(t, c, stored))
	t.Logf("%s went on %v after %s fell silent; %d writes acknowledged", second.Name, took.Round(100*time.Millisecond), first.Name, stored.count())
	nothingMissing(t, c, url)
	destroyAll(t, c)
	restoreAll(t, c, url, "latest")
	check(t, c, stored)
}

// owner is the member that archives.
func owner(t *testing.T, c *cluster.Cluster, folder string) *cluster.Member {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, "*", "owner.json"))
	if err != nil || len(names) != 1 {
		t.Fatalf("owners: %v, %v", names, err)
	}
	data, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	var lease struct{ Member string }
	if err := json.Unmarshal(data, &lease); err != nil {
		t.Fatal(err)
	}
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	r, err := cl.MemberList(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.Members {
		for _, known := range r.Members {
			if known.Name == m.Name && ident.MemberID(known.ID).String() == lease.Member {
				return m
			}
		}
	}
	t.Fatalf("the archive is owned by %s, of nobody in %v", lease.Member, r.Members)
	return nil
}

func (a *acknowledged) count() int {
	a.Lock()
	defer a.Unlock()
	return len(a.revisions)
}

// putLast writes one more key.
func putLast(t *testing.T, c *cluster.Cluster, stored *acknowledged) (revision int64) {
	t.Helper()
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	r, err := cl.Put(t.Context(), client.Put{Key: "last", Value: []byte("last")})
	if err != nil {
		t.Fatal(err)
	}
	stored.revisions["last"] = r.Header.Revision
	return r.Header.Revision
}

// untilArchived waits until a revision can be restored.
func untilArchived(t *testing.T, c *cluster.Cluster, url string, revision int64) {
	t.Helper()
	until(t, func() error {
		_, err := c.Offline(t.Context(), "restore", "--from", url, "--to", fmt.Sprintf("revision=%d", revision), "--cluster", spec(t, c), "--replace", "--dry-run")
		return err
	})
}

// nothingMissing wants an archive without gaps and contradictions.
func nothingMissing(t *testing.T, c *cluster.Cluster, url string) {
	t.Helper()
	out, err := c.Offline(t.Context(), "backup", "ls", "--archive", url)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, "missing: ") || strings.Contains(out, "CONTRADICTION") || strings.Contains(out, "not of an archive") {
		t.Errorf("the archive is not whole:\n%s", out)
	}
}
