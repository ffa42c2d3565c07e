package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// The cluster of a test is a Source.
func (c *cluster) Records(after ident.Index) (Records, error) { return RecordsOf(c.store, after) }

func (c *cluster) Applied() (ident.Index, <-chan struct{}) {
	changed := c.store.Notify()
	return c.store.Applied().Position.Index, changed
}

func (c *cluster) Freeze() (*mvcc.Frozen, func() error, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := c.store.Freeze()
	if err != nil {
		return nil, nil, err
	}
	return f, f.Close, nil
}

// alarms gathers what a writer raises.
type alarms struct {
	mu   sync.Mutex
	list []error
	more chan struct{}
}

func (a *alarms) raise(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, err)
	select {
	case a.more <- struct{}{}:
	default:
	}
}

func (a *alarms) all() []error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.list)
}

func (c *cluster) config(store *memStore, a *alarms) Config {
	return Config{
		Store: store, Source: c, Cluster: testUUID, Member: 0xa, Clock: clock.Real(), Logger: hclog.NewNullLogger(), OnAlarm: a.raise,
		History: History{Timeline: testIdentity.Timeline, Parent: 2, Fork: &Fork{Index: 1}, Reason: "test"},
	}
}

// start runs a writer until the test, or the returned function, ends it.
func start(t testing.TB, cfg Config) (*Writer, func()) {
	t.Helper()
	w, err := NewWriter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := task.New(context.Background())
	g.Go("writer", w.Run)
	stop := sync.OnceFunc(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return w, stop
}

func (c *cluster) wait(w *Writer) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.Wait(ctx, c.index); err != nil {
		c.t.Fatal(err)
	}
}

// on tells when a call is made for an object whose name holds a text.
func (m *memStore) on(verb, text string) <-chan struct{} {
	seen := make(chan struct{})
	once := sync.OnceFunc(func() { close(seen) })
	before := m.before
	m.before = func(v, name string) error {
		if v == verb && strings.Contains(name, text) {
			once()
		}
		if before != nil {
			return before(v, name)
		}
		return nil
	}
	return seen
}

