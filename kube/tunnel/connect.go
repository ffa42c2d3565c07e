package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Logs writes what a container wrote.
func Logs(ctx context.Context, rpc kubepb.ClusterStateClient, r *kubepb.LogsRequest, w io.Writer) error {
	c, err := connect(ctx, rpc, &kubepb.Ask{What: &kubepb.Ask_Logs{Logs: r}})
	if err != nil {
		return err
	}
	defer c.cancel()
	_, err = c.read(w, nil)
	return err
}

// Exec runs a command in a container and returns its exit code. The read of a Stdin
// that does not end is left behind when the command has ended: what it brings is lost.
func Exec(ctx context.Context, rpc kubepb.ClusterStateClient, r *kubepb.ExecRequest, s runtime.Streams) (int32, error) {
	return interactive(ctx, rpc, &kubepb.Ask{What: &kubepb.Ask_Exec{Exec: r}}, s)
}

// Attach joins what a container writes and, with Stdin, reads, as Exec does.
func Attach(ctx context.Context, rpc kubepb.ClusterStateClient, r *kubepb.AttachRequest, s runtime.Streams) error {
	_, err := interactive(ctx, rpc, &kubepb.Ask{What: &kubepb.Ask_Attach{Attach: r}}, s)
	return err
}

func interactive(ctx context.Context, rpc kubepb.ClusterStateClient, ask *kubepb.Ask, s runtime.Streams) (int32, error) {
	c, err := connect(ctx, rpc, ask)
	if err != nil {
		return 0, err
	}
	defer c.cancel()
	g := task.New(c.ctx)
	if s.Stdin != nil {
		g.Go("input of a session", func(context.Context) error {
			if err := c.feed(s.Stdin); err != nil {
				_ = c.endInput() // As far as it could be read.
			}
			return nil
		})
	}
	if s.Resize != nil {
		g.Go("sizes of a session", func(ctx context.Context) error { return c.sizes(ctx, s.Resize) })
	}
	o, err := c.read(s.Stdout, s.Stderr)
	return o.GetExitCode(), err
}

// Images are those that a node has.
func Images(ctx context.Context, rpc kubepb.ClusterStateClient, node string) ([]*kubepb.Image, error) {
	return images(ctx, rpc, &kubepb.Ask{What: &kubepb.Ask_Images{Images: &kubepb.ImagesRequest{Node: node}}}, nil)
}

// ImportImage has a node take in the images of a tar file.
func ImportImage(ctx context.Context, rpc kubepb.ClusterStateClient, node string, tar io.Reader) ([]*kubepb.Image, error) {
	return images(ctx, rpc, &kubepb.Ask{What: &kubepb.Ask_ImportImage{ImportImage: &kubepb.ImportImageRequest{Node: node}}}, tar)
}

// RemoveImage has a node remove an image.
func RemoveImage(ctx context.Context, rpc kubepb.ClusterStateClient, node, image string) error {
	_, err := images(ctx, rpc, &kubepb.Ask{What: &kubepb.Ask_RemoveImage{RemoveImage: &kubepb.RemoveImageRequest{Node: node, Image: image}}}, nil)
	return err
}

func images(ctx context.Context, rpc kubepb.ClusterStateClient, ask *kubepb.Ask, tar io.Reader) ([]*kubepb.Image, error) {
	c, err := connect(ctx, rpc, ask)
	if err != nil {
		return nil, err
	}
	defer c.cancel()
	cut := make(chan error, 1)
	if tar != nil {
		task.New(c.ctx).Go("file of a session", func(context.Context) error {
			if err := c.feed(tar); err != nil {
				cut <- err
				c.cancel() // What has come is not all of it.
			}
			return nil
		})
	}
	_, err = c.read(nil, nil)
	select {
	case err = <-cut:
	default:
	}
	return c.images, err
}

// Dial connects to a port of a pod. The connection ends with ctx. It can close its two
// directions one by one.
func Dial(ctx context.Context, rpc kubepb.ClusterStateClient, r *kubepb.DialRequest) (*Conn, error) {
	c, err := connect(ctx, rpc, &kubepb.Ask{What: &kubepb.Ask_Dial{Dial: r}})
	if err != nil {
		return nil, err
	}
	return &Conn{call: c}, nil
}

