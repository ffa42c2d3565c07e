package dr

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/snapshot/recovery"
	"github.com/holdfast-db/holdfast/tests/cluster"
	"github.com/holdfast-db/holdfast/tests/network"
)

var operatorRaces = flag.Int("operators.races", 10, "how often two operators recover one cluster at once")

// silentMax is when the old side must have fallen silent, after the epoch.
const silentMax = 10 * time.Second

// Two of three members go on and are cut from the third, which an operator takes
// for the last that is left. Once its epoch is in the archive they fall silent.
func TestTheOldSideFallsSilentWithinTenSecondsOfTheEpoch(t *testing.T) {
	t.Parallel()
	for _, reaches := range []bool{true, false} {
		name := map[bool]string{true: "it reaches the archive", false: "it reaches nothing"}[reaches]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fenceOff(t, reaches)
		})
	}
}

func fenceOff(t *testing.T, reaches bool) {
	t.Helper()
	mesh := newMesh(t)
	folder := t.TempDir()
	stopped(t, 1) // The programs.
	c, err := cluster.NewAt(t.TempDir(), binaries.Binaries, mesh.Places(), "--archive-epoch=strict")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.KillAll)
	mesh.Processes(func(i int) int { return c.Members[i].PID() })
	var links []string
	for i, m := range c.Members { // Each by a name of its own, which can be taken away.
		links = append(links, filepath.Join(c.Dir, fmt.Sprintf("archive-of-%d", i+1)))
		if err := os.Symlink(folder, links[i]); err != nil {
			t.Fatal(err)
		}
		m.Flags = append(m.Flags, "--archive-url=file://"+links[i])
	}
	if err := c.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	url := "file://" + folder
	untilArchiveBegun(t, c, url)
	old := newOldSide(t, mesh, c)
	old.untilAcknowledged(time.Now())

	last := c.Members[2]
	if reaches {
		apart(t, folder, links[:2])
	}
	caughtUp(t, last)
	for i := range 2 {
		if err := cutBoth(mesh, i, 2); err != nil {
			t.Fatal(err)
		}
	}
	last.Signal(syscall.SIGKILL)
	last.Terminate()
	old.untilAcknowledged(time.Now()) // The two go on.
	if !reaches {
		for _, link := range links[:2] {
			if err := os.Remove(link); err != nil {
				t.Fatal(err)
			}
		}
	}
	plan := recoverWithEpoch(t, c, last, url)
	epoch := epochTime(t, folder)
	if err := last.Start(); err != nil {
		t.Fatal(err)
	}
	if err := last.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	report, err := last.Ctl(t.Context(), "recover", "verify", plan)
	if err != nil || !strings.Contains(report, "epoch 2 in the archive: held since") {
		t.Fatalf("%v\n%s", err, report)
	}
	pause(t.Context(), time.Until(epoch.Add(silentMax+2*time.Second)))
	acked, after, refusals := old.end()
	if acked.IsZero() || acked.After(epoch.Add(silentMax)) || refusals == 0 {
		t.Errorf("the old side acknowledged last %v after the epoch, %d writes were refused; at most %v is promised", acked.Sub(epoch), refusals, silentMax)
	}
	t.Logf("the old side acknowledged last %v after the epoch (%d writes after it)", acked.Sub(epoch).Round(time.Millisecond), after(epoch))
}

// apart lets members go on with a copy of the archive, but for the epochs: what
// they ship from now on must not reach further than the log of the last, or
// there is nothing to recover from that.
func apart(t *testing.T, folder string, links []string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, "*", "META.json"))
	if err != nil || len(names) != 1 {
		t.Fatalf("%v of one cluster: %v", names, err)
	}
	cluster := filepath.Dir(names[0])
	epochs, other := filepath.Join(cluster, "epoch"), filepath.Join(t.TempDir(), "other")
	err = errors.Join(
		os.MkdirAll(epochs, 0o700),
		os.CopyFS(filepath.Join(other, filepath.Base(cluster)), os.DirFS(cluster)),
		os.RemoveAll(filepath.Join(other, filepath.Base(cluster), "epoch")),
		os.Symlink(epochs, filepath.Join(other, filepath.Base(cluster), "epoch")))
	for _, link := range links {
		err = errors.Join(err, os.Remove(link), os.Symlink(other, link))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// caughtUp waits until a member has all that was acknowledged before.
func caughtUp(t *testing.T, m *cluster.Member) {
	t.Helper()
	if out, err := m.Ctl(t.Context(), "get", "x"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// newMesh is a network of namespaces, or of proxies where there can be none.
func newMesh(t *testing.T) *network.Mesh {
	t.Helper()
	cfg := network.Config{Members: 3}
	if os.Geteuid() == 0 && os.Getenv("HOLDFAST_TEST_LOOPBACK") == "" {
		names, err := network.NewNames()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := names.Close(); err != nil {
				t.Error(err)
			}
		})
		if err := network.Probe(names); err != nil {
			t.Logf("no namespaces, proxies in their place: %v", err)
		} else {
			cfg.Names = names
		}
	}
	mesh, err := network.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mesh.Close() })
	return mesh
}

func cutBoth(m *network.Mesh, a, b int) error {
	if err := m.Cut(a, b); err != nil {
		return err
	}
	return m.Cut(b, a)
}