// archived runs a workload in pieces beside a writer, and returns the archive.
func (c *cluster) archived(store *memStore, cfg Config, pieces, entries int) *Archive {
	c.t.Helper()
	for range pieces {
		based := store.on("put", manifestName)
		w, stop := start(c.t, cfg)
		if len(store.names()) == 0 {
			<-based
		}
		for range 5 {
			c.run(entries)
			c.wait(w)
		}
		stop()
		c.run(entries / 2)
		cfg.BaseInterval = time.Nanosecond // The next one makes a base at once.
	}
	a, err := Open(c.t.Context(), store, UUID{}, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

func TestAWriterShipsWhatIsAppliedAndGoesOnAfterARestart(t *testing.T) {
	c, store, raised := newCluster(t, 5), newMemStore(), &alarms{}
	c.run(20)
	a := c.archived(store, c.config(store, raised), 3, 20)
	cat, err := a.Catalogue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tl := cat.Latest()
	w, ok := tl.Window()
	if !ok || len(w.Gaps) > 0 || len(tl.Gaps()) > 0 || len(tl.Conflicts()) > 0 || !tl.History || len(cat.Foreign) > 0 || len(raised.list) > 0 {
		t.Errorf("window %s of %+v, alarms %v", w, cat, raised.list)
	}
	if got, want := cat.Ceiling, c.store.Head(); got < want || got > want+2*ceilingBlock {
		t.Errorf("revisions up to %d are reserved, head is %d", got, want)
	}
	point := Point{}
	for _, s := range tl.Runs()[0].Log {
		seg, err := a.segment(t.Context(), tl.Number, s)
		if err != nil {
			t.Fatal(err)
		}
		if point != (Point{}) && seg.after != point {
			t.Errorf("%s follows %s, the one before ends at %s", s.Name, seg.after, point)
		}
		point = seg.end
	}
	if digest, err := c.store.DigestAt(point.Index); err != nil || Digest(digest) != point.Digest {
		t.Errorf("the log ends at %s, there the store has digest %s: %v", point, digest, err)
	}
}

func TestAnotherPastInTheArchiveIsAnAlarmAndIsNotWrittenOver(t *testing.T) {
	ours, theirs, store := newCluster(t, 1), newCluster(t, 2), newMemStore()
	raised := &alarms{more: make(chan struct{}, 1)}
	theirs.run(10)
	theirs.archived(store, theirs.config(store, &alarms{}), 1, 10)
	before := len(store.names())
	for ours.index <= theirs.index {
		ours.run(1)
	}
	start(t, ours.config(store, raised))
	<-raised.more
	raised.mu.Lock()
	defer raised.mu.Unlock()
	if !errors.Is(raised.list[0], ErrDisagree) {
		t.Errorf("alarm %v", raised.list[0])
	}
	if after := len(store.names()); after != before {
		t.Errorf("%d objects became %d", before, after)
	}
}

func TestAnArchiveThatIsDownHoldsNothingUpAndIsCaughtUpWith(t *testing.T) {
	c, store := newCluster(t, 3), newMemStore()
	var mu sync.Mutex
	down := true
	store.before = func(string, string) error {
		mu.Lock()
		defer mu.Unlock()
		if down {
			return errors.New("503 slow down")
		}
		return nil
	}
	failed := store.on("put", "")
	w, _ := start(t, c.config(store, &alarms{}))
	<-failed
	c.run(200) // Nothing of it waits for anybody.
	if w.Archived() != 0 {
		t.Errorf("archived through %d", w.Archived())
	}
	mu.Lock()
	down = false
	mu.Unlock()
	c.wait(w)
}

func TestATooLongOutageLetsHistoryGoOrStopsWrites(t *testing.T) {
	for _, policy := range []Policy{PolicyGap, PolicyStopWrites} {
		t.Run(string(policy), func(t *testing.T) {
			c, store, raised := newCluster(t, 4), newMemStore(), &alarms{more: make(chan struct{}, 9)}
			cfg := c.config(store, raised)
			cfg.Policy, cfg.LimitBytes = policy, SegmentBytes
			w, err := NewWriter(cfg)
			if err != nil {
				t.Fatal(err)
			}
			w.records, err = join(c, Point{Index: c.index, Digest: Digest(c.store.Applied().Digest)})
			if err != nil {
				t.Fatal(err)
			}
			for w.records.Behind() <= cfg.LimitBytes {
				c.index++
				e := c.store.Begin(c.index, c.term, 0)
				tx := e.Tx()
				if _, err := tx.Put(mvcc.PutArgs{Key: []byte("large"), Value: make([]byte, 1<<20)}); err != nil {
					t.Fatal(err)
				}
				tx.Commit()
				c.commit(e)
			}
			w.failed(errors.New("the store is down"))
			if kept := w.records != nil; kept != (policy == PolicyStopWrites) || w.StopWrites() != kept {
				t.Errorf("history is held: %t, writes stop: %t", kept, w.StopWrites())
			}
			if w.records != nil {
				w.letGo()
				w.tooFarBehind()
				if w.StopWrites() {
					t.Error("writes still stop")
				}
			}
		})
	}
}

func TestHistoryThatWasCompactedAwayIsAGapThatIsTold(t *testing.T) {
	c, store, raised := newCluster(t, 6), newMemStore(), &alarms{}
	cfg := c.config(store, raised)
	a := c.archived(store, cfg, 1, 10)
	c.run(200)
	c.mu.Lock()
	c.index++
	e := c.store.Begin(c.index, c.term, int64(c.index)*1_000_000_000)
	tx := e.Tx()
	if err := tx.Compact(c.store.Head()); err != nil {
		t.Fatal(err)
	}
	tx.Commit()
	c.commit(e)
	for more := true; more; {
		var err error
		if more, err = c.store.Step(); err != nil {
			t.Fatal(err)
		}
	}
	c.mu.Unlock()
	based := store.on("put", manifestName)
	w, _ := start(t, cfg)
	<-based
	c.run(10)
	c.wait(w)
	cat, err := a.Catalogue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	window, _ := cat.Latest().Window()
	if len(raised.list) != 1 || !errors.Is(raised.list[0], ErrGap) || len(window.Gaps) != 1 || w.Metrics().Gaps.Load() != 1 {
		t.Errorf("alarms %v, window %s", raised.list, window)
	}
}

// The one who ships goes on behind a gap while its new base is on its way. Who
// follows must not take that for an archive without a gap.
func TestWhatIsShippedBehindAGapCountsWithItsBaseAlone(t *testing.T) {
	c, store, raised := newCluster(t, 7), newMemStore(), &alarms{}
	cfg := c.config(store, raised)
	a := c.archived(store, cfg, 1, 10)
	w, err := NewWriter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer w.letGo()
	look := func() ident.Index {
		t.Helper()
		if err := w.lookOn(t.Context()); err != nil {
			t.Fatal(err)
		}
		return w.Archived()
	}
	before := look()
	if before == 0 || w.lastName == "" {
		t.Fatalf("follows up to %d, %q", before, w.lastName)
	}
	c.run(10) // In no segment.
	gap := pointOf(c.store.Applied())
	gap.Index = c.store.History().End().Index
	c.run(10)
	c.segments(gap, 3, func(s *segment) {
		name, data, err := s.seal(w.at, w.sealer)
		if err == nil {
			_, err = store.Put(t.Context(), a.path(timelinePath(w.at.timeline)+logFolder+name), data, blobstore.Condition{Absent: true})
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	if got := look(); got > gap.Index {
		t.Fatalf("entry %d counts as archived, and those from %d to %d are nowhere", got, before+1, gap.Index)
	}
	f, release, err := c.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writeBase(t.Context(), store, a.path(""), w.at, f, w.sealer, baseOptions{member: 0xb, clock: clock.Real()}); err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if got := look(); got < c.index {
		t.Errorf("with the base up to %d, archived is %d", c.index, got)
	}
}

// A member that shipped behind a gap, and lost the ownership before its base was
// complete, goes on from what the archive can restore.
func TestWhatWasShippedWithoutItsBaseIsForgottenWithTheOwnership(t *testing.T) {
	c, store, raised := newCluster(t, 8), newMemStore(), &alarms{}
	cfg := c.config(store, raised)
	c.archived(store, cfg, 1, 10)
	w, err := NewWriter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.base.need = true
	w.reached(c.index + 100)
	if found, err := w.look(t.Context(), nothing); err != nil || !found {
		t.Fatal(found, err)
	}
	w.reached(w.last.Index)
	if got := w.Archived(); got != w.last.Index {
		t.Errorf("archived is %d, the archive ends with %d", got, w.last.Index)
	}
}

func TestTheLeaseHasOneOwner(t *testing.T) {
	store, now := newMemStore(), clocktest.New()
	now.Advance(time.Hour)
	member := func(id ident.MemberID) *lease {
		return &lease{store: store, name: "owner.json", member: id, ttl: leaseTTL, clock: now}
	}
	a, b := member(1), member(2)
	try := func(l *lease, reluctant, want bool) {
		t.Helper()
		if got, err := l.try(t.Context(), reluctant); err != nil || got != want || got != l.valid() {
			t.Fatalf("member %s at %s has the lease: %t, %t, %v", l.member, now.Mono(), got, l.valid(), err)
		}
	}
	try(b, true, false) // It waits whether another wants it.
	try(a, false, true)
	try(b, false, false)
	now.Advance(leaseTTL - time.Second)
	if a.valid() {
		t.Error("the owner does not stop in time")
	}
	try(b, false, false)
	try(a, false, true) // In time after all.
	now.Advance(leaseTTL - time.Second)
	try(b, false, false) // It was renewed: the time counts anew.
	now.Advance(leaseTTL)
	try(b, true, false)
	try(b, false, true)
	try(a, false, false)
	c := member(1) // Restarted: the lease that it finds is another's.
	try(c, false, false)
	now.Advance(leaseTTL)
	var wins int
	for _, l := range []*lease{a, c} {
		if ok, err := l.try(t.Context(), false); err == nil && ok {
			wins++
		}
	}
	if wins == 0 || b.valid() {
		t.Errorf("%d wins, the owner before is valid: %t", wins, b.valid())
	}
}

func TestAConfigSaysAllThatIsWrong(t *testing.T) {
	_, err := NewWriter(Config{Policy: "hope", LimitBytes: 1})
	for _, want := range []string{"required", "hope", fmt.Sprint(SegmentBytes)} {
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of %s", err, want)
		}
	}
}
