package differential

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

const (
	settleTimeout = time.Minute // Until a stream counts as silent.
	askAgain      = 40 * time.Millisecond
)

// watchSide is one stream on one side, and all that came over it.
type watchSide struct {
	side   *target
	stream grpc.ClientStream
	cancel context.CancelFunc

	sending sync.Mutex

	mu       sync.Mutex
	changed  chan struct{} // Closed and replaced when something came.
	created  []proto.Message
	progress []*pb.WatchResponse       // Of the whole stream.
	logs     map[int64][]proto.Message // Of each watch: events and what ended it.
	born     map[int64]int             // Items in the log of an ID when its present watch was made.
	last     map[int64]int64           // Revision of the newest event of each watch.
	partial  map[int64]bool            // The next response of the watch is a fragment of the same.
	leftover map[int64]bool            // Watches of etcd's that compaction has ended and that were cancelled for that.
	pieces   map[int64]int             // Responses that were fragments and not the last.
	broken   []string                  // What must never be.
	err      error
}

func newWatchSide(ctx context.Context, side *target, meta []string) (*watchSide, error) {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, meta...))
	s, err := side.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, methods["Watch/Watch"].path)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("%s: watch stream: %w", side.side, err)
	}
	w := &watchSide{
		side: side, stream: s, cancel: cancel, changed: make(chan struct{}),
		logs: map[int64][]proto.Message{}, born: map[int64]int{}, last: map[int64]int64{}, partial: map[int64]bool{}, leftover: map[int64]bool{}, pieces: map[int64]int{},
	}
	go w.receive()
	return w, nil
}

