package state

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/codec"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Watch implements kubepb.ClusterStateServer.
func (s *Service) Watch(r *kubepb.WatchRequest, stream kubepb.ClusterState_WatchServer) error {
	return toWire(s.watch(r, stream))
}

// watching is one call of Watch.
type watching struct {
	*watcher
	service  *Service
	stream   kubepb.ClusterState_WatchServer
	request  *auth.Request
	encoding kubepb.Encoding
	out      outgoing
}

func (s *Service) watch(r *kubepb.WatchRequest, stream kubepb.ClusterState_WatchServer) error {
	ctx := stream.Context()
	p, err := newPick(r.GetKind(), r.GetNamespace(), r.GetLabelSelector(), r.GetFieldSelector())
	if err != nil {
		return err
	}
	encoding, err := checkEncoding(r.GetEncoding())
	if err != nil {
		return err
	}
	id, err := auth.Of(ctx)
	if err != nil {
		return err
	}
	if err := s.at(ctx, r.ResourceVersion); err != nil {
		return err
	}
	w := &watching{
		watcher: &watcher{pick: p, wake: make(chan struct{}, 1)}, service: s, stream: stream, request: p.request(id, auth.Watch), encoding: encoding,
	}
	if err := s.authorize(w.request); err != nil {
		return err
	}
	listed, revision, err := s.cache.join(w.watcher, r.ResourceVersion)
	if err != nil {
		return err
	}
	defer s.cache.leave(w.watcher)
	if r.ResourceVersion == 0 {
		if err := w.sendList(listed, revision); err != nil {
			return err
		}
	}
	return w.run(ctx, r.Bookmarks)
}

// join adds a watcher that begins after a revision; 0: now, with what there is.
func (c *cache) join(w *watcher, after int64) (listed []*entry, revision int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	shelf := c.mu.shelves[w.pick.kind]
	if after == 0 {
		listed = shelf.find(w.pick, "")
	} else {
		missed, ok := shelf.ring.since(after)
		if !ok {
			return nil, 0, fmt.Errorf("watch of %s from revision %d: %w", w.pick.kind.Resource, after, errExpired)
		}
		for _, e := range missed {
			if w.pick.concerns(e) {
				w.mu.queue = append(w.mu.queue, e)
			}
		}
		w.rouse()
	}
	if c.mu.closed {
		w.expire()
	}
	shelf.crowd.add(w)
	return listed, c.mu.revision, nil
}

func (c *cache) leave(w *watcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.shelves[w.pick.kind].crowd.remove(w)
}

// now is what waits for a watcher, and the revision up to which that is all.
func (c *cache) now(w *watcher) (events []*event, revision int64, expired bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	events, expired = w.take()
	return events, c.mu.revision, expired
}

// sendList tells what there is.
func (w *watching) sendList(listed []*entry, revision int64) error {
	for _, e := range listed {
		if err := w.send(kubepb.WatchEvent_ADDED, e); err != nil {
			return err
		}
	}
	if err := w.mark(kubepb.WatchEvent_SYNCED, revision); err != nil {
		return err
	}
	return w.flush()
}

// run sends events until the watch ends.
func (w *watching) run(ctx context.Context, bookmarks bool) error {
	var beats <-chan time.Time // Never, without bookmarks.
	if bookmarks {
		t := w.service.clock.NewTicker(bookmarkInterval)
		defer t.Stop()
		beats = t.C()
	}
	for {
		beat := false
		select {
		case <-w.wake:
		case <-beats:
			beat = true
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := w.deliver(beat); err != nil {
			return err
		}
	}
}

// deliver sends what waits, or else how far the watch is if that is wanted.
func (w *watching) deliver(bookmark bool) error {
	events, revision, expired := w.service.cache.now(w.watcher)
	if expired {
		return fmt.Errorf("watch of %s: %w", w.pick.kind.Resource, errExpired)
	}
	if len(events) > 0 && w.mayEnd() {
		if err := w.service.authorize(w.request); err != nil {
			return err
		}
	}
	for _, e := range events {
		if err := w.tell(e); err != nil {
			return err
		}
	}
	if bookmark && len(events) == 0 {
		if err := w.mark(kubepb.WatchEvent_BOOKMARK, revision); err != nil {
			return err
		}
	}
	return w.flush()
}

// mayEnd reports whether what the caller may see depends on other objects.
func (w *watching) mayEnd() bool {
	_, node := w.request.Identity.NodeName()
	return node && (w.pick.kind == api.Secret || w.pick.kind == api.ConfigMap)
}

// tell sends an event as it looks through the selectors.
func (w *watching) tell(e *event) error {
	before, after := w.pick.matches(e.old), w.pick.matches(e.new)
	switch {
	case before && after:
		return w.send(kubepb.WatchEvent_MODIFIED, e.new)
	case after:
		return w.send(kubepb.WatchEvent_ADDED, e.new)
	case before && e.new == nil:
		return w.send(kubepb.WatchEvent_DELETED, e.last)
	case before:
		// As it was last: what it has become is none of the watcher's business.
		return w.send(kubepb.WatchEvent_DELETED, e.old.at(e.new.revision))
	}
	return nil
}

// outgoing is what the next message will hold: in wire form for streams of the
// network, as shared messages for those of this process.
type outgoing struct {
	count int
	wire  []byte
	local []*kubepb.WatchEvent
}

// Field numbers of WatchResponse and WatchEvent.
const (
	responseEvents = 1
	eventType      = 1
	eventObject    = 2
)

func (w *watching) send(t kubepb.WatchEvent_Type, e *entry) error {
	if _, ok := w.stream.(localWatch); ok {
		m, err := e.message(w.encoding)
		if err != nil {
			return err
		}
		w.out.local = append(w.out.local, &kubepb.WatchEvent{Type: t, Object: m})
		return w.added()
	}
	object, err := e.wire(w.encoding)
	if err != nil {
		return err
	}
	size := 1 + protowire.SizeVarint(uint64(t)) + 1 + protowire.SizeBytes(len(object))
	b := protowire.AppendTag(w.out.wire, responseEvents, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = protowire.AppendTag(b, eventType, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(t))
	b = protowire.AppendTag(b, eventObject, protowire.BytesType)
	w.out.wire = protowire.AppendBytes(b, object)
	return w.added()
}

// mark sends an event that tells a revision.
func (w *watching) mark(t kubepb.WatchEvent_Type, revision int64) error {
	e := &kubepb.WatchEvent{Type: t, Object: &kubepb.Object{Kind: w.pick.kind.Name, ApiVersion: w.pick.kind.APIVersion, ResourceVersion: revision}}
	if _, ok := w.stream.(localWatch); ok {
		w.out.local = append(w.out.local, e)
		return w.added()
	}
	b, err := e.MarshalVT()
	if err != nil {
		return err
	}
	w.out.wire = protowire.AppendBytes(protowire.AppendTag(w.out.wire, responseEvents, protowire.BytesType), b)
	return w.added()
}

func (w *watching) added() error {
	w.out.count++
	if w.out.count >= watchBatchEvents || len(w.out.wire) >= watchBatchBytes {
		return w.flush()
	}
	return nil
}

func (w *watching) flush() error {
	if w.out.count == 0 {
		return nil
	}
	out := w.out
	w.out = outgoing{}
	if out.local != nil {
		return w.stream.Send(&kubepb.WatchResponse{Events: out.local})
	}
	return w.stream.SendMsg(codec.Encoded(out.wire))
}
