package watch

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

var (
	runsFlag = flag.Int("watch.runs", 12, "how many random runs the model test makes")
	seedFlag = flag.Uint64("watch.seed", 0, "run only this seed")
)

// world is a store with a hub, and the simplest record of what happened.
type world struct {
	t     testing.TB
	store *mvcc.Store
	hub   *Hub
	index ident.Index

	mu        sync.Mutex
	head      ident.Revision
	compacted ident.Revision
	keys      map[string]*mvccpb.KeyValue
	events    [][]*mvccpb.Event // By revision - 2, prev_kv always set when there was one.
}

func newWorld(t testing.TB, streamBytes int) *world {
	t.Helper()
	return newWorldWhereScansCost(t, streamBytes, 1)
}

// newWorldOfBytes bounds what waits in one stream, and in all.
func newWorldOfBytes(t testing.TB, streamBytes, bytes int) *world {
	t.Helper()
	return newWorldOf(t, Config{StreamBytes: streamBytes, Bytes: bytes})
}

// newWorldWhereScansCost has its catch-up go by way of the key indexes the more
// often the more a scan of history is said to cost.
func newWorldWhereScansCost(t testing.TB, streamBytes int, scanCost int64) *world {
	t.Helper()
	return newWorldOf(t, Config{StreamBytes: streamBytes, scanCost: scanCost})
}

