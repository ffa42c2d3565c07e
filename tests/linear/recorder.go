package linear

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/tests/check"
)

// recorder writes down everything that is done and seen, by one clock.
type recorder struct {
	start time.Time    // With its monotonic reading: the clock of the history.
	acked atomic.Int64 // How many answers came.

	mu         sync.Mutex
	ops        []check.Op
	watches    []*check.Watch
	spans      []check.Span
	hashes     []check.Hash
	holds      []check.Hold
	violations []string // Found by the harness itself.
	ids        int
}

func newRecorder() *recorder { return &recorder{start: time.Now()} }

// now is never 0: that means never.
func (r *recorder) now() int64 { return int64(time.Since(r.start)) + 1 }

func (r *recorder) op(op check.Op) {
	if op.Outcome == check.Acknowledged {
		r.acked.Add(1)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids++
	op.ID = r.ids
	r.ops = append(r.ops, op)
}

func (r *recorder) watch(w check.Watch) *check.Watch {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.ID = len(r.watches) + 1
	r.watches = append(r.watches, &w)
	return &w
}

func (r *recorder) saw(w *check.Watch, res *pb.WatchResponse) {
	t := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	w.Seen = append(w.Seen, check.WatchSeen{Time: t, Response: res})
}

// span notes what began at from and ends now.
func (r *recorder) span(lane, text string, from int64, fault bool) {
	to := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spans = append(r.spans, check.Span{Lane: lane, Text: text, From: from, To: to, Fault: fault})
}

func (r *recorder) hash(h check.Hash) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hashes = append(r.hashes, h)
}

func (r *recorder) hold(h check.Hold) {
	h.From = r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holds = append(r.holds, h)
}

// violate notes that something is wrong that no checker needs to find.
func (r *recorder) violate(format string, args ...any) {
	text := fmt.Sprintf("%.3f s: ", time.Duration(r.now()).Seconds()) + fmt.Sprintf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.violations) < violationsMax {
		r.violations = append(r.violations, text)
	}
}

const violationsMax = 50 // More of them say nothing new.

// acknowledged counts answers that were given between two times.
func (r *recorder) acknowledged(from, to int64) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, op := range r.ops {
		if op.Outcome == check.Acknowledged && op.Call >= from && op.Return < to {
			n++
		}
	}
	return n
}

// history is what was recorded, with the log that the shadow has kept.
func (r *recorder) history(log []*mvccpb.Event, head int64) *check.History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := &check.History{Ops: slices.Clone(r.ops), Log: log, Head: head, Hashes: slices.Clone(r.hashes), Holds: slices.Clone(r.holds), Spans: slices.Clone(r.spans)}
	for _, w := range r.watches {
		h.Watches = append(h.Watches, *w)
	}
	return h
}

// shadow keeps every event there ever was, whatever is compacted: watchers on
// several members feed it.
type shadow struct {
	rec *recorder

	mu      sync.Mutex
	events  map[int64][]*mvccpb.Event
	head    int64 // Everything up to here is there.
	changed chan struct{}
}

func newShadow(rec *recorder) *shadow {
	return &shadow{rec: rec, events: map[int64][]*mvccpb.Event{}, head: 1, changed: make(chan struct{})}
}

// add takes events in the order of a watch, whole revisions.
func (s *shadow) add(events []*mvccpb.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(events) > 0 {
		rev := events[0].Kv.ModRevision
		n := slices.IndexFunc(events, func(e *mvccpb.Event) bool { return e.Kv.ModRevision != rev })
		if n < 0 {
			n = len(events)
		}
		if had, ok := s.events[rev]; !ok {
			s.events[rev] = slices.Clone(events[:n])
		} else if !sameEvents(had, events[:n]) {
			s.rec.violate("two watchers saw different events at revision %d: %v and %v", rev, had, events[:n])
		}
		events = events[n:]
	}
	before := s.head
	for s.events[s.head+1] != nil {
		s.head++
	}
	if s.head > before {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

func sameEvents(a, b []*mvccpb.Event) bool {
	return slices.EqualFunc(a, b, func(x, y *mvccpb.Event) bool { return x.Type == y.Type && proto.Equal(x.Kv, y.Kv) })
}

func (s *shadow) at() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head
}

// reach waits until everything up to a revision is there.
func (s *shadow) reach(rev int64, limit time.Duration) error {
	deadline := time.After(limit)
	for {
		s.mu.Lock()
		head, changed, known := s.head, s.changed, len(s.events)
		s.mu.Unlock()
		if head >= rev {
			return nil
		}
		select {
		case <-changed:
		case <-deadline:
			return fmt.Errorf("watchers saw everything up to revision %d only, of %d, and %d revisions in all", head, rev, known)
		}
	}
}

func (s *shadow) log() []*mvccpb.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*mvccpb.Event
	for rev := int64(2); rev <= s.head; rev++ {
		all = append(all, s.events[rev]...)
	}
	return all
}

// state is what the events up to a revision leave.
func (s *shadow) state(rev int64) map[string]*mvccpb.KeyValue {
	kvs := map[string]*mvccpb.KeyValue{}
	for _, e := range s.log() {
		if e.Kv.ModRevision > rev {
			break
		}
		if e.Type == mvccpb.Event_DELETE {
			delete(kvs, string(e.Kv.Key))
		} else {
			kvs[string(e.Kv.Key)] = e.Kv
		}
	}
	return kvs
}
