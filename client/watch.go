package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Watch says which changes to report.
type Watch struct {
	Range
	Revision int64 // The first of interest, past or future. Zero: the one after the watch is in force.
	PrevKV   bool  // With what was there before.
	NoPut    bool
	NoDelete bool
	Progress bool // Report now and then how far an idle watch has come.
	Created  bool // Report once when the watch is in force.
}

// Watcher reports the changes of a range in order, each exactly once, whatever
// happens to connections and members meanwhile. It has a stream of its own: a
// slow reader holds up nobody else.
type Watcher struct {
	client  *Client
	watch   Watch
	ctx     context.Context
	cancel  context.CancelFunc
	reports chan *pb.WatchResponse
	err     error // Set before reports is closed.

	// Owned by run.
	next    int64 // The first revision not reported yet. Zero: not known yet.
	created bool  // The watch has been in force.
	partial *pb.WatchResponse

	mu struct { // Also held while sending: a stream takes one message at a time.
		sync.Mutex
		stream  pb.Watch_WatchClient // Nil between streams.
		created bool                 // The server knows the watcher of this stream.
	}
}

// Watch begins to watch. It does not wait until the watch is in force; what
// happens meanwhile is reported if Revision says so. The watch ends with ctx.
func (c *Client) Watch(ctx context.Context, w Watch) *Watcher {
	ctx, cancel := context.WithCancel(ctx)
	watcher := &Watcher{
		client: c, watch: w, ctx: requireLeader(ctx), cancel: cancel,
		reports: make(chan *pb.WatchResponse), next: w.Revision,
	}
	if !c.start("watch", watcher.run) {
		watcher.end(ErrClosed)
	}
	return watcher
}

// Reports delivers what is seen: events of one or more whole revisions, or none
// where progress was asked for; then Header.Revision tells that everything up to
// there has been delivered. The channel is closed when the watch has ended, and
// Err tells why.
func (w *Watcher) Reports() <-chan *pb.WatchResponse { return w.reports }

// Err is why the watch ended: nil after Cancel or the end of its context, a
// *CompactedError if the next event is gone, or what the server refused it for.
// Only valid once Reports is closed.
func (w *Watcher) Err() error { return w.err }

// Cancel ends the watch. Reports may still deliver one more before it closes.
func (w *Watcher) Cancel() { w.cancel() }

// RequestProgress asks for a report of how far the watch has come. The server
// gives none while it is still catching up.
func (w *Watcher) RequestProgress() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.stream == nil || !w.mu.created {
		return ErrNotWatching
	}
	return w.mu.stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{
		ProgressRequest: &pb.WatchProgressRequest{},
	}})
}

func (w *Watcher) end(err error) {
	w.cancel()
	w.err = err
	close(w.reports)
}

// run keeps a stream open until the watch ends.
func (w *Watcher) run(closed context.Context) {
	stop := context.AfterFunc(closed, w.cancel)
	defer stop()
	delay := retryDelayMin
	for {
		before := w.next
		ctx, made := w.client.attempt(w.ctx)
		err := w.follow(ctx)
		switch {
		case closed.Err() != nil:
			w.end(ErrClosed)
			return
		case w.ctx.Err() != nil:
			w.end(nil)
			return
		case !w.client.tokenRefused(err, made) && !resumable(err):
			w.end(err)
			return
		}
		w.client.config.Logger.Debug("watch lost its stream, resuming", "revision", w.next, "error", err)
		if w.next != before {
			delay = retryDelayMin // The last stream was of use.
		}
		w.client.pause(w.ctx, &delay)
	}
}

// follow lives as long as one stream does, and says why it ended.
func (w *Watcher) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := w.client.watch.Watch(ctx)
	if err != nil {
		return fromWire(err)
	}
	w.partial = nil // The rest of it will not come: the whole of it comes again.
	w.setStream(stream, false)
	defer w.setStream(nil, false)
	if err := w.send(stream, w.createRequest()); err != nil && err != io.EOF {
		return fromWire(err) // At EOF Recv says more.
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return fromWire(err)
		}
		if err := w.receive(stream, m); err != nil {
			return err
		}
	}
}