func newWorldOf(t testing.TB, cfg Config) *world {
	t.Helper()
	store, err := mvcc.Create(mvcc.Config{
		FS: vfs.OS(), Dir: t.TempDir(), Clock: clock.Real(), Logger: hclog.NewNullLogger(),
		SegmentBytes: 16 << 10, RingBytes: 32 << 10, Manual: true, BaseNoSync: true, BaseMapBytes: 64 << 20,
	}, mvcc.Identity{Cluster: 7})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: store, head: 1, compacted: store.Compacted(), keys: map[string]*mvccpb.KeyValue{}}
	cfg.Clock, cfg.Logger = clock.Real(), hclog.NewNullLogger()
	w.hub = NewHub(cfg, store)
	t.Cleanup(func() {
		if err := errors.Join(w.hub.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

// op is a put, or without a value a deletion.
type op struct {
	key   string
	value []byte
}

// apply makes one entry; each list of operations is one request.
func (w *world) apply(requests ...[]op) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index++
	e := w.store.Begin(w.index, 1, 0)
	for _, ops := range requests {
		tx := e.Tx()
		var events []*mvccpb.Event
		for _, o := range ops {
			old := w.keys[o.key]
			if o.value == nil {
				if _, _, err := tx.DeleteRange([]byte(o.key), nil, false); err != nil {
					w.t.Fatal(err)
				}
				if old != nil {
					delete(w.keys, o.key)
					events = append(events, &mvccpb.Event{Type: mvccpb.Event_DELETE, PrevKv: old,
						Kv: &mvccpb.KeyValue{Key: []byte(o.key), ModRevision: int64(w.head + 1)}})
				}
				continue
			}
			if _, err := tx.Put(mvcc.PutArgs{Key: []byte(o.key), Value: o.value}); err != nil {
				w.t.Fatal(err)
			}
			kv := &mvccpb.KeyValue{Key: []byte(o.key), Value: o.value, ModRevision: int64(w.head + 1), CreateRevision: int64(w.head + 1), Version: 1}
			if old != nil {
				kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
			}
			w.keys[o.key] = kv
			events = append(events, &mvccpb.Event{Kv: kv, PrevKv: old})
		}
		tx.Commit()
		if len(events) > 0 {
			w.head++
			w.events = append(w.events, events)
		}
	}
	if err := e.Commit(); err != nil {
		w.t.Fatal(err)
	}
	if w.store.Head() != w.head {
		w.t.Fatalf("head is %d, the record says %d", w.store.Head(), w.head)
	}
}

func (w *world) compact(rev ident.Revision) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index++
	e := w.store.Begin(w.index, 1, 0)
	tx := e.Tx()
	if err := tx.Compact(rev); err != nil {
		w.t.Fatal(err)
	}
	tx.Commit()
	if err := e.Commit(); err != nil {
		w.t.Fatal(err)
	}
	w.compacted = rev
}

// background does what the store would do by itself.
func (w *world) background() {
	w.t.Helper()
	for range 1000 {
		more, err := w.store.Step()
		if err != nil {
			w.t.Fatal(err)
		}
		if !more {
			return
		}
	}
}

// wants tells what a watcher should be given of a revision.
func (w *world) wants(r Request, rev ident.Revision) (events []*mvccpb.Event) {
	if rev < 2 {
		return nil // That of a fresh store: nothing happened.
	}
	sp := newSpan(r.Key, r.End)
	for _, e := range w.events[rev-2] {
		in := string(e.Kv.Key) == string(sp.key)
		if !sp.single {
			in = string(e.Kv.Key) >= string(sp.key) && (sp.end == nil || string(e.Kv.Key) < string(sp.end))
		}
		if in && !(r.NoPut && e.Type == mvccpb.Event_PUT) && !(r.NoDelete && e.Type == mvccpb.Event_DELETE) {
			events = append(events, e)
		}
	}
	return events
}

// observer checks everything that one stream delivers.
type observer struct {
	*world
	stream   *Stream
	watchers map[int64]*observed
	dead     map[int64]bool
	got      int
	canceled int
	marks    int
}

type observed struct {
	Request
	created bool
	through ident.Revision // Everything up to here was delivered.
}

func (w *world) observe() *observer {
	return &observer{world: w, stream: w.hub.NewStream(), watchers: map[int64]*observed{}, dead: map[int64]bool{}}
}

func (o *observer) watch(r Request) int64 {
	o.t.Helper()
	id, err := o.stream.Watch(r)
	if err != nil {
		o.t.Fatal(err)
	}
	o.watchers[id] = &observed{Request: r}
	delete(o.dead, id)
	return id
}

// take checks one batch.
func (o *observer) take(b Batch) {
	o.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if b.Kind == Progress && b.ID == AllWatchers {
		o.marks++
		for id, w := range o.watchers {
			o.progress(id, w, b.Revision)
		}
		return
	}
	w := o.watchers[b.ID]
	if w == nil {
		o.t.Fatalf("batch %d for watcher %d, which there is not (ended: %v)", b.Kind, b.ID, o.dead[b.ID])
	}
	if !w.created != (b.Kind == Created) {
		o.t.Fatalf("batch %d for watcher %d, created %v", b.Kind, b.ID, w.created)
	}
	switch b.Kind {
	case Created:
		w.created = true
		w.through = b.Revision
		if w.Start > 0 {
			w.through = w.Start - 1
		}
		if b.Revision > o.head {
			o.t.Fatalf("created at %d, head is %d", b.Revision, o.head)
		}
	case Progress:
		o.marks++
		o.progress(b.ID, w, b.Revision)
	case Canceled:
		o.canceled++
		if b.Compact != 0 && (b.Compact > o.compacted || w.through+1 >= b.Compact) {
			o.t.Fatalf("watcher %d has everything up to %d, canceled as compacted at %d; compacted is %d", b.ID, w.through, b.Compact, o.compacted)
		}
		if b.Compact == 0 && !o.dead[b.ID] {
			o.t.Fatalf("watcher %d canceled by nobody: %v", b.ID, b.Err)
		}
		delete(o.watchers, b.ID)
		o.dead[b.ID] = true
	case Events:
		o.events(b, w)
	default:
		o.t.Fatalf("batch of kind %d", b.Kind)
	}
}

// progress checks a mark: nothing up to it may be outstanding.
func (o *observer) progress(id int64, w *observed, rev ident.Revision) {
	o.t.Helper()
	if !w.created {
		return // Its answer was still in the queue; so was nothing else of it.
	}
	if rev < w.Start {
		o.t.Fatalf("progress %d for watcher %d, which begins at %d", rev, id, w.Start)
	}
	for at := w.through + 1; at <= rev; at++ {
		if n := len(o.wants(w.Request, at)); n > 0 {
			o.t.Fatalf("progress %d for watcher %d, which lacks %d events of revision %d", rev, id, n, at)
		}
	}
	w.through = max(w.through, rev)
}

// events checks that a batch is exactly what comes next.
func (o *observer) events(b Batch, w *observed) {
	o.t.Helper()
	if len(b.Events) == 0 {
		o.t.Fatalf("watcher %d: no events", b.ID)
	}
	rest := b.Events
	revisions := 0
	for at := w.through + 1; at <= b.Revision; at++ {
		want := o.wants(w.Request, at)
		if len(want) > len(rest) {
			o.t.Fatalf("watcher %d (from %d): batch up to %d has %d events left, revision %d has %d", b.ID, w.Start, b.Revision, len(rest), at, len(want))
		}
		for i, e := range want {
			o.same(rest[i], e, w.PrevKV)
		}
		if len(want) > 0 {
			revisions++
		}
		rest = rest[len(want):]
	}
	if len(rest) > 0 || revisions > windowRevisionsMax {
		var e mvccpb.Event
		_ = e.UnmarshalVT(rest[0])
		o.t.Fatalf("watcher %d: %d events too many up to %d after %d, one of revision %d", b.ID, len(rest), b.Revision, w.through, e.GetKv().GetModRevision())
	}
	w.through = b.Revision
	o.got += len(b.Events)
}

func (o *observer) same(wire []byte, want *mvccpb.Event, prev bool) {
	o.t.Helper()
	var got mvccpb.Event
	if err := got.UnmarshalVT(wire); err != nil {
		o.t.Fatal(err)
	}
	expect := &mvccpb.Event{Type: want.Type, Kv: want.Kv}
	if prev {
		expect.PrevKv = want.PrevKv
		if got.PrevKv == nil && ident.Revision(want.Kv.ModRevision-1) < o.compacted {
			expect.PrevKv = nil
		}
	}
	if !proto.Equal(expect, &got) {
		o.t.Fatalf("got  %v\nwant %v\ncompacted %d", &got, expect, o.compacted)
	}
}

// poll takes up to n batches without waiting.
func (o *observer) poll(n int) {
	o.t.Helper()
	for range n {
		b, ok, err := o.stream.poll()
		if err != nil {
			o.t.Fatal(err)
		}
		if !ok {
			return
		}
		o.take(b)
	}
}

// settle reads until every watcher that there is has everything.
func (o *observer) settle() {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		o.mu.Lock()
		behind := 0
		for _, w := range o.watchers {
			if !w.created || w.lacks(o.world) {
				behind++
			}
		}
		o.mu.Unlock()
		if behind == 0 {
			return
		}
		b, err := o.stream.Next(ctx)
		if err != nil {
			o.t.Fatalf("%d watchers wait: %v, %+v", behind, err, o.hub.Stats())
		}
		o.take(b)
	}
}