func (w *watchSide) receive() {
	for {
		r := &pb.WatchResponse{}
		err := w.stream.RecvMsg(r)
		w.mu.Lock()
		if err != nil {
			w.err = err
		} else {
			if !w.side.names.revisions { // Else the request that made them may not be answered yet.
				w.side.names.inward(r)
			}
			w.take(r)
		}
		close(w.changed)
		w.changed = make(chan struct{})
		w.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// take files a response. How events are divided among responses is the
// server's choice, within rules that are checked here.
func (w *watchSide) take(r *pb.WatchResponse) {
	if w.side.names.first {
		covered.answer(answer{msg: r})
	}
	switch {
	case r.Created:
		w.created = append(w.created, r)
		w.born[r.WatchId] = len(w.logs[r.WatchId]) // What is there is of one that had the ID before.
		delete(w.last, r.WatchId)
		return
	case r.WatchId == -1 && len(r.Events) == 0 && !r.Canceled:
		w.progress = append(w.progress, r)
		return
	case r.Canceled && r.CompactRevision == 0 && w.leftover[r.WatchId]:
		meet("watch-compacted-cancel")
		delete(w.leftover, r.WatchId)
		return
	case r.Canceled || len(r.Events) == 0: // Its end, or a progress notice.
		if r.CompactRevision != 0 && w.side.side == "etcd" {
			w.leftover[r.WatchId] = true
			_ = w.send(cancelRequest(r.WatchId)) // If the stream is gone it is told elsewhere.
		}
		w.logs[r.WatchId] = append(w.logs[r.WatchId], r)
		return
	}
	for _, e := range r.Events {
		at := e.GetKv().GetModRevision()
		if at < w.last[r.WatchId] || at == w.last[r.WatchId] && e == r.Events[0] && !w.partial[r.WatchId] {
			w.broken = append(w.broken, fmt.Sprintf("watch %d: event of revision %d after one of %d", r.WatchId, at, w.last[r.WatchId]))
		}
		w.last[r.WatchId] = at
		w.logs[r.WatchId] = append(w.logs[r.WatchId], e)
	}
	if r.Header.GetRevision() < w.last[r.WatchId] {
		w.broken = append(w.broken, fmt.Sprintf("watch %d: header of revision %d with an event of %d", r.WatchId, r.Header.GetRevision(), w.last[r.WatchId]))
	}
	if r.CompactRevision != 0 || r.CancelReason != "" {
		w.broken = append(w.broken, fmt.Sprintf("watch %d: events with the signs of an end: %s", r.WatchId, text(r)))
	}
	if w.partial[r.WatchId] = r.Fragment; r.Fragment {
		w.pieces[r.WatchId]++
	}
}

// send sends a request as the side has it.
func (w *watchSide) send(r *pb.WatchRequest) error {
	w.sending.Lock()
	defer w.sending.Unlock()
	return w.stream.SendMsg(w.side.names.outward(r))
}

// wait waits until something holds, which is asked under the lock.
func (w *watchSide) wait(timeout time.Duration, holds func() bool) bool {
	after := time.After(timeout)
	for {
		w.mu.Lock()
		done, failed, changed := holds(), w.err != nil, w.changed
		w.mu.Unlock()
		if done || failed {
			return done
		}
		select {
		case <-changed:
		case <-after:
			return false
		}
	}
}

// watchPair is a stream on each side.
type watchPair struct {
	*pair
	ours, theirs *watchSide
	open         []int64          // Watches that can be cancelled.
	compared     map[int64][2]int // Items of each watch that were compared, of ours and of theirs.
	createdSeen  int
	ahead        bool // Watches begin now or later: no revision is asked for again.
}

// sentinel is the key of the first watch of each stream.
var sentinel = []byte("sentinel")

// newWatchPair opens a stream on each side, with a watch on the sentinel.
func newWatchPair(p *pair, ahead bool, meta ...string) *watchPair {
	p.t.Helper()
	st := emptyWatchPair(p, meta...)
	st.ahead = ahead
	st.create(&pb.WatchCreateRequest{Key: sentinel})
	st.open = nil // It stays.
	return st
}

func emptyWatchPair(p *pair, meta ...string) *watchPair {
	p.t.Helper()
	st := &watchPair{pair: p, compared: map[int64][2]int{}}
	ours, theirs := both(p, func(side *target) error {
		w, err := newWatchSide(p.t.Context(), side, meta)
		if side == p.ours {
			st.ours = w
		} else {
			st.theirs = w
		}
		return err
	})
	if ours != nil || theirs != nil {
		p.t.Fatal(ours, theirs)
	}
	p.t.Cleanup(st.close)
	return st
}

func (st *watchPair) sides() []*watchSide { return []*watchSide{st.ours, st.theirs} }

func (st *watchPair) close() {
	for _, w := range st.sides() {
		w.cancel()
	}
}

// send sends a request over both streams.
func (st *watchPair) send(r *pb.WatchRequest) {
	st.t.Helper()
	covered.request("Watch/Watch", r)
	for _, w := range st.sides() {
		if err := w.send(r); err != nil {
			w.mu.Lock()
			st.t.Errorf("%s: watch stream takes no more requests: %v (%v)", w.side.side, err, w.err)
			w.mu.Unlock()
		}
	}
}

// create asks for a watch, compares what both sides say to that, and returns
// its ID, -1 when it was refused.
func (st *watchPair) create(r *pb.WatchCreateRequest) int64 {
	st.t.Helper()
	st.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
	n := st.createdSeen + 1
	for _, w := range st.sides() {
		if !w.wait(settleTimeout, func() bool { return len(w.created) >= n }) {
			st.t.Errorf("%s%s: no answer to %s (%v)", st.place(), w.side.side, text(r), w.err)
			st.differences.Add(1)
			return -1
		}
	}
	st.createdSeen = n
	ours, theirs := st.ours.created[n-1].(*pb.WatchResponse), st.theirs.created[n-1].(*pb.WatchResponse)
	st.compare("Watch/Watch", r, answer{msg: ours}, answer{msg: theirs})
	if ours.CancelReason != "" {
		covered.words(ours.CancelReason)
	}
	if ours.Canceled {
		return -1
	}
	st.open = append(st.open, ours.WatchId)
	return ours.WatchId
}

// end cancels a watch, and waits for the answer where there must be one.
func (st *watchPair) end(id int64) {
	st.t.Helper()
	known := slices.Contains(st.open, id)
	st.send(cancelRequest(id))
	if !known {
		return
	}
	st.open = slices.DeleteFunc(st.open, func(x int64) bool { return x == id })
	for _, w := range st.sides() {
		ended := func() bool {
			log := w.logs[id]
			if len(log) <= w.born[id] {
				return false
			}
			r, ok := log[len(log)-1].(*pb.WatchResponse)
			return ok && r.Canceled
		}
		if !w.wait(settleTimeout, ended) {
			st.t.Errorf("%s%s: watch %d is cancelled without an answer (%v)", st.place(), w.side.side, id, w.err)
			st.differences.Add(1)
		}
	}
}

func progressRequest() *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
}

func cancelRequest(id int64) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}
}