func (w *Watcher) setStream(stream pb.Watch_WatchClient, created bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.stream, w.mu.created = stream, created
}

func (w *Watcher) send(stream pb.Watch_WatchClient, m *pb.WatchRequest) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return stream.Send(m)
}

func (w *Watcher) createRequest() *pb.WatchRequest {
	create := &pb.WatchCreateRequest{
		Key: []byte(w.watch.Key), RangeEnd: []byte(w.watch.End), StartRevision: w.next,
		ProgressNotify: w.watch.Progress, PrevKv: w.watch.PrevKV, Fragment: true,
	}
	if w.watch.NoPut {
		create.Filters = append(create.Filters, pb.WatchCreateRequest_NOPUT)
	}
	if w.watch.NoDelete {
		create.Filters = append(create.Filters, pb.WatchCreateRequest_NODELETE)
	}
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}
}

// receive handles one answer. An error ends the stream.
func (w *Watcher) receive(stream pb.Watch_WatchClient, m *pb.WatchResponse) error {
	switch {
	case m.Canceled:
		return w.refusal(m)
	case m.Created:
		w.setStream(stream, true)
		if w.next == 0 {
			w.next = m.GetHeader().GetRevision() + 1
		}
		if w.created || !w.watch.Created {
			w.created = true
			return nil
		}
		w.created = true
		return w.deliver(m)
	case len(m.Events) == 0:
		if w.partial != nil {
			return nil // How far the watch has come is not true before the rest is here.
		}
		if next := m.GetHeader().GetRevision() + 1; next > w.next {
			w.next = next // Nothing up to there is still to come.
		}
		return w.deliver(m)
	}
	return w.join(m)
}

// join puts the pieces of an answer together, and delivers it when it is whole.
func (w *Watcher) join(m *pb.WatchResponse) error {
	if w.partial == nil {
		w.partial = m
	} else {
		w.partial.Events = append(w.partial.Events, m.Events...)
	}
	if m.Fragment {
		return nil
	}
	whole := w.partial
	w.partial, whole.Fragment = nil, false
	// A member that is behind another may send what has been seen already only
	// if it ignores where the watch starts: better to drop it than to repeat it.
	for len(whole.Events) > 0 && whole.Events[0].GetKv().GetModRevision() < w.next {
		whole.Events = whole.Events[1:]
	}
	if len(whole.Events) == 0 {
		return nil
	}
	w.next = whole.Events[len(whole.Events)-1].GetKv().GetModRevision() + 1
	return w.deliver(whole)
}

func (w *Watcher) deliver(m *pb.WatchResponse) error {
	select {
	case w.reports <- m:
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// refusal is why the server ended the watch.
func (w *Watcher) refusal(m *pb.WatchResponse) error {
	reason := m.CancelReason
	if m.CompactRevision != 0 || reason == ErrCompacted.Error() {
		return &CompactedError{Revision: w.next, Compacted: m.CompactRevision}
	}
	if reason == "" {
		return ErrWatchCanceled
	}
	// Where a check refused it, the reason is a whole gRPC error in words.
	if _, text, found := strings.Cut(reason, " desc = "); found {
		reason = text
	}
	return fromText(codes.Canceled, reason, fmt.Errorf("%w: %s", ErrWatchCanceled, reason))
}

// resumable reports whether another stream may do better: the connection broke,
// or the member stopped or lost its leader. What the server refused it refuses
// again.
func resumable(err error) bool {
	var compacted *CompactedError
	if err == io.EOF {
		return true
	}
	if errors.As(err, &compacted) || errors.Is(err, ErrWatchCanceled) {
		return false
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.Internal, codes.Canceled:
		return true // Canceled: by the server as it stops. Our own end is checked before.
	}
	return false
}