func (w *observed) lacks(world *world) bool {
	for at := w.through + 1; at <= world.head; at++ {
		if len(world.wants(w.Request, at)) > 0 {
			return true
		}
	}
	return false
}

// forSeeds runs a test for many seeds, or for the one of the flag.
func forSeeds(t *testing.T, run func(t *testing.T, r *rand.Rand)) {
	if *seedFlag != 0 {
		run(t, rand.New(rand.NewPCG(*seedFlag, 1)))
		return
	}
	base := rand.Uint64N(1 << 40)
	for i := range uint64(*runsFlag) {
		seed := base + i
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { run(t, rand.New(rand.NewPCG(seed, 1))) }) {
			t.Fatalf("replay: go test ./mvcc/watch -run '%s' -watch.seed=%d", t.Name(), seed)
		}
	}
}

func randomKey(r *rand.Rand) string {
	return fmt.Sprintf("%c/%c/%d", 'a'+r.IntN(3), 'a'+r.IntN(3), r.IntN(4))
}

func randomOps(r *rand.Rand) []op {
	ops := map[string]op{}
	for range 1 + r.IntN(1+r.IntN(6)) {
		key := randomKey(r)
		o := op{key: key}
		if r.IntN(3) > 0 {
			o.value = make([]byte, r.IntN(200))
		}
		ops[key] = o
	}
	var list []op
	for _, key := range slices.Sorted(maps.Keys(ops)) {
		list = append(list, ops[key])
	}
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] }) // Events come in the order of the request.
	return list
}

