package tunnel

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Following is who follows a log. All fields are required.
type Following struct {
	Clock clock.Clock
	// Lost hears, once each time, that the log could not be followed any more and is
	// asked for again.
	Lost func(err error)
	// Gap hears that the log does not go on where it was left: what was between is gone.
	Gap func()
}

// Follow writes what a container writes until it has ended, as Logs does, and goes on
// where the node or the control plane was lost: a pod outlives its kubelet. Nothing is
// left out by that and nothing written twice, as the node tells places in the log: asked
// for what comes after one, it answers with the same bytes again, of which those that
// were written already are dropped.
func Follow(ctx context.Context, rpc kubepb.ClusterStateClient, r *kubepb.LogsRequest, w io.Writer, of Following) error {
	f := &follower{Following: of, rpc: rpc, request: r, w: w}
	for {
		err := f.session(ctx)
		if err == nil || ctx.Err() != nil || !f.again(err) {
			return err
		}
		if f.tries == 0 {
			f.since, f.delay = f.Clock.Mono(), followDelayMin
			f.Lost(err)
		}
		// Both are counted: a call may take longer than what is waited between two.
		if f.waited += f.delay; max(f.waited, f.Clock.Mono()-f.since) > followLostMax {
			return err
		}
		f.tries++
		select {
		case <-f.Clock.After(f.delay):
		case <-ctx.Done():
			return ctx.Err()
		}
		f.delay = min(2*f.delay, followDelayMax)
	}
}

type follower struct {
	Following
	rpc     kubepb.ClusterStateClient
	request *kubepb.LogsRequest
	w       io.Writer

	place   *kubepb.LogPlace // The last that was told. Nil: this node tells none.
	before  int64            // Bytes written until then,
	written int64            // and since.
	opened  bool             // The node has answered the last request,
	found   bool             // and has told a place.

	tries         int // Since the loss. 0: there is none.
	since         time.Duration
	waited, delay time.Duration
}

// again reports whether it helps to ask again.
func (f *follower) again(err error) bool {
	if f.place == nil {
		return false
	}
	switch status.Code(err) {
	case codes.Unavailable:
		return true
	case codes.FailedPrecondition: // The node has no tunnel yet.
		return !f.opened
	case codes.NotFound: // The server knows the pod, and its new kubelet does not yet.
		return f.opened && !f.found
	}
	return false
}

// session follows until the node is lost.
func (f *follower) session(ctx context.Context) error {
	f.opened, f.found = false, false
	r := f.request
	if f.place != nil {
		r, _ = proto.Clone(r).(*kubepb.LogsRequest)
		if r.After = f.place; r.LimitBytes > 0 {
			if r.LimitBytes -= f.before; r.LimitBytes <= 0 {
				return nil // All that was wanted is written; nothing left of a limit would be none.
			}
		}
	}
	c, err := connect(ctx, f.rpc, &kubepb.Ask{What: &kubepb.Ask_Logs{Logs: r}})
	if err != nil {
		return err
	}
	defer c.cancel()
	f.opened = true
	known := int64(0) // Bytes that come again.
	if f.place != nil {
		known = f.written
	}
	for {
		frame, err := c.stream.Recv()
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF // There was no outcome.
		}
		if err != nil {
			return err
		}
		data := frame.GetOutput()
		if f.place != nil && !f.found && len(data) > 0 {
			return errNoPlace
		}
		old := min(known, int64(len(data)))
		known -= old
		if _, err := f.w.Write(data[old:]); err != nil {
			return err
		}
		f.written += int64(len(data)) - old
		if frame.Place != nil {
			known = f.reached(frame.Place, known)
		}
		if o := frame.GetOutcome(); o != nil {
			return nil
		}
	}
}

// reached notes a place, and returns how many of the bytes that come after it were
// written already.
func (f *follower) reached(p *kubepb.LogPlace, known int64) int64 {
	if !f.found && f.place != nil && !proto.Equal(p, f.place) {
		f.Gap()
		known = 0
	}
	f.found, f.place = true, p
	f.before += f.written - known
	f.written = known
	f.tries, f.waited = 0, 0
	return known
}
