package server_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/internal/vfs"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// stateFiles are the base and the segments of the generation in force.
func stateFiles(t testing.TB, m *servertest.Member) (generation, base string, segments []string) {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(m.Config.DataDir, "gen-*"))
	must(t, err)
	if len(dirs) != 1 {
		t.Fatalf("generations %v", dirs)
	}
	segments, err = filepath.Glob(filepath.Join(dirs[0], "history", "*.seg"))
	must(t, err)
	return dirs[0], filepath.Join(dirs[0], "base.db"), segments
}

// change rewrites bytes of a file in place.
func change(t testing.TB, name string, fn func(data []byte)) {
	t.Helper()
	data, err := os.ReadFile(name)
	must(t, err)
	fn(data)
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(data, 0)
	must(t, errors.Join(err, f.Close()))
}

// changeValues makes each 1 a 2, wherever rows may lie: behind the two meta pages.
func changeValues(data []byte) {
	for i := 2 * 4096; i < len(data); i++ {
		if data[i] == '1' {
			data[i] = '2'
		}
	}
}

// flipAll flips a bit in each 64th byte: whatever is looked at is damaged.
func flipAll(data []byte) {
	for i := 16; i < len(data); i += 64 {
		data[i] ^= 4
	}
}

// sameHashes waits until all members stand at the same revision with the same
// hash of everything.
func sameHashes(t testing.TB, c *servertest.Cluster) {
	t.Helper()
	eventually(t, "all members have the same hash", func() bool {
		seen := map[string]bool{}
		for _, m := range c.Members {
			mustGet(t, dial(t, m), "a")
			r, err := pb.NewMaintenanceClient(dial(t, m)).HashKV(t.Context(), &pb.HashKVRequest{})
			must(t, err)
			seen[fmt.Sprintln(r.Hash, r.HashRevision, r.CompactRevision)] = true
		}
		return len(seen) == 1
	})
}

func ended(t testing.TB, m *servertest.Member) error {
	t.Helper()
	select {
	case <-m.Done():
	case <-time.After(readyMax):
		t.Fatal("the member goes on")
	}
	return m.Err()
}

func TestAMemberWhoseStateIsDamagedGetsAnotherFromItsPeers(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	c := compacted(t, 3)
	victim := c.Members[2]
	damages := []struct {
		what   string
		damage func(generation, base string, segments []string)
	}{
		{"all but log and identity is gone", func(g, _ string, _ []string) {
			must(t, os.RemoveAll(g))
			must(t, os.Remove(filepath.Join(filepath.Dir(g), "CURRENT")))
			must(t, os.Remove(filepath.Join(filepath.Dir(g), "PEERS")))
		}},
		{"bits of base", func(_, base string, _ []string) { change(t, base, flipAll) }},
		{"bits of history", func(_, _ string, segments []string) { change(t, segments[len(segments)-1], flipAll) }},
		{"base is gone", func(_, base string, _ []string) { must(t, os.Remove(base)) }},
		{"base is empty", func(_, base string, _ []string) { must(t, os.Truncate(base, 0)) }},
		{"history is cut short", func(_, _ string, segments []string) { must(t, os.Truncate(segments[len(segments)-1], 50)) }},
		{"history is gone", func(g, _ string, _ []string) { must(t, os.RemoveAll(filepath.Join(g, "history"))) }},
		{"the generation is gone", func(g, _ string, _ []string) { must(t, os.RemoveAll(g)) }},
		{"bits of CURRENT", func(g, _ string, _ []string) {
			change(t, filepath.Join(filepath.Dir(g), "CURRENT"), func(data []byte) { data[5] ^= 1 })
		}},
		{"CURRENT is gone", func(g, _ string, _ []string) { must(t, os.Remove(filepath.Join(filepath.Dir(g), "CURRENT"))) }},
		{"a mark", func(string, string, []string) { mark(t, victim) }},
	}
	if testing.Short() { // Some, other ones each time: make dr has all.
		rand.Shuffle(len(damages), func(i, j int) { damages[i], damages[j] = damages[j], damages[i] })
		damages = damages[:3]
	}
	for i, d := range damages {
		t.Log(d.what)
		victim.Stop()
		key := fmt.Sprint("while away ", i)
		mustPut(t, dial(t, c.Members[0]), key, "1")
		generation, base, segments := stateFiles(t, victim)
		d.damage(generation, base, segments)
		_, gone := os.Stat(generation)
		victim.Start()
		victim.WaitReady()
		if got := mustGet(t, dial(t, victim), key); got != "1" {
			t.Fatalf("%s: %q is %q", d.what, key, got)
		}
		sameHashes(t, c)
		stateFiles(t, victim) // One generation, the others are aside.
		if _, err := os.Stat(filepath.Join(victim.Config.DataDir, "UNTRUSTED")); !os.IsNotExist(err) {
			t.Fatalf("%s: the mark is left: %v", d.what, err)
		}
		if aside, _ := filepath.Glob(filepath.Join(victim.Config.DataDir, "old-gen-*")); len(aside) == 0 && gone == nil {
			t.Fatalf("%s: nothing was set aside", d.what)
		}
		if t.Failed() {
			t.Fatalf("after: %s", d.what)
		}
	}
}