// quiet waits until both sides have sent everything up to the present revision,
// which must be that of a put of the sentinel, and compares it. Nothing must
// change meanwhile. The event of the sentinel proves it where no watch has to
// catch up; else the proof is a progress notice, which comes only when nothing
// is owed, but never while a watch begins in the future.
func (st *watchPair) quiet(revision int64) {
	st.t.Helper()
	both(st.pair, func(side *target) any {
		w := st.ours
		if side == st.pair.theirs {
			w = st.theirs
		}
		st.catchUp(w, revision)
		return nil
	})
	st.compareLogs()
}

func (st *watchPair) catchUp(w *watchSide, revision int64) {
	if st.ahead {
		if !w.wait(settleTimeout, func() bool { return w.last[0] == revision }) {
			st.t.Errorf("%s%s: no event of the sentinel at revision %d (%v)", st.place(), w.side.side, revision, w.err)
			st.differences.Add(1)
		}
		return
	}
	var got int64
	told := func() bool { // By a notice of now: one that was asked for before may be late.
		if n := len(w.progress); n > 0 {
			got = w.progress[n-1].Header.GetRevision()
		}
		return got >= revision
	}
	for start := time.Now(); time.Since(start) < settleTimeout; {
		if err := w.send(progressRequest()); err != nil {
			break
		}
		if !w.wait(askAgain, told) {
			continue
		}
		if got != revision {
			st.t.Errorf("%s%s: progress notice of revision %d at %d", st.place(), w.side.side, got, revision)
			st.differences.Add(1)
		}
		return
	}
	st.t.Errorf("%s%s: a watch stream does not catch up with revision %d (%v)", st.place(), w.side.side, revision, w.err)
	st.differences.Add(1)
}

// level waits until both sides have sent as much. The responses for the watches
// of a stream come in no order, so that the sentinel's event may be early.
func (st *watchPair) level() {
	for start := time.Now(); time.Since(start) < settleTimeout; time.Sleep(5 * time.Millisecond) {
		level := true
		st.ours.mu.Lock()
		st.theirs.mu.Lock()
		for _, id := range ids(st.ours.logs, st.theirs.logs) {
			level = level && len(st.ours.logs[id])-st.compared[id][0] == len(st.theirs.logs[id])-st.compared[id][1]
		}
		st.theirs.mu.Unlock()
		st.ours.mu.Unlock()
		if level {
			return
		}
	}
}

// compareLogs compares what each watch has got since the last time.
func (st *watchPair) compareLogs() {
	st.t.Helper()
	st.level()
	for _, w := range st.sides() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, what := range w.broken {
			st.t.Errorf("%s%s: %s", st.place(), w.side.side, what)
			st.differences.Add(1)
		}
		w.broken = nil
		if w.err != nil {
			st.t.Errorf("%s%s: watch stream ended: %v", st.place(), w.side.side, w.err)
			st.differences.Add(1)
		}
	}
	for _, id := range ids(st.ours.logs, st.theirs.logs) {
		done := st.compared[id]
		st.compareLog(id, st.ours.logs[id][done[0]:], st.theirs.logs[id][done[1]:])
		st.compared[id] = [2]int{len(st.ours.logs[id]), len(st.theirs.logs[id])}
	}
}

func ids(logs ...map[int64][]proto.Message) []int64 {
	var all []int64
	for _, l := range logs {
		for id := range l {
			all = append(all, id)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (st *watchPair) compareLog(id int64, ours, theirs []proto.Message) {
	st.t.Helper()
	for i := range max(len(ours), len(theirs)) {
		mine, other := "nothing", "nothing"
		if i < len(ours) {
			mine = text(ours[i])
		}
		if i < len(theirs) {
			other = text(theirs[i])
		}
		if i >= len(ours) || i >= len(theirs) || !same(ours[i], theirs[i]) {
			st.t.Errorf("%swatch %d, new item %d\n  %-8s %s\n  %-8s %s", st.place(), id, i, st.ours.side.side, mine, st.theirs.side.side, other)
			st.differences.Add(1)
			return
		}
		if r, ok := ours[i].(*pb.WatchResponse); ok && r.Canceled && i+st.compared[id][0] >= st.ours.born[id] {
			st.open = slices.DeleteFunc(st.open, func(x int64) bool { return x == id })
		}
	}
}
