package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"google.golang.org/grpc"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/logfile"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// run is one session on its node.
type run struct {
	ask    *kubepb.Ask
	stream grpc.BidiStreamingClient[kubepb.Frame, kubepb.Frame]
	input  *io.PipeReader // What the user sends.
	feed   *io.PipeWriter
	resize chan runtime.Size
	over   chan struct{} // Closed when the server has ended the stream.

	sending sync.Mutex // A stream has one sender at a time; stdout and stderr are two.
}

func newRun(stream grpc.BidiStreamingClient[kubepb.Frame, kubepb.Frame], ask *kubepb.Ask) *run {
	r := &run{ask: ask, stream: stream, resize: make(chan runtime.Size, 1), over: make(chan struct{})}
	r.input, r.feed = io.Pipe()
	return r
}

// do asks the node. When it returns the node does nothing for the session any more; the
// stream is read until it ends, as it does with ctx.
func (r *run) do(ctx context.Context, node Node) *kubepb.Outcome {
	ctx, gone := context.WithCancel(ctx)
	task.New(ctx).Go("tunnel session input", func(context.Context) error {
		defer close(r.over)
		defer gone()
		defer close(r.resize)
		r.feed.CloseWithError(r.receive())
		return nil
	})
	exit, err := r.call(ctx, node)
	r.input.Close() // What still comes is for nobody.
	return outcomeOf(exit, err)
}

// receive takes what the user sends. It returns why there is no more.
func (r *run) receive() error {
	for {
		f, err := r.stream.Recv()
		if err != nil {
			return io.ErrUnexpectedEOF // The user has gone, which is not the end of the input.
		}
		switch f := f.What.(type) {
		case *kubepb.Frame_Input:
			_, _ = r.feed.Write(f.Input) // Nobody reads: it is dropped.
		case *kubepb.Frame_InputEnd:
			r.feed.Close()
		case *kubepb.Frame_Resize:
			size := runtime.Size{Columns: uint16(min(f.Resize.Columns, 1<<16-1)), Rows: uint16(min(f.Resize.Rows, 1<<16-1))}
			select { // The newest counts.
			case <-r.resize:
			default:
			}
			r.resize <- size
		}
	}
}

func (r *run) send(f *kubepb.Frame) error {
	r.sending.Lock()
	defer r.sending.Unlock()
	return r.stream.Send(f)
}

// call is what the session is for.
func (r *run) call(ctx context.Context, node Node) (int32, error) {
	switch ask := r.ask.What.(type) {
	case *kubepb.Ask_Logs:
		return 0, node.Logs(ctx, ask.Logs, output{r})
	case *kubepb.Ask_Exec:
		return node.Exec(ctx, ask.Exec, r.streams(ask.Exec.Stdin, ask.Exec.Tty))
	case *kubepb.Ask_Attach:
		return 0, node.Attach(ctx, ask.Attach, r.streams(ask.Attach.Stdin, ask.Attach.Tty))
	case *kubepb.Ask_Dial:
		return 0, r.dial(ctx, node, ask.Dial)
	case *kubepb.Ask_Images:
		return 0, r.images(node.Images(ctx))
	case *kubepb.Ask_ImportImage:
		return 0, r.images(node.ImportImage(ctx, r.input))
	case *kubepb.Ask_RemoveImage:
		return 0, node.RemoveImage(ctx, ask.RemoveImage.Image)
	}
	return 0, errors.New("this kubelet is too old for what was asked for: upgrade it")
}

func (r *run) streams(stdin, tty bool) runtime.Streams {
	s := runtime.Streams{Stdout: output{r}}
	if stdin {
		s.Stdin = r.input
	} else {
		r.input.Close()
	}
	if tty {
		s.Resize = r.resize
	} else {
		s.Stderr = errorOutput{r}
	}
	return s
}

func (r *run) images(list []*kubepb.Image, err error) error {
	if err != nil {
		return err
	}
	return r.send(&kubepb.Frame{What: &kubepb.Frame_Images{Images: &kubepb.Images{Images: list}}})
}

// dial carries one connection. It ends when the far side has no more to say.
func (r *run) dial(ctx context.Context, node Node, ask *kubepb.DialRequest) error {
	conn, err := node.Dial(ctx, ask)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { cutOff(conn) })
	defer stop()
	g := task.New(ctx)
	g.Go("tunnel connection input", func(context.Context) error {
		_, err := io.Copy(conn, r.input)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			cutOff(conn) // The user has gone.
		}
		return nil
	})
	_, err = io.Copy(output{r}, conn)
	r.input.Close()
	conn.Close()
	if e := g.Wait(); err == nil || errors.Is(err, net.ErrClosed) {
		err = e
	}
	return err
}

// cutOff closes a connection so that the other side does not take it for the end of
// what was to be said.
func cutOff(conn net.Conn) {
	if tcp, ok := conn.(interface{ SetLinger(seconds int) error }); ok {
		_ = tcp.SetLinger(0) // Closed already.
	}
	conn.Close()
}

// output sends what is written to it, with what is in it copied: the other side may
// be in this process.
type output struct{ *run }

func (o output) Write(b []byte) (int, error) {
	return o.write(b, func(data []byte) *kubepb.Frame { return &kubepb.Frame{What: &kubepb.Frame_Output{Output: data}} })
}

// Place implements logfile.Recipient.
func (o output) Place(attempt int, at logfile.Place) error {
	p := &kubepb.LogPlace{Attempt: int32(attempt), File: at.File, Offset: at.Offset, Open: at.Open}
	if !at.Since.IsZero() {
		p.Since = at.Since.UnixNano()
	}
	return o.send(&kubepb.Frame{What: &kubepb.Frame_Output{}, Place: p})
}

type errorOutput struct{ *run }

func (o errorOutput) Write(b []byte) (int, error) {
	return o.write(b, func(data []byte) *kubepb.Frame { return &kubepb.Frame{What: &kubepb.Frame_Errors{Errors: data}} })
}

func (r *run) write(b []byte, frame func([]byte) *kubepb.Frame) (int, error) {
	for n := 0; n < len(b); {
		part := b[n:min(len(b), n+FrameBytesMax)]
		if err := r.send(frame(append([]byte(nil), part...))); err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(b), nil
}