// stateOf is every file of a data directory but those of the log, byte for byte.
func stateOf(t testing.TB, m *servertest.Member) map[string]string {
	t.Helper()
	files := map[string]string{}
	must(t, filepath.Walk(m.Config.DataDir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() || filepath.Base(filepath.Dir(path)) == "wal" {
			return err
		}
		data, err := os.ReadFile(path)
		files[path] = string(data)
		return err
	}))
	return files
}

func TestADamagedMemberThatIsAloneRefusesByNameAndTouchesNothing(t *testing.T) {
	c := compacted(t, 1)
	m := c.Members[0]
	m.Stop()
	_, base, _ := stateFiles(t, m)
	change(t, base, flipAll)
	before := stateOf(t, m)
	_, err := server.Start(t.Context(), m.Config)
	if err == nil {
		t.Fatal("a damaged base is served")
	}
	for _, want := range []string{"base.db", "nothing was changed", "the only one"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the refusal does not say %q: %v", want, err)
		}
	}
	if after := stateOf(t, m); !maps.Equal(before, after) {
		t.Errorf("%d files before, %d after, or their bytes changed", len(before), len(after))
	}
}

func TestADamagedMemberWithoutPeersRefusesByNameAndStartsOnceTheyAreThere(t *testing.T) {
	quick.LeaveOut(t)
	c := compacted(t, 3)
	for _, m := range c.Members {
		m.Stop()
	}
	victim := c.Members[0]
	_, base, _ := stateFiles(t, victim)
	change(t, base, flipAll)
	victim.Config.RepairTimeout = time.Millisecond
	_, err := server.Start(t.Context(), victim.Config)
	if err == nil || !strings.Contains(err.Error(), "base.db") || !strings.Contains(err.Error(), "no member of the cluster answers") {
		t.Fatalf("without peers: %v", err)
	}
	victim.Config.RepairTimeout = 0
	c.Members[1].Start() // One alone has no quorum, and its state all the same.
	victim.Start()
	victim.WaitReady()
	c.Members[2].Start()
	c.Members[2].WaitReady()
	c.Members[1].WaitReady()
	sameHashes(t, c)
}

func TestDamageFoundByAReadIsNeverServedAndStopsTheMember(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	c := compacted(t, 3)
	victim := c.Members[1]
	_, base, _ := stateFiles(t, victim)
	change(t, base, changeValues)
	r, err := pb.NewKVClient(dial(t, victim)).Range(t.Context(), &pb.RangeRequest{Key: []byte("a"), Serializable: true})
	if status.Code(err) != codes.Unavailable {
		t.Fatalf("a damaged row: %v, %v", r, err)
	}
	if err := ended(t, victim); !errors.Is(err, server.ErrDamaged) || !strings.Contains(err.Error(), "base.db") {
		t.Fatalf("ended because of %v", err)
	}
	victim.Start()
	victim.WaitReady()
	sameHashes(t, c)
	if got := mustGet(t, dial(t, victim), "a"); got != "1" {
		t.Fatalf("a is %q", got)
	}
}

func TestAMemberThatDifferedIsRebuiltAndItsAlarmIsDisarmed(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	c := compacted(t, 3)
	wrong := c.Members[2]
	wrong.Stop()
	diverge(t, wrong)
	wrong.Start()
	if err := ended(t, wrong); !errors.Is(err, server.ErrDamaged) {
		t.Fatalf("ended because of %v", err)
	}
	eventually(t, "its alarm", func() bool { return len(corruptAlarms(t, c.Members[0])) > 0 }) // The leader raises it where the member cannot.
	_, err := pb.NewKVClient(dial(t, c.Members[0])).Put(t.Context(), &pb.PutRequest{Key: []byte("b")})
	if status.Code(err) != codes.DataLoss {
		t.Fatalf("a put while the alarm is on: %v", err)
	}
	wrong.Start()
	wrong.WaitReady()
	if ids := corruptAlarms(t, c.Members[0]); len(ids) > 0 {
		t.Fatalf("alarms for %v", ids)
	}
	mustPut(t, dial(t, wrong), "b", "2")
	sameHashes(t, c)
	if _, err := os.Stat(filepath.Join(wrong.Config.DataDir, "UNTRUSTED")); !os.IsNotExist(err) {
		t.Fatalf("the mark is left: %v", err)
	}
}