// recoverWithEpoch recovers from one member; the others are said to be dead.
func recoverWithEpoch(t *testing.T, c *cluster.Cluster, m *cluster.Member, url string) (plan string) {
	t.Helper()
	var dead []string
	for _, other := range c.Members {
		if other != m {
			dead = append(dead, other.Name)
		}
	}
	plan = filepath.Join(t.TempDir(), "plan.json")
	// They listen: only the cut hides that, where it is one of packets.
	args := []string{"recover", "auto", "--no-probe", "--dead", strings.Join(dead, ","), "--archive", url, "--out", plan, m.DataDir}
	if out, err := c.Offline(t.Context(), args...); err == nil || !strings.Contains(err.Error(), "--accept-loss") {
		t.Fatalf("%v\n%s", err, out)
	}
	p, err := recovery.ReadPlan(vfs.OS(), plan)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := c.Offline(t.Context(), append(args, "--accept-loss", p.ID)...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return plan
}

// epochTime is when the epoch got its name.
func epochTime(t *testing.T, folder string) time.Time {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, "*", "epoch", "*.json"))
	if err != nil || len(found) != 1 {
		t.Fatalf("epochs %q, %v", found, err)
	}
	info, err := os.Stat(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// oldSide is written to by clients that know nothing of a recovery.
type oldSide struct {
	t      *testing.T
	cancel context.CancelFunc
	wait   func()

	mu       sync.Mutex
	acks     []time.Time // When what was acknowledged began: how late its answer is heard is up to the machine.
	refusals int
	heard    chan struct{} // Closed with the next acknowledgement.
}

func newOldSide(t *testing.T, mesh *network.Mesh, c *cluster.Cluster) *oldSide {
	t.Helper()
	o := &oldSide{t: t, heard: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	o.cancel = cancel
	t.Cleanup(cancel)
	var group sync.WaitGroup
	secure, err := c.ClientTLS()
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range c.Members[:2] { // Each of both answers by itself.
		cl, err := client.New(client.Config{Endpoints: []string{m.ClientURL}, TLS: secure, Dial: mesh.Dial, Logger: hclog.NewNullLogger()})
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			defer cl.Close()
			for n := 0; ctx.Err() == nil; n++ {
				o.put(ctx, cl, fmt.Sprintf("old/%d/%06d", i, n))
			}
		})
	}
	o.wait = group.Wait
	return o
}

func (o *oldSide) put(ctx context.Context, cl *client.Client, key string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	began := time.Now()
	_, err := cl.Put(ctx, client.Put{Key: key, Value: []byte(key)})
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.refusals++
		pause(ctx, 10*time.Millisecond)
		return
	}
	o.acks = append(o.acks, began)
	close(o.heard)
	o.heard = make(chan struct{})
}

func (o *oldSide) untilAcknowledged(after time.Time) {
	o.t.Helper()
	until(o.t, func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if n := len(o.acks); n > 0 && o.acks[n-1].After(after) {
			return nil
		}
		return fmt.Errorf("nothing was acknowledged after %v, %d refusals", after, o.refusals)
	})
}

// end stops the writing, and tells of it.
func (o *oldSide) end() (last time.Time, after func(time.Time) int, refusals int) {
	o.cancel()
	o.wait()
	for _, at := range o.acks {
		if at.After(last) {
			last = at
		}
	}
	after = func(t time.Time) (n int) {
		for _, at := range o.acks {
			if at.After(t) {
				n++
			}
		}
		return n
	}
	return last, after, o.refusals
}

// Two operators, each with another survivor and no word of the other, recover
// the same cluster at once.
func TestOfTwoOperatorsOneRecoversTheCluster(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	c := newCluster(t, 3, "--archive-url", "file://"+folder)
	untilArchiveBegun(t, c, "file://"+folder)
	putLast(t, c, &acknowledged{revisions: map[string]int64{}})
	c.KillAll()
	wins := map[string]int{}
	for race := range *operatorRaces {
		wins[raceOperators(t, c, folder, race)]++
	}
	t.Logf("%d races, one operator won each: %v", *operatorRaces, wins)
}

// raceOperators returns whose survivor the cluster was recovered from.
func raceOperators(t *testing.T, c *cluster.Cluster, archive string, race int) (winner string) {
	t.Helper()
	root := filepath.Join(c.Dir, fmt.Sprintf("race-%d", race))
	defer os.RemoveAll(root)
	if err := os.CopyFS(filepath.Join(root, "archive"), os.DirFS(archive)); err != nil {
		t.Fatal(err)
	}
	url := "file://" + filepath.Join(root, "archive")
	plans := map[string]string{}
	for i, m := range c.Members[:2] {
		dir := filepath.Join(root, m.Name)
		if err := os.RemoveAll(filepath.Join(m.DataDir, recovery.SocketName)); err != nil { // A copy of a folder can not have it.
			t.Fatal(err)
		}
		if err := os.CopyFS(dir, os.DirFS(m.DataDir)); err != nil {
			t.Fatal(err)
		}
		plans[m.Name] = filepath.Join(root, m.Name+".json")
		out, err := c.Offline(t.Context(), "recover", "auto", "--no-probe", "--dead", c.Members[1-i].Name+","+c.Members[2].Name,
			"--archive", url, "--out", plans[m.Name], dir)
		if err == nil || !strings.Contains(err.Error(), "--accept-loss") {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	var won, lost []string
	for name, file := range plans {
		p, err := recovery.ReadPlan(vfs.OS(), file)
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			_, err := c.Offline(t.Context(), "recover", "apply", "--accept-loss", p.ID, file)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won = append(won, name)
			case strings.Contains(err.Error(), "another operator has recovered this cluster"):
				lost = append(lost, name)
			default:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if len(won) != 1 || len(lost) != 1 {
		t.Fatalf("race %d: %q won, %q lost", race, won, lost)
	}
	return won[0]
}
