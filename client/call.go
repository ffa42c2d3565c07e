package client

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// effect is what a call does to the cluster, and so what may be done when it
// fails.
type effect int

const (
	// reads may be repeated at will.
	reads effect = iota
	// writes may be repeated only when nothing can have come of them.
	writes
)

// call makes one call, with the time limit of ordinary requests.
func call[Q, R any](ctx context.Context, c *Client, what effect, rpc unary[Q, R], request *Q) (*R, error) {
	if _, ok := ctx.Deadline(); !ok {
		limited, cancel := context.WithTimeout(ctx, c.config.RequestTimeout)
		defer cancel()
		ctx = limited
	}
	return slowCall(ctx, c, what, rpc, request)
}

// unary is a method of a generated client.
type unary[Q, R any] func(context.Context, *Q, ...grpc.CallOption) (*R, error)

// slowCall makes one call, again with another member where that is safe, until
// it succeeds, fails for good, or ctx ends.
func slowCall[Q, R any](ctx context.Context, c *Client, what effect, rpc unary[Q, R], request *Q) (*R, error) {
	delay := retryDelayMin
	for logins := 0; ; {
		var server peer.Peer
		attemptCtx, made := c.attempt(ctx)
		answer, err := rpc(attemptCtx, request, grpc.Peer(&server))
		if err == nil {
			return answer, nil
		}
		err = fromWire(err)
		if c.config.FailFast && server.Addr == nil && refused(err) {
			return nil, unreachable{err}
		}
		verdict := judge(err, what, server.Addr != nil)
		if logins < loginsMax && c.tokenRefused(err, made) {
			logins++
			verdict.again = true
		}
		if verdict.again && c.pause(ctx, &delay) {
			continue
		}
		if ctx.Err() != nil {
			err = interrupted{err, ctx.Err()}
		}
		if verdict.unknown {
			err = unknownOutcome{err}
		}
		return nil, err
	}
}

// verdict on a failed attempt.
type verdict struct {
	again   bool // Another attempt is safe and may help.
	unknown bool // A write may have happened.
}

// judge decides what a failure means. sent is false if no connection was ever
// chosen for the attempt: gRPC itself repeats what no server has looked at.
func judge(err error, what effect, sent bool) verdict {
	code := status.Code(err)
	switch {
	case errors.Is(err, ErrNoLeader), errors.Is(err, ErrTooManyRequests), errors.Is(err, ErrNotForLearner):
		return verdict{again: true} // Refused before anything was done.
	case errors.Is(err, ErrUnhealthy):
		return verdict{} // An answer: the change would endanger the quorum.
	case !sent:
		return verdict{again: code == codes.Unavailable}
	case what == reads:
		return verdict{again: code == codes.Unavailable}
	}
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal, codes.Unknown, codes.Aborted:
		return verdict{unknown: !isAnswer(err)}
	}
	return verdict{}
}

// isAnswer reports whether an error is a definite answer: some errors of the
// protocol travel as Unknown.
func isAnswer(err error) bool {
	var e Error
	return errors.As(err, &e) && e.Code == codes.Unknown
}

// refused reports whether an attempt failed because members cannot be connected
// to, which another one would find out again. gRPC tells the cause as text alone.
func refused(err error) bool {
	text := err.Error()
	return status.Code(err) == codes.Unavailable && strings.Contains(text, "connection error: ") &&
		!strings.Contains(text, "timeout") && !strings.Contains(text, "deadline exceeded")
}

// pause waits before the next attempt, longer each time. It reports false when
// ctx ends first.
func (c *Client) pause(ctx context.Context, delay *time.Duration) bool {
	select {
	case <-c.config.Clock.After(*delay):
	case <-ctx.Done():
		return false
	}
	*delay = min(2**delay, retryDelayMax)
	return ctx.Err() == nil
}

// requireLeader asks the member to refuse at once, and to end streams, when it
// knows of no leader, so that another one can be asked.
func requireLeader(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "hasleader", "true")
}
