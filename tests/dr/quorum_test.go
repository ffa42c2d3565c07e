package dr

import (
	"context"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot/recovery"
	"github.com/holdfast-db/holdfast/tests/cluster"
)

var quorumTrials = flag.Int("quorum.trials", 3, "how many quorums are lost, for each number of writers; each member survives in turn")

// leastWrites before a disaster is worth the name.
const leastWrites = 20

// acked is a write that was acknowledged.
type acked struct {
	revision int64
	at       time.Time
}

// load puts unique keys from some writers until ctx ends, and returns once at least
// so many are acknowledged. Nothing is retried.
func load(ctx context.Context, t *testing.T, c *cluster.Cluster, writers, least int) (wait func() map[string]acked) {
	t.Helper()
	var group sync.WaitGroup
	var mu sync.Mutex
	done := map[string]acked{}
	for w := range writers {
		cl, err := c.Client()
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			defer cl.Close()
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("load/%02d/%06d", w, i)
				r, err := cl.Put(ctx, client.Put{Key: key, Value: []byte(key)})
				if err == nil {
					mu.Lock()
					done[key] = acked{r.Header.Revision, time.Now()}
					mu.Unlock()
				}
			}
		})
	}
	until(t, func() error {
		mu.Lock()
		defer mu.Unlock()
		if n := len(done); n < least {
			return fmt.Errorf("%d writes were acknowledged, %d are wanted", n, least)
		}
		return nil
	})
	return func() map[string]acked { group.Wait(); return done }
}

// quorumCounts are the sums of many trials.
type quorumCounts struct {
	trials, acked, inLog, lost, uncertain int
	slowest                               time.Duration
}

// Kills all members under load, destroys two, and recovers from the third. Each
// acknowledged write that lies in its log must be there; each that does not must
// fall into the reported window.
func TestALostQuorumIsRecoveredFromEachSingleSurvivor(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = time.Now().UnixNano()
	}
	t.Logf("replay with -seed %d", seed)
	for _, writers := range []int{1, 64} {
		t.Run(fmt.Sprintf("%d writers", writers), func(t *testing.T) {
			rng := rand.New(rand.NewSource(seed))
			var sum quorumCounts
			for trial := range *quorumTrials {
				loseQuorum(t, rng, newCluster(t, 3), writers, trial, &sum, (*cluster.Cluster).KillAll)
			}
			sum.report(t)
		})
	}
}

func (sum *quorumCounts) report(t *testing.T) {
	t.Helper()
	t.Logf("%d trials: %d writes acknowledged, %d of them in the survivor's log and none of these missing; %d in no log that is left, all in the reported window; %d uncertain entries were kept; the slowest recovery until a verified write took %v",
		sum.trials, sum.acked, sum.inLog, sum.lost, sum.uncertain, sum.slowest.Round(time.Millisecond))
}

func loseQuorum(t *testing.T, rng *rand.Rand, c *cluster.Cluster, writers, trial int, sum *quorumCounts, end func(*cluster.Cluster)) {
	t.Helper()
	survivor := trial % 3
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := load(ctx, t, c, writers, leastWrites)
	pause(ctx, time.Duration(300+rng.Intn(1000))*time.Millisecond)
	if trial%2 == 1 { // It misses what the others acknowledge meanwhile, unless it leads.
		c.Members[survivor].Signal(syscall.SIGSTOP)
		pause(ctx, time.Duration(rng.Intn(300))*time.Millisecond)
	}
	end(c)
	cancel()
	done := wait()
	var dead []string
	for i, m := range c.Members {
		if i == survivor {
			continue
		}
		dead = append(dead, m.Name)
		if err := os.Rename(m.DataDir, m.DataDir+"-destroyed"); err != nil {
			t.Fatal(err)
		}
	}
	s := c.Members[survivor]
	inLog := keysInLog(t, s)
	began := time.Now()
	plan := recoverAuto(t, c, s, dead)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if report, err := s.Ctl(t.Context(), "recover", "verify", filepath.Join(c.Dir, "plan.json")); err != nil {
		t.Fatalf("%v\n%s", err, report)
	}
	sum.slowest = max(sum.slowest, time.Since(began))
	sum.trials++
	sum.uncertain += len(plan.Uncertain)
	checkSurvivor(t, c, s, done, inLog, plan, sum)
	salvage(t, c, s, done)
	s.Kill()
}

// salvage finds the destroyed directories again: with both of them, all that was
// ever acknowledged comes back.
func salvage(t *testing.T, c *cluster.Cluster, s *cluster.Member, done map[string]acked) {
	t.Helper()
	for _, m := range c.Members {
		if m == s {
			continue
		}
		out, err := s.Ctl(t.Context(), "recover", "salvage", "--apply", filepath.Join(c.Dir, "plan.json"), m.DataDir+"-destroyed")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		defer func() {
			if t.Failed() {
				t.Logf("salvaged from %s:\n%s", m.Name, out)
			}
		}()
	}
	cl, err := c.Client(s)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	r, err := cl.Get(t.Context(), client.Get{Range: client.Prefix("load/")})
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, kv := range r.Kvs {
		there[string(kv.Key)] = string(kv.Key) == string(kv.Value)
	}
	for key := range done {
		if !there[key] {
			t.Errorf("%s was acknowledged, and both other directories do not have it", key)
		}
	}
}

