// Package failpoints kills members of real processes at every named place and
// shows that nothing acknowledged is lost.
//
// The programs are built with the tag failpoints. A place that the test does
// not know how to reach fails it, as does a place that was not passed.
package failpoints

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/tests/cluster"
)

const (
	variable  = "HOLDFAST_FAILPOINTS"
	placeMax  = 90 * time.Second        // To reach one place, on a machine that does much else.
	roundsMax = 40                      // Of load, to reach one place.
	poll      = 2 * time.Millisecond    // Between looks at a process.
	answerMax = 400 * time.Millisecond  // After a member died, for requests under way.
	heldMax   = 1500 * time.Millisecond // A leader keeps the state of the last snapshot, and the log since, for so long.
	lagsMax   = 5                       // Times that a follower is made to lag, until it is sent a snapshot.
	tookMax   = 10 * time.Second        // For it to take the snapshot.
)

// How a place is reached. What is not named here is reached by load on a
// single member.
var (
	atFirstStart = []string{"vfs/replace/renamed", "datadir/identity/before", "datadir/current/before", "datadir/current/after"}
	byAFollower  = []string{
		"snapshot/receive/before", "snapshot/receive/after", "snapshot/install/before", "snapshot/install/after",
		"snapshot/install/reloaded", "raftnode/install/after", "wal/reset/before", "transport/send",
		// Again, where a peer takes part.
		"datadir/current/before", "datadir/current/after", "wal/sync/before", "wal/sync/after",
	}
	byCtl = []string{"snapshot/save/written", "snapshot/save/verified", "snapshot/save/renamed", "snapshot/restore/current"}
)

func singles() []string {
	other := map[string]bool{}
	for _, list := range [][]string{atFirstStart, byAFollower, byCtl} {
		for _, name := range list {
			other[name] = true
		}
	}
	for _, name := range []string{"wal/sync/before", "wal/sync/after"} {
		other[name] = false // By both.
	}
	var names []string
	for _, p := range fail.Points() {
		if !other[p.Name] {
			names = append(names, p.Name)
		}
	}
	return names
}

var programs cluster.Binaries

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "holdfast-failpoints")
	if err == nil {
		if err = os.Setenv("GOFLAGS", "-tags=failpoints"); err == nil {
			programs, err = cluster.Build(context.Background(), filepath.Join("..", ".."), dir)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func newCluster(t *testing.T, n int) *cluster.Cluster {
	t.Helper()
	c, err := cluster.New(t.TempDir(), programs, n, "--failpoints-listen=127.0.0.1:0", "--snapshot-catchup-entries=10",
		"--heartbeat-interval=50", "--election-timeout=400")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.KillAll)
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t, c)
		}
	})
	return c
}

func showLogs(t *testing.T, c *cluster.Cluster) {
	for _, m := range c.Members {
		text, err := os.ReadFile(filepath.Join(c.Dir, m.Name+".log"))
		t.Logf("log of %s ends (%v):\n%s", m.Name, err, text[max(0, len(text)-3000):])
	}
}

// startArmed starts a member that has places armed from its first moment.
func startArmed(t *testing.T, m *cluster.Member, armed string) {
	t.Helper()
	if err := os.Setenv(variable, armed); err != nil {
		t.Fatal(err)
	}
	err := m.Start()
	os.Unsetenv(variable)
	if err != nil {
		t.Fatal(err)
	}
}

func startReady(t *testing.T, m *cluster.Member) {
	t.Helper()
	startArmed(t, m, "")
	if err := m.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// web finds where a running member listens for failpoints: the last such line
// of its log.
func web(t *testing.T, c *cluster.Cluster, m *cluster.Member) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.Dir, m.Name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	address := ""
	for line := range strings.Lines(string(text)) {
		var said struct{ Address string }
		if strings.Contains(line, "listening for failpoints") && json.Unmarshal([]byte(line), &said) == nil {
			address = said.Address
		}
	}
	if address == "" {
		t.Fatalf("member %s does not say where it listens for failpoints", m.Name)
	}
	return "http://" + address
}

func do(t *testing.T, method, url, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %s %v\n%s", method, url, resp.Status, err, text)
	}
	return string(text)
}

// untilEnded ends a context soon after a member died: requests that it took
// with it are not waited for.
func untilEnded(ctx context.Context, m *cluster.Member) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, placeMax)
	go func() {
		for ctx.Err() == nil && m.Running() {
			time.Sleep(poll)
		}
		time.Sleep(answerMax)
		cancel()
	}()
	return ctx, cancel
}

func mustEnd(t *testing.T, m *cluster.Member) {
	t.Helper()
	for end := time.Now().Add(placeMax); m.Running(); time.Sleep(poll) {
		if time.Now().After(end) {
			t.Fatal("the member lives on: the place was not reached")
		}
	}
}

