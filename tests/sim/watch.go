package sim

import (
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/watch"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/tests/check"
	"github.com/holdfast-db/holdfast/tests/model"
)

// watcher follows some keys, at one member after the other. It compares what
// it is told with what the model knows of the revisions in between, so that
// nothing can be missing, doubled or out of place.
type watcher struct {
	c      *client
	req    watch.Request
	create *pb.WatchCreateRequest

	next   int64 // Everything before was delivered.
	asked  int64 // The start of the present stream.
	at     *Member
	boot   uint64
	stream *watch.Stream
	rec    int // In the history.
	lazy   bool
	seen   int
}

// watch begins a watcher that lasts for the whole run.
func (c *client) watch() {
	x := &watcher{c: c, next: 0, rec: -1, lazy: c.chance.Chance(30)}
	key, end := c.interval()
	x.req = watch.Request{Key: key, End: end, PrevKV: c.half()}
	switch c.chance.Below(6) {
	case 0:
		x.req.NoPut = true
	case 1:
		x.req.NoDelete = true
	}
	switch c.chance.Below(4) {
	case 0:
		x.next = 2 // From the beginning.
	case 1:
		x.next = c.w.shadow.model.Revision() + int64(c.chance.Below(40)) // In the future.
	}
	c.watches = append(c.watches, x)
	x.poll()
}

// poll takes what there is, and comes again.
func (x *watcher) poll() {
	w := x.c.w
	d := int64(40+x.c.chance.Below(80)) * millisecond
	if x.lazy && w.phase == safety {
		d *= 20 // A slow consumer.
	}
	w.after(d, x.poll)
	if x.stream == nil && !x.connect() {
		return
	}
	if x.at.pausedUntil > w.now {
		return
	}
	for n := 0; x.stream != nil && (n < 20 || !x.lazy); n++ {
		b, ok, err := x.stream.Poll()
		if err != nil {
			x.drop()
			return
		}
		if !ok {
			break
		}
		x.take(&b)
	}
	if x.stream != nil && x.c.chance.Chance(10) {
		x.stream.Progress(watch.AllWatchers)
	}
	x.at.settle()
}

func (x *watcher) connect() bool {
	m := x.c.member(true)
	if !m.serves() || m.pausedUntil > x.c.w.now {
		return false
	}
	x.at, x.boot, x.asked = m, m.boot, x.next
	x.stream = m.hub.NewStream()
	x.req.Start = ident.Revision(x.next)
	if _, err := x.stream.Watch(x.req); err != nil {
		x.stream = nil
		return false
	}
	w := x.c.w
	x.create = &pb.WatchCreateRequest{Key: x.req.Key, RangeEnd: x.req.End, StartRevision: x.next, PrevKv: x.req.PrevKV}
	if x.req.NoPut {
		x.create.Filters = append(x.create.Filters, pb.WatchCreateRequest_NOPUT)
	}
	if x.req.NoDelete {
		x.create.Filters = append(x.create.Filters, pb.WatchCreateRequest_NODELETE)
	}
	x.rec = len(w.history.Watches)
	w.history.Watches = append(w.history.Watches, check.Watch{
		ID: x.rec, Client: x.c.id, Member: int(m.id), Call: w.now * 1000, Request: x.create,
	})
	return true
}

func (x *watcher) drop() { x.stream = nil }

// disconnected ends the streams of a member that stopped.
func (c *client) disconnected(m *Member) {
	for _, x := range c.watches {
		if x.at == m && x.stream != nil {
			x.drop()
			c.w.count.Reached["watch resumed elsewhere"]++
		}
	}
}

