package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/watch"
	"github.com/holdfast-db/holdfast/proto/codec"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/statemachine/auth"
)

// watchService answers etcdserverpb.Watch.
type watchService struct {
	pb.UnimplementedWatchServer
	*core
}

// Watch carries any number of watchers. One goroutine takes what the client
// asks, this one sends what the hub has for it.
func (s *watchService) Watch(stream pb.Watch_WatchServer) error {
	w := &watchStream{core: s.core, grpc: stream, hub: s.hub.NewStream(), compression: compressionOf(stream.Context())}
	w.mu.fragment = map[int64]bool{}
	w.mu.idle = map[int64]bool{}
	defer w.hub.Close()
	interval, err := s.progressInterval()
	if err != nil {
		return toWire(err)
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	// Nobody waits for the group: Recv returns only after this handler has.
	group := task.New(ctx)
	defer group.Stop()
	group.Go("watch requests", func(ctx context.Context) error {
		if err := w.receive(ctx); err != nil {
			cancel(err)
		}
		return nil
	})
	group.Go("watch progress", func(ctx context.Context) error { return w.tick(ctx, interval) })
	return s.endOf(stream.Context(), w.send(ctx))
}

// endOf is what a client is told at the end of a stream.
func (s *watchService) endOf(ctx context.Context, err error) error {
	switch {
	case errors.Is(context.Cause(ctx), errNoLeader):
		return errNoLeader
	case errors.Is(err, context.Canceled):
		return errWatchCanceled
	case errors.Is(err, watch.ErrClosed):
		return errStopped
	}
	return toWire(err)
}

// progressInterval spreads the notices of many streams a little.
func (s *watchService) progressInterval() (time.Duration, error) {
	interval := max(s.cfg.WatchProgressInterval, watchProgressIntervalMin)
	r, err := s.random()
	return interval + time.Duration(r%uint64(interval/10)), err
}

type watchStream struct {
	*core
	grpc        pb.Watch_WatchServer
	hub         *watch.Stream
	compression string
	special     atomic.Bool // Some watcher is in a map below.

	mu struct {
		sync.Mutex
		fragment map[int64]bool // Watchers that take large answers in parts.
		idle     map[int64]bool // Watchers that want notices: whether nothing was sent since the last tick.
	}
}

// receive takes what the client asks, no faster than it is told what came of it.
func (w *watchStream) receive(ctx context.Context) error {
	for {
		if err := w.hub.Room(ctx); err != nil {
			return err
		}
		r, err := w.grpc.Recv()
		if errors.Is(err, io.EOF) {
			return nil // The client asks nothing more, but goes on listening.
		}
		if err != nil {
			return err
		}
		switch u := r.RequestUnion.(type) {
		case *pb.WatchRequest_CreateRequest:
			if u.CreateRequest != nil {
				w.create(u.CreateRequest)
			}
		case *pb.WatchRequest_CancelRequest:
			if u.CancelRequest != nil {
				w.hub.Cancel(u.CancelRequest.WatchId)
			}
		case *pb.WatchRequest_ProgressRequest:
			w.hub.Progress(watch.AllWatchers)
		}
	}
}

func (w *watchStream) create(r *pb.WatchCreateRequest) {
	req := watch.Request{
		ID: r.WatchId, Key: r.Key, End: r.RangeEnd, Start: ident.Revision(r.StartRevision), PrevKV: r.PrevKv,
	}
	if len(req.Key) == 0 {
		req.Key = []byte{0} // The smallest key there is.
	}
	if r.StartRevision >= 0 && w.authOn() {
		err := w.permit(w.grpc.Context(), func(a *auth.Asker) error { return a.Watch(req.Key, r.RangeEnd) })
		if err != nil {
			w.hub.Refuse(err)
			return
		}
	}
	for _, f := range r.Filters {
		switch f {
		case pb.WatchCreateRequest_NOPUT:
			req.NoPut = true
		case pb.WatchCreateRequest_NODELETE:
			req.NoDelete = true
		}
	}
	w.mu.Lock() // Before the first answer can be sent.
	defer w.mu.Unlock()
	id, err := w.hub.Watch(req)
	if err != nil {
		w.hub.Refuse(err)
		return
	}
	if r.Fragment {
		w.mu.fragment[id] = true
	}
	if r.ProgressNotify {
		w.mu.idle[id] = true
	}
	if r.Fragment || r.ProgressNotify {
		w.special.Store(true)
	}
}

// tick asks for a notice for each watcher that wants them and got nothing
// since the last time.
func (w *watchStream) tick(ctx context.Context, interval time.Duration) error {
	return every(ctx, w.cfg.Clock, interval, func() {
		w.mu.Lock()
		for id, idle := range w.mu.idle { //tidy:ordered each by itself
			if idle {
				w.hub.Progress(id)
			}
			w.mu.idle[id] = true
		}
		w.mu.Unlock()
	})
}

func (w *watchStream) send(ctx context.Context) error {
	for {
		b, err := w.hub.Next(ctx)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return err
		}
		fail.Here("watch/send/before")
		if err := w.sendBatch(b); err != nil {
			return err
		}
	}
}

