package server

import (
	"context"
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
)

var (
	errTooManyRangeStreams = status.Error(codes.ResourceExhausted,
		"etcdserver: too many ranges are being streamed here, try again later or raise --client-buffer-bytes")
	errRangeStalled = status.Error(codes.DeadlineExceeded, "etcdserver: the stream was given up: nothing of it was taken for "+clientStallMax.String())
)

func (c *Config) checkClients() error {
	if c.ClientBufferBytes < clientBufferBytesMin {
		return fmt.Errorf("--client-buffer-bytes is %d: use at least %d", c.ClientBufferBytes, clientBufferBytesMin)
	}
	return nil
}

// rangeStreamsMax is how many ranges may be streamed at a time.
func (c *Config) rangeStreamsMax() int64 { return c.ClientBufferBytes / 2 / rangeStreamBytes }

// sendSlowly answers a call of a kind that holds memory or space for as long as its
// client likes: limit of them at a time, and one that takes nothing for long is
// left. send tells when it begins to send, and each time that something was taken.
func (c *core) sendSlowly(ctx context.Context, name string, under *atomic.Int64, limit int64, busy, stalled error,
	send func(ctx context.Context, took func()) error) error {
	if under.Add(1) > limit {
		under.Add(-1)
		return busy
	}
	sent, waits := make(chan error, 1), make(chan struct{})
	// Nothing ends a Send for which there is no room but the end of this handler.
	task.New(ctx).Go(name, func(ctx context.Context) error {
		defer under.Add(-1)
		var stall clock.Timer
		sent <- send(ctx, func() {
			if stall == nil { // There may have been much to do before.
				stall = c.cfg.Clock.AfterFunc(clientStallMax, func() { close(waits) })
			} else if stall.Stop() {
				stall.Reset(clientStallMax)
			}
		})
		if stall != nil {
			stall.Stop()
		}
		return nil
	})
	select {
	case err := <-sent:
		return err
	case <-waits:
		return stalled
	}
}
