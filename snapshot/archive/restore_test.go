package archive

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

var (
	targetsFlag = flag.Int("archive.targets", 100, "how many random targets are restored")
	changesFlag = flag.Int("archive.changes", 300, "how many changed objects an inspection is to find")
	seedFlag    = flag.Uint64("archive.seed", 7, "of the workload and the targets")
)

// restoreTo makes a store of a target.
func restoreTo(t testing.TB, a *Archive, text string) (*Plan, *mvcc.Store) {
	t.Helper()
	target, err := ParseTarget(text)
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.Plan(t.Context(), 0, target)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var b bytes.Buffer
	if _, err := a.Restore(t.Context(), &b, p); err != nil {
		t.Fatalf("%s\n%v", p, err)
	}
	cfg := storeConfig(t.TempDir())
	if _, err := snapshot.ReceiveWhole(&b, cfg, testIdentity); err != nil {
		t.Fatalf("%s\n%v", p, err)
	}
	s, err := mvcc.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p, s
}

// TestAnyTargetIsRestoredExactly is point-in-time exactness against a naive
// model: what the state was after each request, kept in maps.
func TestAnyTargetIsRestoredExactly(t *testing.T) {
	seed := *seedFlag
	t.Logf("-archive.seed=%d", seed)
	c, store := newCluster(t, seed), newMemStore()
	c.run(20)
	from := c.past[len(c.past)-1].at
	a := c.archived(store, c.config(store, &alarms{}), 4, 30)
	w, _ := start(t, c.config(store, &alarms{}))
	c.wait(w)
	r := rand.New(rand.NewPCG(seed, 2))
	first := 0
	for first < len(c.past) && !from.Less(c.past[first].at) {
		first++
	}
	for range *targetsFlag {
		i := first + r.IntN(len(c.past)-first)
		text, want := c.target(r, i)
		_, s := restoreTo(t, a, text)
		st := s.Applied()
		if st.Position != want.at || st.Revision != want.revision {
			t.Errorf("%s stands at %s, revision %d, want %s, %d", text, st.Position, st.Revision, want.at, want.revision)
		}
		if got := modelOf(t, s); !reflect.DeepEqual(got, want.state) {
			t.Errorf("%s: keys and rows are\n%v\nwant\n%v", text, got, want.state)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// target names a moment in one of the ways, and the moment that it means.
func (c *cluster) target(r *rand.Rand, i int) (string, moment) {
	m := c.past[i]
	for {
		switch r.IntN(5) {
		case 0:
			return fmt.Sprintf("index=%d.%d", m.at.Index, m.at.Group), m
		case 1:
			for i+1 < len(c.past) && c.past[i+1].at.Index == m.at.Index {
				i++
			}
			return fmt.Sprintf("index=%d", m.at.Index), c.past[i]
		case 2:
			if m.made {
				return fmt.Sprintf("revision=%d", m.revision), m
			}
		case 3:
			if i+1 < len(c.past) && c.past[i+1].made {
				return fmt.Sprintf("before-revision=%d", m.revision+1), m
			}
		default:
			for i+1 < len(c.past) && c.past[i+1].time == m.time {
				i++
			}
			return "time=" + time.Unix(0, m.time).UTC().Format(time.RFC3339Nano), c.past[i]
		}
	}
}

func TestATargetOutsideTheWindowIsRefusedWithTheWindow(t *testing.T) {
	c, store := newCluster(t, 8), newMemStore()
	c.run(20)
	a := c.archived(store, c.config(store, &alarms{}), 1, 10)
	for _, text := range []string{"index=3", "index=999999", "revision=1", "revision=999999", "before-revision=2", "before-revision=99999", "time=1970-01-01T00:00:01Z", "time=2038-01-01T00:00:00Z"} {
		target, err := ParseTarget(text)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := a.Plan(t.Context(), 0, target); !errors.Is(err, ErrOutside) || !strings.Contains(err.Error(), "timeline 3, entries ") {
			t.Errorf("%s: %v, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "now", "latest=1", "index=x", "index=1.-1", "revision=-1", "time=yesterday", "index=1.99999999999"} {
		if _, err := ParseTarget(text); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "before-revision=N") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestWhatIsDamagedMissingOrSwappedIsNamedAndNothingIsInstalled(t *testing.T) {
	c, store := newCluster(t, 9), newMemStore()
	c.run(50)
	a := c.archived(store, c.config(store, &alarms{}), 1, 20)
	latest, err := ParseTarget("latest")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := a.Plan(t.Context(), 0, latest)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	restored := func() error {
		_, err := a.RestoreFile(t.Context(), vfs.OS(), filepath.Join(dir, "x.snap"), plan)
		return err
	}
	made := filepath.Join(t.TempDir(), "a")
	straight := func() error {
		members, err := snapshot.PlanRestore(plan.Header(), snapshot.RestoreOptions{
			Nonce: "00", Members: []snapshot.Target{{Name: "a", PeerURLs: []string{"http://a:1"}, DataDir: made}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return a.RestoreTo(t.Context(), restoreConfig(), plan, members)
	}
	r := rand.New(rand.NewPCG(9, 9))
	for i := range 200 {
		restored := restored
		if i%10 == 9 {
			restored = straight
		}
		o := plan.Objects[r.IntN(len(plan.Objects))]
		good := store.objects[a.path(o.Name)]
		bad := bytes.Clone(good)
		switch i % 3 {
		case 0:
			bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
		case 1:
			bad = bad[:r.IntN(len(bad))]
		default:
			other := plan.Objects[r.IntN(len(plan.Objects))]
			if other == o {
				continue
			}
			bad = bytes.Clone(store.objects[a.path(other.Name)])
		}
		store.objects[a.path(o.Name)] = bad
		if err := restored(); err == nil || !strings.Contains(err.Error(), o.Name) {
			t.Fatalf("%s was changed: %v", o.Name, err)
		}
		delete(store.objects, a.path(o.Name))
		if err := restored(); err == nil || !strings.Contains(err.Error(), o.Name) {
			t.Fatalf("%s is missing: %v", o.Name, err)
		}
		store.objects[a.path(o.Name)] = good
	}
	if names, err := vfs.OS().List(dir); err != nil || len(names) != 0 {
		t.Errorf("left behind: %q, %v", names, err)
	}
	if there, err := vfs.Exists(vfs.OS(), made); there || err != nil {
		t.Errorf("a directory was made of what is damaged: %v", err)
	}
	if err := errors.Join(restored(), straight()); err != nil {
		t.Error(err)
	}
}

// The target may be an empty folder, as a mount point is. What a restore into it
// has made when it fails would only take room there.
func TestARestoreThatFailsLeavesNoStateInAnEmptyFolderAndIsRunAgain(t *testing.T) {
	c, store := newCluster(t, 12), newMemStore()
	c.run(20)
	a := c.archived(store, c.config(store, &alarms{}), 1, 20)
	p, err := a.Plan(t.Context(), 0, Target{kind: toLatest})
	if err != nil {
		t.Fatal(err)
	}
	o := threeIn(t.TempDir(), p.Bump())
	for _, m := range o.Members[:2] {
		if err := vfs.OS().MkdirAll(m.DataDir); err != nil {
			t.Fatal(err)
		}
	}
	members, err := snapshot.PlanRestore(p.Header(), o)
	if err != nil {
		t.Fatal(err)
	}
	last := a.path(p.Objects[len(p.Objects)-1].Name)
	good := store.objects[last]
	delete(store.objects, last)
	if err := a.RestoreTo(t.Context(), restoreConfig(), p, members); !errors.Is(err, blobstore.ErrNotFound) {
		t.Errorf("without the last segment: %v", err)
	}
	for _, m := range o.Members {
		var names []string
		for _, dir := range []string{m.DataDir, m.DataDir + ".restoring"} {
			if there, _ := vfs.Exists(vfs.OS(), dir); !there {
				continue
			}
			list, err := vfs.OS().List(dir)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, list...)
		}
		if !slices.Equal(names, []string{"LOCK"}) {
			t.Errorf("%s: %q are left", m.Name, names)
		}
	}
	store.objects[last] = good
	if err := a.RestoreTo(t.Context(), restoreConfig(), p, members); err != nil {
		t.Error(err)
	}
}

func restoreConfig() snapshot.RestoreConfig {
	return snapshot.RestoreConfig{
		FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), Random: bytes.NewReader(make([]byte, 100)),
		Tune: func(c *mvcc.Config) { c.BaseNoSync = true },
	}
}

func TestAnArchiveBecomesTheDataDirectoriesOfAllMembersAboveItsCeiling(t *testing.T) {
	c, store := newCluster(t, 10), newMemStore()
	c.run(20)
	a := c.archived(store, c.config(store, &alarms{}), 2, 20)
	m := c.past[len(c.past)-40]
	target, err := ParseTarget(fmt.Sprintf("index=%d.%d", m.at.Index, m.at.Group))
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.Plan(t.Context(), testIdentity.Timeline, target)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "x.snap")
	if _, err := a.RestoreFile(t.Context(), vfs.OS(), file, p); err != nil {
		t.Fatal(err)
	}
	st, err := snapshot.StatusOf(t.Context(), vfs.OS(), file, snapshot.StatusOptions{})
	if err != nil || st.Keys != int64(len(m.state.keys)) {
		t.Fatalf("%+v: %v", st, err)
	}
	told := int64(0)
	cfg := restoreConfig()
	cfg.Progress = func(done, total int64) { told = max(told, done) }
	for way, restore := range map[string]func(*snapshot.Plan) error{
		"by way of a file": func(next *snapshot.Plan) error { return snapshot.Restore(t.Context(), restoreConfig(), file, next) },
		"straight":         func(next *snapshot.Plan) error { return a.RestoreTo(t.Context(), cfg, p, next) },
	} {
		t.Run(way, func(t *testing.T) {
			next, err := snapshot.PlanRestore(p.Header(), threeIn(t.TempDir(), p.Bump()))
			if err != nil {
				t.Fatal(err)
			}
			if err := restore(next); err != nil {
				t.Fatal(err)
			}
			for _, to := range next.Members {
				standsAt(t, to, p, m)
			}
		})
	}
	if told != p.Bytes {
		t.Errorf("progress ended at %d of %d", told, p.Bytes)
	}
}

func threeIn(dir string, bump int64) snapshot.RestoreOptions {
	o := snapshot.RestoreOptions{Nonce: "00", BumpRevision: bump, MarkCompacted: bump > 0}
	for _, name := range []string{"a", "b", "c"} {
		o.Members = append(o.Members, snapshot.Target{Name: name, PeerURLs: []string{"http://" + name + ":1"}, DataDir: filepath.Join(dir, name)})
	}
	return o
}

// standsAt compares a restored member with a moment.
func standsAt(t *testing.T, to snapshot.PlannedMember, p *Plan, m moment) {
	t.Helper()
	d, err := datadir.Open(vfs.OS(), to.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	n, err := d.Current()
	if err != nil {
		t.Fatal(err)
	}
	s, err := mvcc.Open(storeConfig(d.Generation(n)))
	if err != nil {
		t.Fatal(err)
	}
	at := s.Applied()
	if at.Timeline != testIdentity.Timeline+1 || at.Position.Index != m.at.Index+1 || at.Revision < p.Ceiling || at.Compacted != at.Revision {
		t.Errorf("%s stands at %+v, ceiling %d", to.Name, at, p.Ceiling)
	}
	if got := modelOf(t, s); !reflect.DeepEqual(got.keys, m.state.keys) || !reflect.DeepEqual(got.rows, m.state.rows) {
		t.Errorf("%s: %v\nwant %v", to.Name, got, m.state)
	}
	if err := errors.Join(s.Close(), d.Close()); err != nil {
		t.Error(err)
	}
}

func TestABaseOfManyPartsIsReadInOrderWithinItsBounds(t *testing.T) {
	c, store := newCluster(t, 11), newMemStore()
	c.mu.Lock()
	c.index++
	e := c.store.Begin(c.index, c.term, 0)
	for i := range 12 {
		tx := e.Tx()
		value := make([]byte, 1<<20)
		for j := range value {
			value[j] = byte(c.r.Uint32())
		}
		if _, err := tx.Put(mvcc.PutArgs{Key: fmt.Appendf(nil, "large-%d", i), Value: value}); err != nil {
			t.Fatal(err)
		}
		tx.Commit()
	}
	c.commit(e)
	c.mu.Unlock()
	a := c.archived(store, c.config(store, &alarms{}), 1, 0)
	p, s := restoreTo(t, a, "latest")
	defer s.Close()
	if len(p.Base.Parts) < 3 {
		t.Errorf("%d parts", len(p.Base.Parts))
	}
	if got, want := modelOf(t, s), modelOf(t, c.store); !reflect.DeepEqual(got, want) {
		t.Error("keys differ")
	}
	if got := s.Applied().Position; got != (ident.Position{Index: c.index, Group: 11}) {
		t.Errorf("it stands at %s", got)
	}
}