func TestASingleMemberDiesAtEveryPlaceAndLosesNothing(t *testing.T) {
	c := newCluster(t, 1)
	m := c.Members[0]
	startReady(t, m)
	l := newLedger()
	for _, name := range singles() {
		ok := t.Run(name, func(t *testing.T) {
			began := time.Now()
			do(t, http.MethodPut, web(t, c, m)+"/"+name, "1*off->crash")
			rounds := l.loadUntilEnded(t, c, m)
			if rounds == roundsMax && m.Running() {
				t.Fatalf("not reached: %s", do(t, http.MethodGet, web(t, c, m)+"/", ""))
			}
			mustEnd(t, m)
			startReady(t, m)
			l.verify(t, c, m)
			t.Logf("died in round %d, %d writes acknowledged so far, %.1f s", rounds, l.acknowledged, time.Since(began).Seconds())
		})
		if !ok {
			return // What follows would fail for the same reason.
		}
	}
}

func TestAFirstStartDiesAndTheNextSucceeds(t *testing.T) {
	for _, name := range atFirstStart {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1)
			m := c.Members[0]
			startArmed(t, m, name+"=crash")
			mustEnd(t, m)
			startReady(t, m)
			l := newLedger()
			l.load(t.Context(), c, m)
			if l.acknowledged == 0 {
				t.Error("nothing could be written")
			}
			l.verify(t, c, m)
		})
	}
}

// A follower that lags is sent a snapshot and dies taking it, again and again.
func TestAFollowerDiesTakingASnapshotAndCatchesUp(t *testing.T) {
	c := newCluster(t, 3)
	for _, m := range c.Members {
		startArmed(t, m, "")
	}
	for _, m := range c.Members {
		if err := m.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l := newLedger()
	victim := c.Members[2]
	for _, name := range byAFollower {
		ok := t.Run(name, func(t *testing.T) {
			for lag := 1; victim.Running() && lag <= lagsMax; lag++ {
				victim.Kill()
				time.Sleep(heldMax)
				for range 3 { // Two checkpoints behind: the log before them is gone.
					l.load(t.Context(), c, c.Members[0])
				}
				startArmed(t, victim, name+"=crash")
				for end := time.Now().Add(tookMax); victim.Running() && time.Now().Before(end); {
					time.Sleep(poll)
				}
			}
			if victim.Running() {
				t.Fatalf("not reached: %s", do(t, http.MethodGet, web(t, c, victim)+"/", ""))
			}
			startReady(t, victim)
			l.verify(t, c, victim)
			sameHash(t, c)
		})
		if !ok {
			return
		}
	}
}

// sameHash compares all members at one revision.
func sameHash(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), placeMax)
	defer cancel()
	revision, first := int64(0), uint32(0)
	for i, m := range c.Members {
		cl, err := c.Client(m)
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if i == 0 {
			got, err := cl.Get(ctx, client.Get{Range: client.One("0")})
			if err != nil {
				t.Fatal(err)
			}
			revision = got.Header.Revision
		} else if _, err := cl.Get(ctx, client.Get{Range: client.One("0")}); err != nil { // Linearizable: it has caught up.
			t.Fatal(err)
		}
		hash, err := cl.HashKV(ctx, revision)
		if err != nil {
			t.Fatalf("member %s: %v", m.Name, err)
		}
		if i == 0 {
			first = hash.Hash
		}
		if hash.Hash != first {
			t.Errorf("at revision %d member %s has hash %x, %s has %x", revision, m.Name, hash.Hash, c.Members[0].Name, first)
		}
	}
}

func TestSavingAndRestoringDieAndAreDoneAgain(t *testing.T) {
	c := newCluster(t, 1)
	m := c.Members[0]
	startReady(t, m)
	l := newLedger()
	l.load(t.Context(), c, m)
	file := filepath.Join(c.Dir, "backup.db")
	target := filepath.Join(c.Dir, "restored")
	for _, name := range byCtl {
		save := func() error { _, err := m.Ctl(t.Context(), "snapshot", "save", file); return err }
		restore := func() error {
			_, err := c.Offline(t.Context(), "snapshot", "restore", file, "--data-dir="+target)
			return err
		}
		act := save
		if strings.HasPrefix(name, "snapshot/restore/") {
			act = restore
		}
		t.Setenv(variable, name+"=crash")
		if err := act(); err == nil || !strings.Contains(err.Error(), "signal: killed") {
			t.Errorf("%s: %v", name, err)
		}
		os.Unsetenv(variable)
		if _, err := os.Stat(file); err == nil {
			if _, err := c.Offline(t.Context(), "snapshot", "status", file); err != nil {
				t.Errorf("%s: what has the name is damaged: %v", name, err)
			}
		}
		if err := act(); err != nil {
			t.Errorf("%s: a second time: %v", name, err)
		}
	}
}

func TestAnOrdinaryBuildHasNoPlaces(t *testing.T) {
	t.Setenv("GOFLAGS", "")
	plain, err := cluster.Build(t.Context(), filepath.Join("..", ".."), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string]bool{plain.Holdfast: false, programs.Holdfast: true} {
		text, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range fail.Points() {
			if got := strings.Contains(string(text), p.Name); got != want {
				t.Errorf("%s mentions %s: %v, want %v", filepath.Base(program), p.Name, got, want)
			}
		}
	}
}