// After a failed sync nobody knows what the disk holds. What can be read and
// verified is written anew.
func TestAMemberThatIsAloneCopiesAStateWhoseWriteFailed(t *testing.T) {
	c := compacted(t, 1)
	m := c.Members[0]
	mustPut(t, dial(t, m), "d", "4")
	m.Stop()
	old, _, _ := stateFiles(t, m)
	mark(t, m)
	m.Start()
	m.WaitReady()
	if got := mustGet(t, dial(t, m), "a") + mustGet(t, dial(t, m), "d"); got != "14" {
		t.Fatalf("a and d are %q", got)
	}
	if now, _, _ := stateFiles(t, m); now == old {
		t.Fatal("the marked generation is in use")
	}
}

// mark says of a stopped member's state that a sync failed.
func mark(t testing.TB, m *servertest.Member) {
	t.Helper()
	dir, err := datadir.Open(vfs.OS(), m.Config.DataDir)
	must(t, err)
	n, err := dir.Current()
	must(t, err)
	must(t, dir.Distrust(datadir.Mark{Generation: n, Reason: "a sync failed"}))
	must(t, dir.Close())
}

// One power supply may serve all disks.
func TestAClusterWhoseWritesFailedEverywhereComesBackFromItsOwnFiles(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	c := compacted(t, 3)
	mustPut(t, dial(t, c.Members[0]), "d", "4")
	for _, m := range c.Members {
		m.Stop()
	}
	_, base, _ := stateFiles(t, c.Members[2])
	change(t, base, flipAll) // This one is lost in earnest.
	for _, m := range c.Members {
		mark(t, m)
		m.Config.RepairTimeout = time.Millisecond
	}
	if _, err := server.Start(t.Context(), c.Members[2].Config); err == nil || !strings.Contains(err.Error(), "base.db") {
		t.Fatalf("damage passes for a failed sync: %v", err)
	}
	c.Members[0].Start()
	c.Members[1].Start()
	c.Members[2].Config.RepairTimeout = 0
	c.Members[2].Start()
	for _, m := range c.Members {
		m.WaitReady()
		if got := mustGet(t, dial(t, m), "a") + mustGet(t, dial(t, m), "d"); got != "14" {
			t.Fatalf("a and d are %q at %s", got, m.Config.Name)
		}
	}
	sameHashes(t, c)
}

// unsyncedFS fails each sync of a history segment while told to.
type unsyncedFS struct {
	vfs.FS
	failing atomic.Bool
}

func (f *unsyncedFS) Create(name string) (vfs.File, error) { return f.file(f.FS.Create(name)) }

func (f *unsyncedFS) OpenWrite(name string) (vfs.File, error) { return f.file(f.FS.OpenWrite(name)) }

func (f *unsyncedFS) file(file vfs.File, err error) (vfs.File, error) {
	if err != nil || !strings.HasSuffix(file.Name(), ".seg") {
		return file, err
	}
	return &unsyncedFile{file, f}, nil
}

type unsyncedFile struct {
	vfs.File
	fs *unsyncedFS
}

func (f *unsyncedFile) SyncData() error {
	if f.fs.failing.Load() {
		return syscall.EIO
	}
	return f.File.SyncData()
}

func TestAFailedSyncIsMarkedAndTheStateNotOpenedAgain(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	var fsys unsyncedFS
	c := compactedWith(t, 3, func(i int, cfg *server.Config) {
		if i == 1 {
			fsys.FS = vfs.OS()
			cfg.FS = &fsys
		}
	})
	victim := c.Members[1]
	old, _, _ := stateFiles(t, victim)
	fsys.failing.Store(true)
	head := mustPut(t, dial(t, c.Members[0]), "d", "4").Header.Revision
	_, err := pb.NewKVClient(dial(t, c.Members[0])).Compact(t.Context(), &pb.CompactionRequest{Revision: head})
	must(t, err) // Begins a checkpoint, on each member.
	if err := ended(t, victim); !errors.Is(err, server.ErrDamaged) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("ended because of %v", err)
	}
	fsys.failing.Store(false)
	dir, err := datadir.Open(vfs.OS(), victim.Config.DataDir)
	must(t, err)
	m, found, err := dir.Mark()
	must(t, errors.Join(err, dir.Close()))
	if !found || !strings.Contains(old, fmt.Sprintf("%06d", m.Generation)) {
		t.Fatalf("mark %+v, %v, of %s", m, found, old)
	}
	victim.Start()
	victim.WaitReady()
	if now, _, _ := stateFiles(t, victim); now == old {
		t.Fatal("what was not synced is in use again")
	}
	if got := mustGet(t, dial(t, victim), "d"); got != "4" {
		t.Fatalf("d is %q", got)
	}
	sameHashes(t, c)
}