func (w *world) randomRequest(r *rand.Rand) Request {
	q := Request{PrevKV: r.IntN(2) == 0, NoPut: r.IntN(6) == 0, NoDelete: r.IntN(6) == 0, Key: []byte(randomKey(r))}
	switch r.IntN(4) {
	case 0:
		q.Key = q.Key[:2]
		q.End = append([]byte{}, q.Key[0]+1)
	case 1:
		q.End = []byte{0}
	case 2:
		q.End = []byte(string(q.Key[:2]) + "\xff")
	}
	switch r.IntN(4) {
	case 0: // From the past, perhaps compacted.
		q.Start = 1 + ident.Revision(r.Int64N(int64(w.head)))
	case 1: // From the future.
		q.Start = w.head + ident.Revision(r.IntN(30))
	case 2: // From C, which is never too early.
		q.Start = max(w.compacted, 0)
	}
	return q
}

// W1 to W9 against the record, with slow consumers, compactions in the middle
// of catching up, and streams that end.
func TestEveryWatcherGetsExactlyWhatHappened(t *testing.T) {
	total := map[string]int{}
	forSeeds(t, func(t *testing.T, r *rand.Rand) {
		w := newWorldWhereScansCost(t, 500+r.IntN(20_000), []int64{1, 1000, 1 << 30}[r.IntN(3)])
		streams := []*observer{w.observe()}
		for range 150 + r.IntN(200) {
			o := streams[r.IntN(len(streams))]
			switch r.IntN(12) {
			case 0, 1, 2, 3:
				for range 1 + r.IntN(40) {
					requests := make([][]op, 1+r.IntN(3))
					for i := range requests {
						requests[i] = randomOps(r)
					}
					w.apply(requests...)
				}
			case 4, 5:
				o.watch(w.randomRequest(r))
			case 6:
				o.stream.Progress(AllWatchers)
			case 7:
				if ids := slices.Sorted(maps.Keys(o.watchers)); len(ids) > 0 {
					id := ids[r.IntN(len(ids))]
					if r.IntN(2) == 0 {
						o.stream.Progress(id)
					} else if o.stream.Cancel(id) {
						o.dead[id] = true
					}
				}
			case 8:
				if rev := w.compacted + 1 + ident.Revision(r.IntN(100)); rev <= w.head {
					w.compact(rev)
				}
				w.background()
			case 9:
				if len(streams) < 5 {
					streams = append(streams, w.observe())
				} else if i := r.IntN(len(streams)); len(streams) > 1 {
					streams[i].stream.Close()
					streams = slices.Delete(streams, i, i+1)
				}
			default:
				o.poll(r.IntN(100))
			}
		}
		for _, o := range streams {
			o.settle()
			o.stream.Progress(AllWatchers)
			o.poll(100)
			total["events"] += o.got
			total["canceled"] += o.canceled
			total["marks"] += o.marks
		}
		stats := w.hub.Stats()
		total["bytes scanned"] += int(stats.ScannedBytes)
		total["bytes looked up"] += int(stats.LookedBytes)
	})
	t.Log(total)
	for what, n := range total {
		if n == 0 {
			t.Errorf("no %s in any run", what)
		}
	}
}
