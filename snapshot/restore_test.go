package snapshot

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/statemachine"
)

func restoreConfig() RestoreConfig {
	return RestoreConfig{FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), Random: rand.Reader}
}

// writeFile keeps a snapshot in a file.
func writeFile(t testing.TB, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.snap")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// grown is a store with some history, compacted in between.
func grown(t testing.TB, seed uint64) (*mvcc.Store, *script) {
	t.Helper()
	s, sc := newStore(t), &script{r: mathrand.New(mathrand.NewPCG(seed, 9))}
	sc.begin(t, s)
	sc.run(t, s, 80)
	t.Cleanup(func() { s.Close() })
	return s, sc
}

func three(root string) []Target {
	var list []Target
	for _, name := range []string{"m1", "m2", "m3"} {
		list = append(list, Target{Name: name, PeerURLs: []string{"http://" + name + ":2380"}, DataDir: filepath.Join(root, name)})
	}
	return list
}

func plan(t testing.TB, path string, o RestoreOptions) *Plan {
	t.Helper()
	st, err := ReadHeader(vfs.OS(), path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := PlanRestore(st.Header, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func restore(t testing.TB, path string, o RestoreOptions) *Plan {
	t.Helper()
	p := plan(t, path, o)
	if err := Restore(t.Context(), restoreConfig(), path, p); err != nil {
		t.Fatal(err)
	}
	return p
}

// living is a restored member, opened as a server would.
type living struct {
	id      datadir.Identity
	store   *mvcc.Store
	machine *statemachine.Machine
	log     *wal.Recovered
}

func open(t testing.TB, m PlannedMember) living {
	t.Helper()
	dir, err := datadir.Open(vfs.OS(), m.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var l living
	if l.id, err = dir.Identity(); err != nil {
		t.Fatal(err)
	}
	n, err := dir.Current()
	if err != nil {
		t.Fatal(err)
	}
	cfg := storeConfig(dir.Generation(n))
	if l.store, err = mvcc.Open(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.store.Close() })
	if l.machine, err = statemachine.New(l.store); err != nil {
		t.Fatal(err)
	}
	logDir := m.WALDir
	if logDir == "" {
		logDir = dir.WAL()
	}
	log, found, err := wal.Open(wal.Config{FS: vfs.OS(), Dir: logDir, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	l.log = found
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAllMembersOfARestoredClusterStandAtTheSamePlaceOnANewTimeline(t *testing.T) {
	old, _ := grown(t, 1)
	path := writeFile(t, snapshotOf(t, old, WriteOptions{}))
	nonce, err := NewNonce(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := restore(t, path, RestoreOptions{Members: three(t.TempDir()), Nonce: nonce})
	was := old.Applied()
	incarnations := map[uint64]bool{}
	var first mvcc.State
	for _, m := range p.Members {
		l := open(t, m)
		st := l.store.Applied()
		if st.Position.Index != was.Position.Index+1 || st.Term != was.Term || st.Revision != was.Revision || st.Compacted != was.Compacted ||
			st.Timeline != was.Timeline+1 || st.Cluster == was.Cluster || st.Cluster != p.Cluster {
			t.Errorf("state %+v out of %+v", st, was)
		}
		mark := wal.Mark{Index: st.Position.Index, Term: st.Term}
		if l.log.Start != mark || l.log.Last != mark || l.log.HardState.Commit > mark.Index {
			t.Errorf("log %+v, state at %+v", l.log, mark)
		}
		if l.id.Member != m.ID || l.id.Cluster != p.Cluster || l.id.Timeline != st.Timeline || incarnations[l.id.Incarnation] {
			t.Errorf("identity %+v", l.id)
		}
		incarnations[l.id.Incarnation] = true
		var conf raftpb.ConfState
		if err := proto.Unmarshal(st.ConfState, &conf); err != nil || len(conf.Voters) != 3 || conf.Voters[0] != uint64(p.Members[0].ID) {
			t.Errorf("configuration %v, %v", &conf, err)
		}
		if got := contents(t, l.store, st.Compacted); !reflect.DeepEqual(got, contents(t, old, was.Compacted)) {
			t.Error("keys differ")
		}
		members := l.machine.Members.List()
		if len(members) != 3 || members[0].Incarnation != 0 || len(l.machine.Members.RemovedIDs()) != 0 || len(l.machine.Alarms.List(0)) != 0 {
			t.Errorf("members %v", members)
		}
		if c := l.machine.Cluster(); !bytes.Equal(c.Uuid, p.UUID[:]) || c.ClusterId != uint64(p.Cluster) || c.Version != "3.7" ||
			c.Timeline.Parent != uint64(was.Timeline) || c.Timeline.Fork.Index != uint64(was.Position.Index) {
			t.Errorf("cluster %v", c)
		}
		if first.Digest != st.Digest && first.Revision != 0 {
			t.Errorf("digest %s here, %s there", st.Digest, first.Digest)
		}
		first = st
	}
}

func TestEachHostAloneComesToTheSameClusterWithEtcdsFlags(t *testing.T) {
	old, _ := grown(t, 2)
	path := writeFile(t, snapshotOf(t, old, WriteOptions{}))
	root := t.TempDir()
	var first mvcc.State
	for i, name := range []string{"m1", "m2", "m3"} {
		targets := three(root)
		p := restore(t, path, RestoreOptions{Members: targets, Only: name, Token: "etcd-cluster"})
		at := slices.IndexFunc(p.Members, func(m PlannedMember) bool { return m.Make })
		st := state(open(t, p.Members[at]).store)
		if p.Members[at].Name != name || i > 0 && !reflect.DeepEqual(st, first) {
			t.Errorf("%s: %+v, the first %+v", name, st, first)
		}
		first = st
	}
}

func TestABumpedRestoreTellsEveryWatcherOfBefore(t *testing.T) {
	old, sc := grown(t, 3)
	path := writeFile(t, snapshotOf(t, old, WriteOptions{}))
	p := restore(t, path, RestoreOptions{Members: three(t.TempDir())[:1], BumpRevision: 1000, MarkCompacted: true})
	l := open(t, p.Members[0])
	was, st := old.Applied(), l.store.Applied()
	head := was.Revision + 1000
	if st.Revision != head || st.Compacted != head || st.Position.Index != was.Position.Index+1 {
		t.Fatalf("state %+v out of %+v", st, was)
	}
	now, then := contents(t, l.store, head), contents(t, old, was.Revision)
	if !slices.Equal(now[head], then[was.Revision]) {
		t.Error("keys differ, or their revisions")
	}
	v := l.store.View()
	if _, err := v.Range(context.Background(), mvcc.RangeArgs{Key: []byte{0}, End: []byte{0}, Revision: head - 1}); !errors.Is(err, mvcc.ErrCompacted) {
		t.Errorf("a read of before: %v", err)
	}
	v.Release()
	e := l.store.Begin(st.Position.Index+1, st.Term+1, 0)
	tx := e.Tx()
	if _, err := tx.Put(mvcc.PutArgs{Key: sc.key(), Value: []byte("new")}); err != nil || tx.Revision() != head+1 {
		t.Errorf("revision %d, %v", tx.Revision(), err)
	}
	tx.Commit()
	if err := e.Commit(); err != nil {
		t.Fatal(err)
	}
	// What was restored can be saved and restored again.
	again := writeFile(t, snapshotOf(t, l.store, WriteOptions{}))
	q := restore(t, again, RestoreOptions{Members: three(t.TempDir())[:1]})
	if got := open(t, q.Members[0]).store.Applied(); got.Revision != head+1 || got.Timeline != was.Timeline+2 {
		t.Errorf("restored again: %+v", got)
	}
}

func TestWhatATargetHoldsIsNeverLost(t *testing.T) {
	old, _ := grown(t, 4)
	path := writeFile(t, snapshotOf(t, old, WriteOptions{}))
	root := t.TempDir()
	targets := three(root)
	targets[0].WALDir = filepath.Join(root, "log")
	for _, dir := range []string{targets[1].DataDir, targets[0].WALDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "precious"), []byte("data"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o := RestoreOptions{Members: targets}
	if err := Restore(t.Context(), restoreConfig(), path, plan(t, path, o)); !errors.Is(err, ErrNotEmpty) {
		t.Fatalf("target is not empty: %v", err)
	}
	if names, _ := os.ReadDir(targets[1].DataDir); len(names) != 1 {
		t.Errorf("touched: %v", names)
	}
	o.Replace = true
	p := restore(t, path, o)
	for _, dir := range []string{targets[1].DataDir, targets[0].WALDir} {
		if got, err := os.ReadFile(filepath.Join(dir+oldSuffix, "precious")); err != nil || string(got) != "data" {
			t.Errorf("%q, %v", got, err)
		}
	}
	restore(t, path, o) // The members restored before are renamed aside in turn.
	for _, m := range p.Members {
		open(t, m)
	}
	// Nobody restores over a living member.
	dir, err := datadir.Open(vfs.OS(), targets[2].DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := Restore(t.Context(), restoreConfig(), path, plan(t, path, o)); !errors.Is(err, datadir.ErrLocked) {
		t.Errorf("living member: %v", err)
	}
}

func TestADamagedSnapshotLeavesTheTargetsAsTheyWere(t *testing.T) {
	old, _ := grown(t, 5)
	b := snapshotOf(t, old, WriteOptions{})
	p := plan(t, writeFile(t, b), RestoreOptions{Members: three(t.TempDir())})
	b[len(b)-100] ^= 1
	bad := writeFile(t, b)
	if err := Restore(t.Context(), restoreConfig(), bad, p); !errors.Is(err, ErrDamaged) {
		t.Errorf("restore: %v", err)
	}
	for _, m := range p.Members {
		if _, err := os.Stat(m.DataDir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", m.DataDir, err)
		}
	}
}

func TestOnlyAMissingHashCanBeSkipped(t *testing.T) {
	old, _ := grown(t, 6)
	b := snapshotOf(t, old, WriteOptions{})
	path := writeFile(t, b[:len(b)-hashBytes])
	p := plan(t, path, RestoreOptions{Members: three(t.TempDir())[:1]})
	cfg := restoreConfig()
	if err := Restore(t.Context(), cfg, path, p); !errors.Is(err, ErrNoHash) {
		t.Errorf("without hash: %v", err)
	}
	cfg.SkipHashCheck = true
	if err := Restore(t.Context(), cfg, path, p); err != nil {
		t.Errorf("without hash, told to skip: %v", err)
	}
}

func TestWhatIsWrongWithARestoreIsSaidAtOnce(t *testing.T) {
	o := RestoreOptions{Only: "m9", BumpRevision: 5, Leases: "keep", Members: []Target{
		{Name: "m1", PeerURLs: []string{"http://m1:2380"}, DataDir: "d"},
		{Name: "m1", PeerURLs: []string{"tcp://m1"}, DataDir: "d"},
		{Name: "m3"},
	}}
	err := o.Validate()
	for _, words := range []string{"go together", `--leases "keep"`, `"m1" is empty or used twice`, `"tcp://m1"`, "m3 has no peer URL", `"m9" is not one`} {
		if err == nil || !strings.Contains(err.Error(), words) || !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is missing in %v", words, err)
		}
	}
	if _, err := ParseSpec([]byte("members:\n- name: a\n  color: red\n")); err == nil {
		t.Error("an unknown field is taken")
	}
	got, err := ParseSpec([]byte("members:\n- name: a\n  peer-urls: [http://a:1]\n  data-dir: /d\n"))
	if want := []Target{{Name: "a", PeerURLs: []string{"http://a:1"}, DataDir: "/d"}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestAPlanReadsLikeThis(t *testing.T) {
	old, _ := grown(t, 7)
	path := writeFile(t, snapshotOf(t, old, WriteOptions{}))
	targets := three("/var/lib/holdfast")
	targets[2].WALDir = "/fast/m3"
	var b strings.Builder
	for _, o := range []RestoreOptions{
		{Members: targets, Token: "etcd-cluster", Only: "m2"},
		{Members: targets, Nonce: "00112233445566778899aabbccddeeff", BumpRevision: 1000, MarkCompacted: true},
		{Members: targets[:1], Token: "etcd-cluster", Leases: LeasesRemaining},
		{Members: targets[:1], Token: "etcd-cluster", Leases: LeasesDrop},
		{Members: targets[:1], Token: "etcd-cluster", Leases: LeasesDrop, BumpRevision: 1000, MarkCompacted: true},
	} {
		p := plan(t, path, o)
		fmt.Fprintf(&b, "%s  uuid %x\n\n", p, p.UUID)
	}
	golden.File(t, "testdata/plan.txt", b.String())
}

func TestACrashedRestoreIsRunAgain(t *testing.T) {
	old, _ := grown(t, 8)
	path := writeFile(t, snapshotOf(t, old, WriteOptions{}))
	o := RestoreOptions{Members: three(t.TempDir())[:2]}
	if err := os.MkdirAll(o.Members[0].DataDir, 0o700); err != nil { // An empty folder, as a mount point is.
		t.Fatal(err)
	}
	p := plan(t, path, o)
	crash := errors.New("crash")
	for step := 0; ; step++ {
		cfg := restoreConfig()
		var left atomic.Int64 // The first member is verified while the others get their copies.
		left.Store(int64(step))
		cfg.FS = &failingFS{FS: vfs.OS(), fail: func() error {
			if left.Add(-1) < 0 {
				return crash
			}
			return nil
		}}
		err := Restore(t.Context(), cfg, path, p)
		if err == nil {
			t.Logf("%d steps", step)
			break
		}
		if errors.Is(err, ErrNotEmpty) && !p.Replace { // Some were in their place already.
			p.Replace = true
		} else if !errors.Is(err, crash) {
			t.Fatalf("step %d: %v", step, err)
		}
	}
	for _, m := range p.Members {
		if got := open(t, m).store.Applied(); got.Revision != old.Head() {
			t.Errorf("%+v", got)
		}
	}
}

func TestARevisionIsNotRaisedBeyondWhatLeavesRoomForWrites(t *testing.T) {
	o := RestoreOptions{Nonce: "n", Members: three(t.TempDir()), MarkCompacted: true}
	h := &holdfastpb.SnapshotHeader{Applied: &holdfastpb.Position{Index: 7}, Revision: 100}
	for bump, want := range map[int64]error{1: nil, revisionMax - 100: nil, revisionMax - 99: ErrInvalid, math.MaxInt64: ErrInvalid} {
		o.BumpRevision = bump
		if _, err := PlanRestore(h, o); !errors.Is(err, want) {
			t.Errorf("raised by %d: %v", bump, err)
		}
	}
}

func TestAFolderIsFreeUntilSomebodyLivesThere(t *testing.T) {
	for names, want := range map[string]bool{
		"":           true,
		"lost+found": true, // The root of a fresh file system, which nobody can rename aside.
		"LOCK CURRENT CURRENT.tmp gen-000001 old-wal wal lost+found": true, // What a restore left that was cut short.
		"LOCK CURRENT IDENTITY.copy.tmp gen-000001 wal":              true,
		"LOCK CURRENT IDENTITY.copy gen-000001 wal":                  false, // Perhaps of a member whose IDENTITY is lost.
		"LOCK CURRENT IDENTITY gen-000001 wal":                       false,
		"LOCK notes.txt":                                             false,
		"PEERS":                                                      false,
	} {
		if got := begun(strings.Fields(names)); got != want {
			t.Errorf("a folder with %q counts as free: %t", names, got)
		}
	}
}

// Whoever interrupts a restore while members get their copies has none of them.
func TestARestoreThatIsInterruptedInstallsNothing(t *testing.T) {
	old, _ := grown(t, 11)
	path := writeFile(t, snapshotOf(t, old, WriteOptions{}))
	p := plan(t, path, RestoreOptions{Members: three(t.TempDir())[:2]})
	ctx, interrupt := context.WithCancel(t.Context())
	cfg := restoreConfig()
	cfg.FS = &failingFS{FS: vfs.OS(), fail: func() error {
		if there, _ := vfs.Exists(vfs.OS(), p.Members[1].DataDir+scratchSuffix+"/gen-000001"); there { // It gets its copy.
			interrupt()
		}
		return nil
	}}
	if err := Restore(ctx, cfg, path, p); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	for _, m := range p.Members {
		if there, err := vfs.Exists(vfs.OS(), m.DataDir); there || err != nil {
			t.Errorf("%s is there: %v", m.Name, err)
		}
	}
}

// failingFS fails changes of names.
type failingFS struct {
	vfs.FS
	fail func() error
}

func (f *failingFS) Create(name string) (vfs.File, error) {
	if err := f.fail(); err != nil {
		return nil, err
	}
	return f.FS.Create(name)
}

func (f *failingFS) Rename(from, to string) error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

func (f *failingFS) SyncDir(dir string) error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.FS.SyncDir(dir)
}

func (f *failingFS) RemoveAll(dir string) error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.FS.RemoveAll(dir)
}

// Hosts that are told different revisions must not become one cluster.
func TestDifferentRevisionsMakeDifferentClusters(t *testing.T) {
	h := &holdfastpb.SnapshotHeader{Timeline: &holdfastpb.TimelineInfo{Number: 1}, Applied: &holdfastpb.Position{Index: 9}, Revision: 5}
	plan := func(bump int64) *Plan {
		p, err := PlanRestore(h, RestoreOptions{Members: three("/x"), Nonce: "ab", BumpRevision: bump, MarkCompacted: bump > 0})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	seen := map[string]int64{}
	for _, bump := range []int64{0, 1, 1000} {
		p := plan(bump)
		if other, again := seen[p.Cluster.String()]; again {
			t.Errorf("bumps of %d and %d give cluster %s", other, bump, p.Cluster)
		}
		seen[p.Cluster.String()] = bump
		if q := plan(bump); q.Cluster != p.Cluster || q.UUID != p.UUID {
			t.Errorf("a bump of %d gives clusters %s and %s", bump, p.Cluster, q.Cluster)
		}
	}
}

// Two operators at one target: the second is refused, and what the first makes is
// what it would have been.
func TestTwoRestoresToOneTargetDoNotMeet(t *testing.T) {
	s, _ := grown(t, 31)
	path, root := writeFile(t, snapshotOf(t, s, WriteOptions{})), t.TempDir()
	p := plan(t, path, RestoreOptions{Nonce: "n", Members: three(root)[:1]})
	cfg, second := restoreConfig(), error(nil)
	cfg.Progress = func(done, total int64) {
		if second == nil {
			second = Restore(t.Context(), restoreConfig(), path, p)
		}
	}
	if err := Restore(t.Context(), cfg, path, p); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(second, datadir.ErrLocked) {
		t.Errorf("the second restore: %v", second)
	}
	if m := open(t, p.Members[0]); m.store.Applied().Position.Index != p.At {
		t.Errorf("restored is %s, planned was entry %d", m.store.Applied().Position, p.At)
	}
}
