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
	service *Service
	stream  kubepb.ClusterState_WatchServer
	request *auth.Request
	as      view
	out     outgoing
}

func (s *Service) watch(r *kubepb.WatchRequest, stream kubepb.ClusterState_WatchServer) error {
	ctx := stream.Context()
	p, err := newPick(r.GetKind(), r.GetNamespace(), r.GetLabelSelector(), r.GetFieldSelector())
	if err != nil {
		return err
	}
	as, err := viewOf(ctx, p, r.GetEncoding())
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
		watcher: &watcher{pick: p, wake: make(chan struct{}, 1)}, service: s, stream: stream, request: p.request(id, auth.Watch), as: as,
	}
	if err := s.authorize(w.request); err != nil {
		return err
	}
	is, err := s.standsBy(ctx)
	if err != nil {
		return err
	}
	listed, revision, err := s.cache.join(w.watcher, r.ResourceVersion)
	if err != nil {
		return err
	}
	defer s.cache.leave(w.watcher)
	if is.history() != 0 { // Before anything else: what follows may be older than what the watcher knows.
		if err := stream.Send(&kubepb.WatchResponse{History: is.history()}); err != nil {
			return err
		}
	}
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
	is := c.at.Load()
	if is.closed {
		w.expire()
	}
	shelf.crowd.add(w)
	return listed, is.revision, nil
}

func (c *cache) leave(w *watcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.shelves[w.pick.kind].crowd.remove(w)
}

// now is what waits for a watcher, and the revision up to which that is all.
func (c *cache) now(w *watcher) (events []*event, revision int64, expired bool) {
	revision = c.revision() // First: what it has is in the queue.
	events, expired = w.take()
	return events, revision, expired
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
	case before && after && w.as.reduced && sameReduced(e.old, e.new):
		return nil
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
	wire  []wireEvent
	size  int // Of the message in wire form.
	local []*kubepb.WatchEvent
}

// wireEvent is an event whose object is encoded already, once for all who watch.
type wireEvent struct {
	kind   kubepb.WatchEvent_Type
	object []byte
}

// Field numbers of WatchResponse and WatchEvent.
const (
	responseEvents = 1
	eventType      = 1
	eventObject    = 2
)

// inner is the size of an event, all of it what it takes in a message.
func (e *wireEvent) inner() int {
	return protowire.SizeTag(eventType) + protowire.SizeVarint(uint64(e.kind)) + protowire.SizeTag(eventObject) + protowire.SizeBytes(len(e.object))
}

func (e *wireEvent) all() int {
	return protowire.SizeTag(responseEvents) + protowire.SizeBytes(e.inner())
}

// ReadySize and EncodeReady implement codec.Ready.
func (o *outgoing) ReadySize() int { return o.size }
func (o *outgoing) EncodeReady(to *codec.Encoder) {
	for i := range o.wire {
		e := &o.wire[i]
		object := protowire.SizeTag(eventObject) + protowire.SizeBytes(len(e.object))
		b := to.Reserve(e.all() - object)[:0]
		b = protowire.AppendTag(b, responseEvents, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(e.inner()))
		b = protowire.AppendTag(b, eventType, protowire.VarintType)
		protowire.AppendVarint(b, uint64(e.kind))
		to.Message(eventObject, e.object)
	}
}

func (w *watching) send(t kubepb.WatchEvent_Type, e *entry) error {
	if _, ok := w.stream.(localWatch); ok {
		m, err := e.message(w.as)
		if err != nil {
			return err
		}
		return w.addLocal(&kubepb.WatchEvent{Type: t, Object: m})
	}
	object, err := e.wire(w.as)
	if err != nil {
		return err
	}
	return w.addWire(wireEvent{t, object})
}

// mark sends an event that tells a revision.
func (w *watching) mark(t kubepb.WatchEvent_Type, revision int64) error {
	m := &kubepb.Object{Kind: w.pick.kind.Name, ApiVersion: w.pick.kind.APIVersion, ResourceVersion: revision}
	if _, ok := w.stream.(localWatch); ok {
		return w.addLocal(&kubepb.WatchEvent{Type: t, Object: m})
	}
	object, err := m.MarshalVT()
	if err != nil {
		return err
	}
	return w.addWire(wireEvent{t, object})
}

func (w *watching) addLocal(e *kubepb.WatchEvent) error {
	w.out.local = append(w.out.local, e)
	if len(w.out.local) >= watchBatchEvents {
		return w.flush()
	}
	return nil
}

func (w *watching) addWire(e wireEvent) error {
	w.out.wire = append(w.out.wire, e)
	w.out.size += e.all()
	if len(w.out.wire) >= watchBatchEvents || w.out.size >= watchBatchBytes {
		return w.flush()
	}
	return nil
}

func (w *watching) flush() error {
	out := w.out
	w.out = outgoing{}
	switch {
	case len(out.local) > 0:
		return w.stream.Send(&kubepb.WatchResponse{Events: out.local})
	case len(out.wire) > 0:
		return w.stream.SendMsg(&out)
	}
	return nil
}
