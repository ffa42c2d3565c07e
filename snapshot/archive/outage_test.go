package archive

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
)

// patience with a writer that works while the clock of the test runs on: how many
// seconds of that clock it needs says how busy the machine is, and no more.
const patience = time.Minute

// An hour of an archive that is down, by a clock of its own: entries are applied
// each second and wait for nobody, what is asked of the store stays little, all
// of it arrives afterwards, and revisions stay reserved.
func TestAnArchiveThatIsDownForAnHourCostsNothing(t *testing.T) {
	c, store, now := newCluster(t, 11), newMemStore(), clocktest.New()
	raised := &alarms{}
	var down atomic.Bool
	var calls atomic.Int64
	store.before = func(string, string) error {
		calls.Add(1)
		if down.Load() {
			return errors.New("503 slow down")
		}
		return nil
	}
	cfg := c.config(store, raised)
	cfg.Clock = now
	w, _ := start(t, cfg)
	second := func() {
		c.run(1)
		now.Advance(time.Second)
		now.AwaitWaiters(1) // The writer waits again, for time or for the store.
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for began := time.Now(); !ok(); second() {
			if time.Since(began) > patience {
				t.Fatalf("%s: archived through %d of %d", what, w.Archived(), c.index)
			}
		}
	}
	until("the archive begins", func() bool { return w.Archived() > 0 })

	down.Store(true)
	before, head, archived := calls.Load(), c.store.Head(), w.Archived()
	for range 3600 {
		second()
	}
	asked := calls.Load() - before
	if c.store.Head() < head+1000 {
		t.Fatalf("too little happened: revision %d, was %d", c.store.Head(), head)
	}
	if w.StopWrites() || w.Archived() > archived+100 {
		t.Errorf("writes stop: %t; archived through %d, was %d", w.StopWrites(), w.Archived(), archived)
	}
	if asked > 3*3600/int64(retryMax/time.Second) {
		t.Errorf("a store that is down was asked %d times in an hour", asked)
	}

	down.Store(false)
	end := c.index
	until("the archive is back", func() bool { return w.Archived() >= end })
	a, err := Open(t.Context(), store, UUID{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cat, err := a.Catalogue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if window, ok := cat.Latest().Window(); !ok || len(window.Gaps) > 0 || w.Metrics().Gaps.Load() > 0 {
		t.Errorf("window %s, alarms %v", window, raised.all())
	}
	if cat.Ceiling < c.store.Head() {
		t.Errorf("revision %d is used, up to %d are reserved", c.store.Head(), cat.Ceiling)
	}
	t.Logf("%d entries in an hour without an archive, which was asked %d times", end-archived, asked)
}

// Revisions are reserved far ahead. Where the reservation can not be renewed an
// alarm is raised, and everything else goes on.
func TestACeilingThatCanNotBeRenewedIsAnAlarmAndNoHindrance(t *testing.T) {
	c, store, raised := newCluster(t, 12), newMemStore(), &alarms{more: make(chan struct{}, 1)}
	store.before = func(verb, name string) error {
		if verb == "put" && strings.Contains(name, "/"+ceilingFolder) {
			return errors.New("403 not this one")
		}
		return nil
	}
	w, _ := start(t, c.config(store, raised))
	<-raised.more
	c.run(50)
	c.wait(w)
	if w.Metrics().CeilingsUnmet.Load() == 0 {
		t.Error("nobody counts it")
	}
	target, err := ParseTarget("latest")
	if err != nil {
		t.Fatal(err)
	}
	a, err := Open(t.Context(), store, UUID{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var p *Plan
	for p == nil { // Its base is on its way.
		if p, err = a.Plan(t.Context(), 0, target); err != nil && !errors.Is(err, ErrOutside) {
			t.Fatal(err)
		}
	}
	// Nothing is reserved: what an outage may have used is passed over.
	for _, hours := range []int64{1, 30} {
		q := *p
		q.Outage(time.Unix(0, q.End.Time).Add(time.Duration(hours) * time.Hour))
		if want := q.End.Revision + ident.Revision(hours*3600*revisionsPerSecondMax); q.Ceiling != want || !strings.Contains(q.String(), "without the archive") {
			t.Errorf("after %d h the new cluster begins above %d, want %d:\n%s", hours, q.Ceiling, want, q.String())
		}
	}
	// What is reserved suffices for an hour.
	q := *p
	q.Ceiling = q.End.Revision + ceilingBlock
	q.Outage(time.Unix(0, q.End.Time).Add(time.Hour))
	if q.Ceiling != q.End.Revision+ceilingBlock || strings.Contains(q.String(), "without the archive") {
		t.Errorf("%s", q.String())
	}
}

func TestABaseWaitsAfterEachOfItsPieces(t *testing.T) {
	c, store, now := newCluster(t, 13), newMemStore(), clocktest.New()
	c.run(20)
	cfg := c.config(store, &alarms{})
	cfg.Clock = now
	asked := make(chan struct{}, 1)
	cfg.BasePause = func() time.Duration {
		select {
		case asked <- struct{}{}:
		default:
		}
		return time.Hour
	}
	start(t, cfg)
	for waiting := true; waiting; {
		select {
		case <-asked:
			waiting = false
		default:
			now.Advance(time.Second)
			now.AwaitWaiters(1)
		}
	}
	based := func() bool {
		return strings.Contains(strings.Join(store.names(), " "), manifestName)
	}
	if based() {
		t.Error("the base does not wait")
	}
	for !based() {
		now.Advance(time.Minute)
		now.AwaitWaiters(1)
	}
}

// A day of segments is a list that takes longer than the ownership lasts.
func TestAListThatOutlastsTheOwnershipIsNoHindrance(t *testing.T) {
	c, store, now := newCluster(t, 13), newMemStore(), clocktest.New()
	cfg := c.config(store, &alarms{})
	c.archived(store, cfg, 1, 20)
	store.before = func(verb, name string) error {
		if verb == "list" && name == testUUID.String()+"/" {
			now.Advance(4 * leaseTTL)
		}
		return nil
	}
	cfg.Clock = now
	w, _ := start(t, cfg)
	for began := time.Now(); w.Archived() < c.index; {
		if time.Since(began) > patience {
			t.Fatalf("archived through %d of %d", w.Archived(), c.index)
		}
		now.AwaitWaiters(1)
		now.Advance(time.Second)
	}
}

// Who waits for the archive waits for the list, too.
func TestWhoTakesOverListsOnlyWhatIsNew(t *testing.T) {
	c, store, now := newCluster(t, 17), newMemStore(), clocktest.New()
	var lists atomic.Int64
	store.before = func(verb, name string) error {
		if verb == "list" && name == testUUID.String()+"/" {
			lists.Add(1)
		}
		return nil
	}
	cfg := c.config(store, &alarms{})
	cfg.Clock = now
	until := func(what string, ok func() bool) {
		t.Helper()
		for began := time.Now(); !ok(); {
			if time.Since(began) > patience {
				t.Fatal(what)
			}
			c.run(1)
			now.Advance(time.Second)
			now.AwaitWaiters(1)
		}
	}
	first, stop := start(t, cfg)
	until("the first member ships", func() bool { return first.Metrics().Segments.Load() > 0 })
	cfg.Member = 0xb
	second, _ := start(t, cfg)
	end := c.index + 10
	until("the second looks on", func() bool { return second.Archived() > end })
	stop()
	before := lists.Load()
	end = c.index
	until("the second ships", func() bool { return second.Metrics().Segments.Load() > 0 && second.Archived() > end })
	if n := lists.Load() - before; n > 0 {
		t.Errorf("listed all of the archive %d times, of which it has known the end", n)
	}
	if n := second.Metrics().Bases.Load(); n > 0 {
		t.Errorf("made %d bases, though there is one of today", n)
	}
}

// A store that is slow must not keep compactions from giving space back.
func TestABaseThatACompactionCannotWaitForIsGivenUpForAWhile(t *testing.T) {
	const quota = 4 << 20
	sc := storeConfig(t.TempDir())
	sc.SegmentBytes, sc.QuotaBytes = 64<<10, quota
	s, err := mvcc.Create(sc, testIdentity)
	if err != nil {
		t.Fatal(err)
	}
	index := ident.Index(1)
	do := func(change func(tx *mvcc.Tx) error) {
		t.Helper()
		index++
		e := s.Begin(index, 1, 0)
		tx := e.Tx()
		if err := change(tx); err != nil {
			t.Fatal(err)
		}
		tx.Commit()
		if err := e.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	fill := func(bytes int64) {
		for s.Bytes() < bytes {
			do(func(tx *mvcc.Tx) error {
				_, err := tx.Put(mvcc.PutArgs{Key: []byte("key"), Value: make([]byte, 16<<10)})
				return err
			})
		}
	}
	fill(quota * 3 / 4)
	f, err := s.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	do(func(tx *mvcc.Tx) error { return tx.Compact(s.Head()) })
	fill(quota * 15 / 16)
	now := clocktest.New()
	seal, err := newSealer(Recipients{})
	if err != nil {
		t.Fatal(err)
	}
	_, overdue := writeBase(t.Context(), newMemStore(), "", testPlace, f, seal, baseOptions{clock: now})
	if !errors.Is(overdue, mvcc.ErrOverdue) {
		t.Fatalf("base: %v", overdue)
	}
	if err := errors.Join(f.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}

	cfg := newCluster(t, 1).config(newMemStore(), &alarms{})
	cfg.Clock = now
	w, err := NewWriter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.base.busy = make(chan error, 1)
	w.base.busy <- overdue
	if ended := w.baseEnded(); ended != nil || w.base.retry < now.Mono()+time.Minute {
		t.Errorf("%v; the next one begins after %s", ended, w.base.retry-now.Mono())
	}
}
