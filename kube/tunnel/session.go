package tunnel

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Session is one in a server. Each of its two streams is served by a goroutine of its
// own (Relay and Serve), which alone sends on it; a second one reads it, and ends with
// it. What is read goes to the other side's goroutine over a channel: who reads waits
// until the other side has taken what it sent before.
type Session struct {
	hub    *Hub
	far    *far
	number uint64
	user   string
	secret []byte

	answered chan struct{} // Closed when the node has opened it, or refused it.
	refusal  string        // Set before.

	toNode, toUser     chan *kubepb.Frame
	userGone, nodeGone chan struct{}
	ended              atomic.Bool // The node has told the outcome: with that its user goes.
}

func newSession(h *Hub, f *far, number uint64, user string) *Session {
	return &Session{
		hub: h, far: f, number: number, user: user, answered: make(chan struct{}),
		toNode: make(chan *kubepb.Frame, 1), toUser: make(chan *kubepb.Frame, 1), userGone: make(chan struct{}), nodeGone: make(chan struct{}),
	}
}

// FrameStream is a server's end of a session's stream.
type FrameStream interface {
	Send(*kubepb.Frame) error
	Recv() (*kubepb.Frame, error)
	Context() context.Context
}

// Discard ends a session that is not to be relayed.
func (s *Session) Discard() {
	close(s.userGone)
	s.hub.end(s)
}

// Relay serves the stream of the user, whose first frame was taken, until the session
// ends.
func (s *Session) Relay(stream FrameStream, opened *kubepb.Opened) error {
	defer s.Discard()
	if err := stream.Send(&kubepb.Frame{What: &kubepb.Frame_Opened{Opened: opened}}); err != nil {
		return err
	}
	wrong := make(chan error, 1)
	if !s.hub.tasks.Go("session of a user", func(context.Context) error {
		if err := s.readUser(stream); err != nil {
			wrong <- err
		}
		return nil
	}) {
		return errStopping
	}
	for {
		select {
		case f := <-s.toUser:
			if done, err := pass(stream, f); done || err != nil {
				return err
			}
		case err := <-wrong:
			return err
		case <-s.nodeGone:
			select {
			case f := <-s.toUser: // Sent before it went.
				if done, err := pass(stream, f); done || err != nil {
					return err
				}
			default:
				return lost(s.far.node)
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-s.hub.tasks.Context().Done():
			return errStopping
		}
	}
}

// pass sends a frame to a user, and tells whether it was the last. The outcome is sent
// where it says more than the end of the stream does.
func pass(stream FrameStream, f *kubepb.Frame) (bool, error) {
	o, last := f.What.(*kubepb.Frame_Outcome)
	if !last {
		return false, stream.Send(f)
	}
	if err := errorOf(o.Outcome); err != nil {
		return true, err
	}
	return true, stream.Send(f)
}

// readUser reads what a user sends. An error ends the session; the end of the user's
// stream is seen by who serves it.
func (s *Session) readUser(stream FrameStream) error {
	for {
		f, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			f = &kubepb.Frame{What: &kubepb.Frame_InputEnd{InputEnd: &kubepb.InputEnd{}}}
		case err != nil:
			return nil
		default:
			if err := checkInput(f); err != nil {
				return err
			}
		}
		select {
		case s.toNode <- f:
		case <-s.nodeGone:
			return nil
		case <-s.userGone:
			return nil
		}
		if err != nil {
			return nil
		}
	}
}

// checkInput checks a frame of a user.
func checkInput(f *kubepb.Frame) error {
	switch what := f.GetWhat().(type) {
	case *kubepb.Frame_Input:
		if len(what.Input) > FrameBytesMax {
			return misplaced("%d bytes in one frame, %d are the most", len(what.Input), FrameBytesMax)
		}
	case *kubepb.Frame_InputEnd, *kubepb.Frame_Resize:
	default:
		return misplaced("a user sends input and sizes alone after the first frame")
	}
	return nil
}

// Serve serves the stream of a node, whose first frame was this credential, until the
// session ends. That the node is who it says it is was checked.
func (h *Hub) Serve(stream FrameStream, c *kubepb.Credential) error {
	s, err := h.accept(c)
	if err != nil {
		return err
	}
	close(s.answered)
	defer close(s.nodeGone)
	over := make(chan error, 1)
	if !h.tasks.Go("session of a node", func(context.Context) error {
		over <- s.readNode(stream)
		return nil
	}) {
		return errStopping
	}
	for {
		select {
		case f := <-s.toNode:
			if err := stream.Send(f); err != nil {
				return err
			}
		case err := <-over:
			return err
		case <-s.userGone:
			if s.ended.Load() {
				return <-over
			}
			return context.Canceled
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-h.tasks.Context().Done():
			return errStopping
		}
	}
}

// readNode reads what a node sends, until it has told the outcome.
func (s *Session) readNode(stream FrameStream) error {
	for {
		f, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := checkOutput(f); err != nil {
			return err
		}
		outcome := f.GetOutcome() != nil
		s.ended.Store(outcome)
		select {
		case s.toUser <- f:
		case <-s.userGone:
			return context.Canceled
		}
		if outcome {
			return nil
		}
	}
}

// checkOutput checks a frame of a node.
func checkOutput(f *kubepb.Frame) error {
	switch what := f.GetWhat().(type) {
	case *kubepb.Frame_Output:
		if len(what.Output) > FrameBytesMax {
			return misplaced("%d bytes in one frame, %d are the most", len(what.Output), FrameBytesMax)
		}
	case *kubepb.Frame_Errors:
		if len(what.Errors) > FrameBytesMax {
			return misplaced("%d bytes in one frame, %d are the most", len(what.Errors), FrameBytesMax)
		}
	case *kubepb.Frame_Images, *kubepb.Frame_Outcome:
	default:
		return misplaced("a node sends output and an outcome alone after the first frame")
	}
	return nil
}
