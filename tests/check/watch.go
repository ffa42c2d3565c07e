package check

import (
	"fmt"
	"slices"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/tests/model"
)

// follower compares what one watcher saw with the log.
type follower struct {
	*checker
	w       *Watch
	start   int64        // The first revision that it is about.
	next    int          // In History.Log: the first event that it has not seen, and wants.
	missed  map[int]bool // Those before that it has not got.
	last    int64        // Revision of the last event.
	marked  int64        // The highest revision that was said to be complete.
	partly  bool         // The answer before is to be continued.
	ended   bool         // Cancelled.
	created bool
	asked   *pb.WatchCreateRequest
}

// checkWatches checks all watchers. The model has everything by now.
func (c *checker) checkWatches() {
	c.Counts.Watches = len(c.h.Watches)
	reached := map[int]int64{}
	for i := range c.h.Watches {
		w := &c.h.Watches[i]
		f := &follower{checker: c, w: w, asked: w.Request, missed: map[int]bool{}}
		f.follow()
		reached[w.ID] = f.position() - 1
	}
	for i := range c.h.Watches {
		w := &c.h.Watches[i]
		if w.Resumes == 0 {
			continue
		}
		at, ok := reached[w.Resumes]
		if start := w.Request.GetStartRevision(); !ok || start == 0 || start > at+1 {
			c.add(Violation{Rule: "W5", Watch: w.ID, Revision: start, Text: fmt.Sprintf("resumes watch %d, which has come to revision %d, at %d", w.Resumes, at, start)})
		}
	}
}

func (f *follower) wrong(rule string, rev int64, format string, args ...any) {
	f.add(Violation{Rule: rule, Watch: f.w.ID, Revision: rev, Text: fmt.Sprintf(format, args...)})
}

// position is the first revision that the watcher may still be missing
// something of.
func (f *follower) position() int64 { return max(f.start, f.last+1, f.marked+1) }

func (f *follower) follow() {
	for i := range f.w.Seen {
		s := &f.w.Seen[i]
		if f.ended {
			f.wrong("W5", 0, "%v comes after the end", s.Response)
			return
		}
		f.see(s)
	}
	if f.w.Open && f.created && !f.ended {
		if e := f.wanted(); e != nil {
			f.wrong("W11", e.Kv.ModRevision, "still open, and has not got %v", e)
		}
	}
}

func (f *follower) see(s *WatchSeen) {
	r := s.Response
	head := r.GetHeader().GetRevision()
	switch {
	case r.Created:
		f.create(r)
	case r.Canceled:
		f.ended = true
		if f.created && r.CompactRevision != 0 && (r.CompactRevision <= f.position() || r.CompactRevision > f.compact.possibly(s.Time)) {
			f.wrong("W5", r.CompactRevision, "cancelled as compacted, having come to %d; at most %d can have been compacted", f.position(), f.compact.possibly(s.Time))
		}
	case !f.created:
		if r.WatchId != -1 {
			f.wrong("W7", head, "%v comes before the watch was created", r)
		}
	case len(r.Events) == 0:
		f.mark(head)
	default:
		f.events(s)
	}
}

func (f *follower) create(r *pb.WatchResponse) {
	if f.created {
		f.wrong("W2", 0, "created twice")
	}
	f.created, f.ended = true, r.Canceled
	f.start = f.asked.GetStartRevision()
	if f.start == 0 {
		f.start = r.GetHeader().GetRevision() + 1
	}
	f.next, _ = slices.BinarySearchFunc(f.h.Log, f.start, func(e *mvccpb.Event, rev int64) int { return int(e.Kv.ModRevision - rev) })
}

// wanted moves to the next event that the watcher must get.
func (f *follower) wanted() *mvccpb.Event {
	for ; f.next < len(f.h.Log); f.next++ {
		if e := f.h.Log[f.next]; f.matches(e) {
			return e
		}
	}
	return nil
}

