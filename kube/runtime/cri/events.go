package cri

import (
	"context"
	"sync/atomic"
	"time"

	api "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// eventsRetry is after how long a broken stream of events is opened again. What happens
// meanwhile is seen by looking.
const eventsRetry = time.Second

// listen gives the UIDs of pods of which the runtime tells an event. What it returns is
// true while it does.
func (e *Engine) listen(ctx context.Context, events chan<- string) *atomic.Bool {
	heard := &atomic.Bool{}
	e.tasks.Go("cri-events", func(ctx context.Context) error {
		for {
			old := e.receive(ctx, heard, events)
			heard.Store(false)
			if old {
				return nil // It has none; looking is all there is.
			}
			if err := e.pause(ctx, eventsRetry); err != nil {
				return err
			}
		}
	})
	return heard
}

// receive gives events until the stream ends, and reports whether the runtime has none at all.
func (e *Engine) receive(ctx context.Context, heard *atomic.Bool, events chan<- string) (old bool) {
	stream, err := e.runtime.GetContainerEvents(ctx, &api.GetEventsRequest{})
	if err != nil {
		return unknownCall(err)
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			return unknownCall(err)
		}
		heard.Store(true) // Only now: some runtimes have the stream and never say anything.
		uid := e.uidOf(event)
		if uid == "" {
			continue
		}
		select {
		case events <- uid:
		case <-ctx.Done():
			return false
		}
	}
}