// keysInLog reads which keys the log of a stopped member puts.
func keysInLog(t *testing.T, m *cluster.Member) map[string]bool {
	t.Helper()
	log, found, err := wal.OpenRead(wal.Config{FS: vfs.OS(), Dir: filepath.Join(m.DataDir, "wal"), Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	keys := map[string]bool{}
	for at := found.Start.Index + 1; at <= found.Last.Index; {
		entries, err := log.Entries(at, found.Last.Index+1, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			at++
			batch, err := entry.DecodeBatch(e.GetData(), nil)
			if err != nil {
				continue // Empty, or a change of members.
			}
			for _, r := range batch.Requests {
				cmd := &holdfastpb.Command{}
				if err := cmd.UnmarshalVT(r.Data); err != nil {
					t.Fatal(err)
				}
				if put := cmd.GetPut(); put != nil {
					keys[string(put.Key)] = true
				}
			}
		}
	}
	return keys
}

// recoverAuto runs the one command: first without accepting a loss, and then
// with the ID that it has named.
func recoverAuto(t *testing.T, c *cluster.Cluster, s *cluster.Member, dead []string) *recovery.Plan {
	t.Helper()
	file := filepath.Join(c.Dir, "plan.json")
	args := []string{"recover", "auto", "--dead", strings.Join(dead, ","), "--out", file, s.DataDir}
	out, err := c.Offline(t.Context(), args...)
	if err == nil || !strings.Contains(err.Error(), "--accept-loss") {
		t.Fatalf("one of three survives, and nobody was asked: %v\n%s", err, out)
	}
	first, err := recovery.ReadPlan(vfs.OS(), file)
	if err != nil {
		t.Fatal(err)
	}
	if out, err = c.Offline(t.Context(), append(args, "--accept-loss", first.ID)...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	plan, err := recovery.ReadPlan(vfs.OS(), file)
	if err != nil || plan.ID != first.ID {
		t.Fatalf("plan %s became %v, %v", first.ID, plan, err)
	}
	return plan
}

func checkSurvivor(t *testing.T, c *cluster.Cluster, s *cluster.Member, done map[string]acked, inLog map[string]bool, plan *recovery.Plan, sum *quorumCounts) {
	t.Helper()
	cl, err := c.Client(s)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	r, err := cl.Get(t.Context(), client.Get{Range: client.Prefix("load/")})
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]int64{}
	for _, kv := range r.Kvs {
		if string(kv.Key) != string(kv.Value) {
			t.Errorf("%s holds %q", kv.Key, kv.Value)
		}
		there[string(kv.Key)] = kv.ModRevision
	}
	sum.acked += len(done)
	for key, a := range done {
		switch revision, kept := there[key]; {
		case kept && revision != a.revision:
			t.Errorf("%s is at revision %d, was acknowledged at %d", key, revision, a.revision)
		case inLog[key] && !kept:
			t.Errorf("%s was acknowledged, lies in the log of %s, and is missing", key, s.Name)
		case inLog[key]:
			sum.inLog++
		case kept:
			t.Errorf("%s is there and does not lie in the log", key)
		default:
			sum.lost++
			if !plan.Loss.Possible || a.at.Before(plan.Loss.From) || a.at.After(plan.Loss.Until) {
				t.Errorf("%s was acknowledged at %v and is lost; reported were %v to %v", key, a.at, plan.Loss.From, plan.Loss.Until)
			}
		}
	}
	if len(r.Kvs) != len(inLog) {
		t.Errorf("%d keys are there, the log held %d", len(r.Kvs), len(inLog))
	}
}

func TestForceNewClusterKeepsAllThatTheLogHolds(t *testing.T) {
	c := newCluster(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := load(ctx, t, c, 16, leastWrites)
	pause(ctx, time.Second)
	c.KillAll()
	cancel()
	done := wait()
	s := c.Members[1]
	inLog := keysInLog(t, s)
	s.Flags = []string{"--force-new-cluster"}
	for range 2 { // The second time there is nothing left to do.
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		if err := s.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		cl, err := c.Client(s)
		if err != nil {
			t.Fatal(err)
		}
		r, err := cl.Get(t.Context(), client.Get{Range: client.Prefix("load/")})
		if err != nil || len(r.Kvs) != len(inLog) {
			t.Errorf("%d keys of %d, %v", len(r.GetKvs()), len(inLog), err)
		}
		members, err := cl.MemberList(t.Context(), true)
		if err != nil || len(members.Members) != 1 {
			t.Errorf("members: %v, %v", members, err)
		}
		cl.Close()
		s.Kill()
	}
	aside, err := filepath.Glob(s.DataDir + ".old*")
	if err != nil || len(aside) != 1 {
		t.Errorf("kept are %v, %v", aside, err)
	}
	t.Logf("%d writes acknowledged, %d keys in the log, all there", len(done), len(inLog))
}
