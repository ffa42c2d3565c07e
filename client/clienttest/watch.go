package clienttest

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// Watch serves one watcher a stream, which is all that this project's client
// asks for.
func (s *service) Watch(stream pb.Watch_WatchServer) error {
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	create := m.GetCreateRequest()
	if create == nil {
		return nil
	}
	w := &watcher{service: s, stream: stream, create: create, progress: make(chan struct{})}
	// Recv ends only when this method has returned, so nobody waits for it here.
	s.tasks.Go("receive", w.receive)
	return w.send(stream.Context())
}

type watcher struct {
	*service
	stream   pb.Watch_WatchServer
	create   *pb.WatchCreateRequest
	progress chan struct{}
	next     int64
}

func (w *watcher) receive(context.Context) error {
	for {
		m, err := w.stream.Recv()
		if err != nil {
			return nil
		}
		if m.GetProgressRequest() == nil {
			continue
		}
		select {
		case w.progress <- struct{}{}:
		case <-w.stream.Context().Done():
			return nil
		}
	}
}

func (w *watcher) send(ctx context.Context) error {
	w.store.mu.Lock()
	w.next = w.create.StartRevision
	if w.next == 0 {
		w.next = w.store.mu.revision + 1
	}
	created := &pb.WatchResponse{Header: w.headerLocked(), Created: true}
	w.store.mu.Unlock()
	if err := w.put(ctx, created); err != nil {
		return err
	}
	for {
		answer, changed := w.news()
		if answer != nil {
			if err := w.putFragments(ctx, answer); err != nil {
				return err
			}
			if answer.Canceled {
				changed = nil
			} else {
				continue
			}
		}
		select {
		case <-changed:
		case <-w.progress:
			w.store.mu.Lock()
			m := &pb.WatchResponse{Header: w.headerLocked(), WatchId: -1}
			w.store.mu.Unlock()
			if err := w.put(ctx, m); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// news is the next answer, or what to wait for.
func (w *watcher) news() (*pb.WatchResponse, <-chan struct{}) {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if w.next < w.store.mu.compacted {
		return &pb.WatchResponse{Header: &pb.ResponseHeader{}, Canceled: true, CompactRevision: w.store.mu.compacted}, nil
	}
	m := &pb.WatchResponse{Header: w.headerLocked()}
	for _, e := range w.store.mu.events {
		if e.Kv.ModRevision < w.next || !contains(w.create.Key, w.create.RangeEnd, e.Kv.Key) {
			continue
		}
		if slices.Contains(w.create.Filters, pb.WatchCreateRequest_FilterType(e.Type)) {
			continue
		}
		e = proto.CloneOf(e)
		if !w.create.PrevKv {
			e.PrevKv = nil
		}
		m.Events = append(m.Events, e)
	}
	w.next = max(w.next, w.store.mu.revision+1)
	if len(m.Events) == 0 {
		return nil, w.store.mu.changed
	}
	return m, nil
}

func (w *watcher) putFragments(ctx context.Context, m *pb.WatchResponse) error {
	w.cluster.mu.Lock()
	limit := w.cluster.mu.fragment
	w.cluster.mu.Unlock()
	if limit == 0 || !w.create.Fragment || len(m.Events) <= limit {
		return w.put(ctx, m)
	}
	pieces := slices.Collect(slices.Chunk(m.Events, limit))
	for i, events := range pieces {
		piece := &pb.WatchResponse{Header: m.Header, Events: []*mvccpb.Event(events), Fragment: i < len(pieces)-1}
		if err := w.put(ctx, piece); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) put(ctx context.Context, m *pb.WatchResponse) error {
	if err := w.speak(ctx); err != nil {
		return err
	}
	w.cluster.mu.Lock()
	watching := w.cluster.mu.faults.Watching
	w.cluster.mu.Unlock()
	if watching != nil {
		if err := watching(w.member, m); err != nil {
			return err
		}
	}
	return w.stream.Send(m)
}