func (w *watchStream) sendBatch(b watch.Batch) error {
	if b.Kind == watch.Events {
		return w.sendEvents(b)
	}
	answer := w.answer(b)
	h := answer.Header
	switch b.Kind {
	case watch.Created:
		answer.Created = true
	case watch.Canceled:
		w.forget(b.ID)
		answer.Canceled = true
		if answer.CompactRevision = int64(b.Compact); b.Compact == 0 {
			h.Revision = int64(w.replica.Store().Head())
		}
		if b.Err != nil {
			answer.CancelReason = toWire(b.Err).Error()
		}
	case watch.Refused:
		h.Revision = int64(w.replica.Store().Head())
		answer.Created, answer.Canceled = true, true
		answer.CancelReason = refusal(b.Err)
	}
	return w.grpc.SendMsg(answer)
}

// answer is what the answers of all kinds begin with.
func (w *watchStream) answer(b watch.Batch) *codec.WatchReady {
	h := w.headerWithoutRevision()
	h.Revision = int64(b.Revision)
	return &codec.WatchReady{Header: h, WatchID: b.ID, Events: b.Events}
}

// refusal says why a watcher was not created, in the words of the protocol.
func refusal(err error) string {
	switch {
	case errors.Is(err, watch.ErrDuplicateID):
		return "mvcc: duplicate watch ID provided on the WatchStream"
	case errors.Is(err, watch.ErrEmptyRange):
		return "mvcc: watcher range is empty"
	case errors.Is(err, mvcc.ErrCompacted):
		return status.Convert(errCompacted).Message()
	}
	return toWire(err).Error()
}

// sendEvents sends whole revisions, in parts if the client asked for that and
// the answer is large.
func (w *watchStream) sendEvents(b watch.Batch) error {
	fragment := w.special.Load() && w.sending(b.ID)
	if b.Shared != nil { // Small: no need to look at fragment.
		return w.sendShared(b)
	}
	limit := w.cfg.RequestBytesMax + receiveOverheadBytes
	answer := w.answer(b)
	if !fragment || len(b.Events) < 2 || answer.ReadySize() <= limit {
		return w.grpc.SendMsg(answer)
	}
	rest := b.Events
	for len(rest) > 0 {
		n, size := 1, len(rest[0])
		for n < len(rest) && size+len(rest[n]) <= limit {
			size += len(rest[n])
			n++
		}
		part := *answer
		part.Events, part.Fragment = rest[:n], n < len(rest)
		if err := w.grpc.SendMsg(&part); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// sending notes that a watcher is not idle, and reports whether it takes large
// answers in parts.
func (w *watchStream) sending(id int64) (fragment bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.mu.idle[id]; ok {
		w.mu.idle[id] = false
	}
	return w.mu.fragment[id]
}

// sendShared sends what other streams may send as well. It is encoded, and framed as a
// message of gRPC, once: with a thousand watchers that is a tenth of all that an event
// costs.
func (w *watchStream) sendShared(b watch.Batch) error {
	form := watch.Form{ID: b.ID, Term: uint64(w.node.Term()), Compression: w.compression}
	message, err := b.Shared.Encoding(form, func() (any, error) {
		m := &grpc.PreparedMsg{}
		return m, m.Encode(w.grpc, w.answer(b).Encode())
	})
	if err != nil {
		return err
	}
	return w.grpc.SendMsg(message)
}

// compressionOf is how the messages of a stream are compressed. Streams alike may send
// the same prepared message.
func compressionOf(ctx context.Context) string {
	s, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ SendCompress() string })
	if !ok {
		return ""
	}
	return s.SendCompress()
}

func (w *watchStream) forget(id int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.mu.fragment, id)
	delete(w.mu.idle, id)
}