// Conn is a connection to a port of a pod, of one reader and one writer.
type Conn struct {
	call *call
	rest []byte
	err  error
}

// Read implements io.Reader.
func (c *Conn) Read(b []byte) (int, error) {
	for len(c.rest) == 0 && c.err == nil {
		var f *kubepb.Frame
		if f, c.err = c.call.stream.Recv(); c.err == nil {
			c.rest = f.GetOutput()
		}
	}
	n := copy(b, c.rest)
	if c.rest = c.rest[n:]; n > 0 || len(b) == 0 {
		return n, nil
	}
	return 0, c.err
}

// Write implements io.Writer.
func (c *Conn) Write(b []byte) (int, error) { return c.call.Write(b) }

// CloseWrite tells the other side that nothing more comes.
func (c *Conn) CloseWrite() error { return c.call.endInput() }

// Close ends the connection.
func (c *Conn) Close() error {
	c.call.cancel()
	return nil
}

// call is a session on the user's side.
type call struct {
	ctx     context.Context // Of the stream, which ends with it.
	cancel  context.CancelFunc
	stream  grpc.BidiStreamingClient[kubepb.Frame, kubepb.Frame]
	images  []*kubepb.Image
	sending sync.Mutex
}

// connect returns when the node has opened the session.
func connect(ctx context.Context, rpc kubepb.ClusterStateClient, ask *kubepb.Ask) (*call, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := rpc.Connect(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	c := &call{ctx: ctx, cancel: cancel, stream: stream}
	err = stream.Send(&kubepb.Frame{What: &kubepb.Frame_Ask{Ask: ask}})
	var first *kubepb.Frame
	if err == nil || errors.Is(err, io.EOF) {
		first, err = stream.Recv() // The reason of an end is here.
	}
	if err == nil && first.GetOpened() == nil {
		err = fmt.Errorf("the server did not say that the session is open: %w", ErrFrame)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return c, nil
}

// read takes what the node sends until the session ends. A nil writer: it is dropped.
func (c *call) read(out, errs io.Writer) (*kubepb.Outcome, error) {
	write := func(w io.Writer, data []byte) error {
		if w == nil {
			return nil
		}
		_, err := w.Write(data)
		return err
	}
	for {
		f, err := c.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, io.ErrUnexpectedEOF // There was no outcome.
		}
		if err != nil {
			return nil, err
		}
		switch f := f.What.(type) {
		case *kubepb.Frame_Output:
			err = write(out, f.Output)
		case *kubepb.Frame_Errors:
			err = write(errs, f.Errors)
		case *kubepb.Frame_Images:
			c.images = f.Images.GetImages()
		case *kubepb.Frame_Outcome:
			return f.Outcome, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// Write implements io.Writer: input.
func (c *call) Write(b []byte) (int, error) {
	for n := 0; n < len(b); {
		part := b[n:min(len(b), n+FrameBytesMax)]
		if err := c.send(&kubepb.Frame{What: &kubepb.Frame_Input{Input: append([]byte(nil), part...)}}); err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(b), nil
}

func (c *call) send(f *kubepb.Frame) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	return c.stream.Send(f)
}

func (c *call) endInput() error {
	return c.send(&kubepb.Frame{What: &kubepb.Frame_InputEnd{InputEnd: &kubepb.InputEnd{}}})
}

// feed sends what it reads until its end; the error is that of the read. That the
// session ends is none.
func (c *call) feed(r io.Reader) error {
	buf := make([]byte, FrameBytesMax)
	for {
		n, err := r.Read(buf)
		if _, e := c.Write(buf[:n]); e != nil {
			return nil
		}
		if errors.Is(err, io.EOF) {
			_ = c.endInput()
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// sizes sends sizes of a terminal.
func (c *call) sizes(ctx context.Context, sizes <-chan runtime.Size) error {
	for {
		select {
		case s, ok := <-sizes:
			if !ok {
				return nil
			}
			f := &kubepb.Frame{What: &kubepb.Frame_Resize{Resize: &kubepb.Size{Columns: uint32(s.Columns), Rows: uint32(s.Rows)}}}
			if err := c.send(f); err != nil {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}
