package linear

import (
	"context"
	"math/rand"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/tests/check"
)

// watcher follows some keys on one member after the other: when its stream
// ends, and now and then before, it goes on elsewhere behind what it has seen.
type watcher struct {
	run  *run
	id   int // Of the client in the history.
	name string
	rng  *rand.Rand
	req  *pb.WatchCreateRequest
	feed *shadow // Takes what is seen; nil for most.
	each func(*pb.WatchResponse)

	wires []*wire
	place int
	next  atomic.Int64 // What to resume at, 0 before anything was seen.
	mark  atomic.Int64 // Everything up to here was seen.
	last  *check.Watch // Of its streams, that got an answer. Owned by follow.
}

func (r *run) newWatcher(name string, id int, req *pb.WatchCreateRequest) (*watcher, error) {
	w := &watcher{run: r, name: name, id: id, req: req, rng: rand.New(rand.NewSource(r.s.Seed ^ int64(id)*104729))}
	w.place = id % r.s.Members
	for _, m := range r.cluster.Members {
		c, err := connect(m.ClientURL, r.secure, r.mesh.Dial)
		if err != nil {
			return nil, err
		}
		w.wires = append(w.wires, c)
	}
	return w, nil
}

// follow watches until ctx ends.
func (w *watcher) follow(ctx context.Context) {
	defer func() {
		for _, c := range w.wires {
			c.Close()
		}
	}()
	resumes := 0
	for ctx.Err() == nil {
		req := proto.Clone(w.req).(*pb.WatchCreateRequest)
		if next := w.next.Load(); next > 0 {
			req.StartRevision = next
		}
		resumes = w.stream(ctx, req, resumes)
		w.place = (w.place + 1 + w.rng.Intn(len(w.wires))) % len(w.wires)
		sleep(ctx, 50*time.Millisecond)
	}
}

// stream is one watch on one member. It returns the ID of what is to be
// resumed.
func (w *watcher) stream(ctx context.Context, req *pb.WatchCreateRequest, resumes int) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A member that is stopped or cut off answers nothing: then elsewhere.
	quiet := time.AfterFunc(quietMax, cancel)
	defer quiet.Stop()
	seen := check.Watch{Client: w.id, Member: w.run.memberAt(w.place), Call: w.run.rec.now(), Resumes: resumes, Request: req}
	stream, err := w.wires[w.place].watch.Watch(ctx)
	if err != nil {
		return resumes
	}
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}})
	if err != nil {
		return resumes
	}
	ask := time.Duration(500+w.rng.Intn(500)) * time.Millisecond
	stopAsking := w.askProgress(ctx, stream, ask)
	defer stopAsking()
	move := time.AfterFunc(time.Duration(2+w.rng.Intn(6))*time.Second, cancel)
	defer move.Stop()
	var rec *check.Watch
	for {
		res, err := stream.Recv()
		if err != nil {
			return resumes
		}
		quiet.Reset(quietMax)
		if rec == nil {
			rec = w.run.rec.watch(seen)
			resumes = rec.ID
			w.last = rec
		}
		w.run.rec.saw(rec, res)
		if !w.take(req, res) {
			if res.CompactRevision > 0 {
				return 0 // What comes next does not continue this: there is a gap, and it was told.
			}
			return resumes
		}
		if w.feed == nil && w.rng.Intn(150) == 0 {
			sleep(ctx, time.Duration(w.rng.Intn(1500))*time.Millisecond) // What comes too fast is not left out.
		}
	}
}

// quietMax is how long a watch is followed on which nothing comes, not even the
// progress that is asked for.
const quietMax = 3 * time.Second

// askProgress asks for marks as long as the stream lives.
func (w *watcher) askProgress(ctx context.Context, stream pb.Watch_WatchClient, each time.Duration) (stop func()) {
	done := make(chan struct{})
	go func() { // Ends with the stream.
		defer close(done)
		for sleep(ctx, each); ctx.Err() == nil; sleep(ctx, each) {
			if stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}) != nil {
				return
			}
		}
	}()
	return func() { stream.CloseSend(); <-done }
}

// take works off an answer and tells whether the watch goes on.
func (w *watcher) take(req *pb.WatchCreateRequest, res *pb.WatchResponse) bool {
	if w.each != nil {
		w.each(res)
	}
	if res.Canceled {
		if res.CompactRevision > 0 {
			w.next.Store(res.CompactRevision)
		}
		return false
	}
	if w.feed != nil {
		w.feed.add(res.Events)
	}
	seen := int64(0)
	if n := len(res.Events); n > 0 {
		if seen = res.Events[n-1].Kv.ModRevision; res.Fragment {
			seen-- // More of the same revision may come.
		}
	} else if !res.Created {
		seen = res.Header.Revision // A mark: nothing up to here is missing.
	} else if w.next.Load() == 0 && req.StartRevision == 0 {
		w.next.Store(res.Header.Revision + 1) // It began now.
	}
	if seen > 0 && seen >= w.next.Load() {
		w.next.Store(seen + 1)
		w.mark.Store(seen)
	}
	return true
}

// end tells of a watcher that is at work no more whether its last watch must
// have everything.
func (w *watcher) end(head int64) {
	if w.last != nil {
		w.last.Open = w.mark.Load() >= head
	}
}

// reached tells whether the watcher has seen all there is up to a revision, or
// waits for one that is later.
func (w *watcher) reached(rev int64) bool {
	return w.mark.Load() >= rev || w.next.Load() == 0 && w.req.StartRevision > rev
}

// watchKinds are what a watch can be asked for.
func watchKinds(rng *rand.Rand, prefix string, head int64) *pb.WatchCreateRequest {
	r := &pb.WatchCreateRequest{Key: []byte(prefix), RangeEnd: prefixEnd(prefix), PrevKv: rng.Intn(2) == 0, ProgressNotify: rng.Intn(2) == 0, Fragment: rng.Intn(2) == 0}
	switch rng.Intn(4) {
	case 0: // From now.
	case 1:
		r.StartRevision = 1
	case 2:
		r.StartRevision = max(1, head-rng.Int63n(50))
	case 3:
		r.StartRevision = head + rng.Int63n(200)
	}
	switch rng.Intn(6) {
	case 0:
		r.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}
	case 1:
		r.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}
	}
	return r
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