// take checks one answer.
func (x *watcher) take(b *watch.Batch) {
	w := x.c.w
	answer := &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: int64(b.Revision)}, WatchId: b.ID}
	defer func() {
		seen := &w.history.Watches[x.rec].Seen
		*seen = append(*seen, check.WatchSeen{Time: w.now * 1000, Response: answer})
	}()
	w.note(8, uint64(b.Kind), uint64(b.Revision), uint64(len(b.Events)))
	switch b.Kind {
	case watch.Created:
		answer.Created = true
		if x.next == 0 {
			x.next = int64(b.Revision) + 1
		}
		x.c.sees(x.at, int64(b.Revision))
	case watch.Events:
		for _, data := range b.Events {
			e := &mvccpb.Event{}
			if err := e.UnmarshalVT(data); err != nil {
				w.fail("W9: watcher of client %d gets an event that cannot be read: %v", x.c.id, err)
			}
			answer.Events = append(answer.Events, e)
		}
		x.events(answer.Events, int64(b.Revision))
	case watch.Progress:
		w.check.Fired["W6"]++
		if missing := x.wanted(x.next, int64(b.Revision)); len(missing) > 0 {
			w.fail("W6: watcher of client %d at member %s is told of progress to %d, and has not got %v", x.c.id, x.at.id, b.Revision, missing[0])
		}
		x.next = max(x.next, int64(b.Revision)+1)
	case watch.Canceled:
		answer.Canceled, answer.CompactRevision = true, int64(b.Compact)
		x.canceled(b)
	case watch.Refused:
		w.fail("W5: watcher of client %d is refused: %v", x.c.id, b.Err)
	}
}

func (x *watcher) canceled(b *watch.Batch) {
	w := x.c.w
	w.check.Fired["W5"]++
	if b.Compact == 0 || int64(b.Compact) <= x.next {
		if x.at.blame(b.Err) == "" {
			w.fail("W5: watcher of client %d at %d is canceled, compacted is %d: %v", x.c.id, x.next, b.Compact, b.Err)
		}
	} else {
		w.count.Reached["watch canceled because of a compaction"]++
		x.next = int64(b.Compact)
	}
	x.stream.Close()
	x.drop()
}

// events checks whole revisions up to through.
func (x *watcher) events(got []*mvccpb.Event, through int64) {
	w := x.c.w
	w.check.Fired["W4"]++
	want := x.wanted(x.next, through)
	if len(got) != len(want) {
		w.fail("W4: watcher of client %d at member %s from %d gets %d events up to %d, expected %d", x.c.id, x.at.id, x.next, len(got), through, len(want))
	}
	for i, e := range got {
		if e.Type != want[i].Type || !sameKV(e.Kv, want[i].Kv) {
			w.fail("W1: watcher of client %d at member %s gets %v, expected %v", x.c.id, x.at.id, e, want[i])
		}
		x.previous(e)
	}
	x.seen += len(got)
	x.next = through + 1
}

// previous checks prev_kv (W8).
func (x *watcher) previous(e *mvccpb.Event) {
	w := x.c.w
	if !x.req.PrevKV {
		if e.PrevKv != nil {
			w.fail("W8: watcher of client %d gets a previous value that it did not ask for: %v", x.c.id, e)
		}
		return
	}
	w.check.Fired["W8"]++
	want := w.shadow.model.Get(string(e.Kv.Key), e.Kv.ModRevision-1)
	switch {
	case e.PrevKv == nil:
		if want != nil && e.Kv.ModRevision-1 >= int64(x.at.replica.Store().Compacted()) {
			w.fail("W8: watcher of client %d gets no previous value of %v, it was %v", x.c.id, e, want)
		}
	case want == nil || !sameKV(e.PrevKv, want):
		w.fail("W8: watcher of client %d gets the previous value %v of %v, it was %v", x.c.id, e.PrevKv, e.Kv, want)
	}
}

// wanted are the events from one revision through another that the watcher
// wants.
func (x *watcher) wanted(from, through int64) (list []*mvccpb.Event) {
	if through > x.c.w.shadow.model.Revision() {
		x.c.w.fail("W7: watcher of client %d hears of revision %d, the newest is %d", x.c.id, through, x.c.w.shadow.model.Revision())
	}
	for _, e := range x.c.w.shadow.model.Events(from, through) {
		if e.Type == mvccpb.Event_PUT && x.req.NoPut || e.Type == mvccpb.Event_DELETE && x.req.NoDelete {
			continue
		}
		if model.Within(string(e.Kv.Key), x.req.Key, x.req.End) {
			list = append(list, e)
		}
	}
	return list
}