func (f *follower) matches(e *mvccpb.Event) bool {
	key := f.asked.GetKey()
	if len(key) == 0 {
		key = []byte{0}
	}
	for _, x := range f.asked.GetFilters() {
		if x == pb.WatchCreateRequest_NOPUT && e.Type == mvccpb.Event_PUT || x == pb.WatchCreateRequest_NODELETE && e.Type == mvccpb.Event_DELETE {
			return false
		}
	}
	return model.Within(string(e.Kv.Key), key, f.asked.GetRangeEnd())
}

// mark checks a promise that everything up to a revision was delivered.
func (f *follower) mark(rev int64) {
	if f.partly {
		f.wrong("W3", f.last, "a progress mark within the parts of a revision")
	}
	if rev < f.asked.GetStartRevision() {
		f.wrong("W7", rev, "a progress mark before the start, %d", f.start)
		return
	}
	if e := f.wanted(); e != nil && e.Kv.ModRevision <= rev {
		f.wrong("W6", rev, "a progress mark, but %v was not delivered", e)
	}
	f.marked = max(f.marked, rev)
}

func (f *follower) events(s *WatchSeen) {
	r := s.Response
	partly := f.partly
	f.partly = r.Fragment
	if r.Fragment && !f.asked.GetFragment() {
		f.wrong("W3", 0, "parts were not asked for")
	}
	for i, e := range r.Events {
		f.Counts.Events++
		if i == 0 && e.Kv.ModRevision == f.last && !partly && f.last != 0 {
			f.wrong("W3", f.last, "a revision comes in two answers")
		}
		f.event(e, s.Time)
	}
	if r.GetHeader().GetRevision() < f.last {
		f.wrong("W1", f.last, "the header says %d", r.GetHeader().GetRevision())
	}
	if e := f.wanted(); e != nil && e.Kv.ModRevision == f.last && !r.Fragment {
		f.wrong("W3", f.last, "a revision comes without %v", e)
	}
}

// event checks one event. After a wrong one, it goes on from there.
func (f *follower) event(e *mvccpb.Event, time int64) {
	f.checkPrevious(e, time)
	want, rev := f.wanted(), e.Kv.GetModRevision()
	if want != nil && sameEvent(want, e) {
		f.next++
		f.last = rev
		return
	}
	switch at := f.find(e); {
	case rev < f.start:
		f.wrong("W7", rev, "an event before the start, %d: %v", f.start, e)
	case at < 0:
		f.wrong("W9", rev, "the log has no such event for it: %v", e)
	case at >= f.next:
		f.wrong("W4", rev, "%v was left out before %v", want, e)
		for ; f.next < at; f.next++ {
			f.missed[f.next] = true
		}
		f.next, f.last = at+1, rev
	case f.missed[at]:
		f.wrong("W1", rev, "an event after one of revision %d: %v", f.last, e)
	default:
		f.wrong("W2", rev, "an event that it had before: %v", e)
	}
}

// find returns where the log has an event that the watcher wants, or -1.
func (f *follower) find(e *mvccpb.Event) int {
	rev := e.Kv.ModRevision
	at, _ := slices.BinarySearchFunc(f.h.Log, rev, func(e *mvccpb.Event, rev int64) int { return int(e.Kv.ModRevision - rev) })
	for ; at < len(f.h.Log) && f.h.Log[at].Kv.ModRevision == rev; at++ {
		if sameEvent(f.h.Log[at], e) && f.matches(f.h.Log[at]) {
			return at
		}
	}
	return -1
}

// checkPrevious checks the value before, which may be missing only if it was
// compacted.
func (f *follower) checkPrevious(e *mvccpb.Event, time int64) {
	rev := e.Kv.GetModRevision()
	if rev < 1 || rev > f.head {
		return
	}
	right := f.m.Get(string(e.Kv.Key), rev-1)
	switch {
	case !f.asked.GetPrevKv():
		if e.PrevKv != nil {
			f.wrong("W8", rev, "the value before was not asked for")
		}
	case e.PrevKv == nil:
		if right != nil && f.compact.possibly(time) < rev {
			f.wrong("W8", rev, "the value before is missing, and not compacted: %v", right)
		}
	case !sameKV(right, e.PrevKv):
		f.wrong("W8", rev, "the value before is given as %v, and was %v", e.PrevKv, right)
	}
}
