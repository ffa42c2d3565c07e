//go:build linux

package supervised

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/stage"
	"github.com/holdfast-db/holdfast/kube/runtime/supervisor"
)

// client speaks to the supervisor of one pod. Each call is a connection.
type client struct {
	dir string // The engine's folder of the pod.
}

// connect opens a connection that ends with ctx, and sends the request.
func (c client) connect(ctx context.Context, q *supervisor.Request) (*net.UnixConn, func(), error) {
	q.Version = supervisor.Version
	text, err := json.Marshal(q)
	if err != nil {
		return nil, nil, err
	}
	if len(text) > supervisor.FrameMax {
		return nil, nil, fmt.Errorf("%w: its description is %d bytes long, at most %d can be", runtime.ErrInvalid, len(text), supervisor.FrameMax)
	}
	var conn net.Conn
	err = supervisor.Beneath(c.dir, func(socket string) error {
		var err error
		conn, err = (&net.Dialer{}).DialContext(ctx, "unix", socket)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("supervisor of %s: %w", c.dir, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	done := func() {
		stop()
		conn.Close()
	}
	if _, err := conn.Write(supervisor.EncodeFrame(supervisor.FrameRequest, text)); err != nil {
		done()
		return nil, nil, c.broken(ctx, err)
	}
	return conn.(*net.UnixConn), done, nil
}

// broken is why a connection ended early.
func (c client) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("supervisor of %s: %w", c.dir, err)
}

// call asks one thing.
func (c client) call(ctx context.Context, q *supervisor.Request) (*supervisor.Answer, error) {
	conn, done, err := c.connect(ctx, q)
	if err != nil {
		return nil, err
	}
	defer done()
	for {
		kind, payload, err := supervisor.ReadFrame(conn)
		if err != nil {
			return nil, c.broken(ctx, err)
		}
		if kind == supervisor.FrameAnswer {
			return answerOf(payload)
		}
	}
}

func answerOf(payload []byte) (*supervisor.Answer, error) {
	a := &supervisor.Answer{}
	if err := json.Unmarshal(payload, a); err != nil {
		return nil, fmt.Errorf("answer of a supervisor: %w", err)
	}
	return a, errorOf(a.Failure)
}

// errorOf gives failures their names in package runtime.
func errorOf(f *supervisor.Failure) error {
	if f == nil {
		return nil
	}
	kinds := map[string]error{
		stage.Invalid: runtime.ErrInvalid, stage.Command: runtime.ErrNoCommand, supervisor.FailureNotFound: runtime.ErrNotFound,
		supervisor.FailureNotRunning: runtime.ErrNotRunning, supervisor.FailureCall: runtime.ErrUnsupported,
	}
	if err := kinds[f.Kind]; err != nil {
		return fmt.Errorf("%w: %s", err, f.Text)
	}
	return errors.New(f.Text)
}

// converse carries the streams of an exec or attach, until the answer.
func (c client) converse(ctx context.Context, q *supervisor.Request, streams runtime.Streams) (*supervisor.Answer, error) {
	conn, done, err := c.connect(ctx, q)
	if err != nil {
		return nil, err
	}
	defer done()
	// Readers of others end when they like, so nobody waits for these two: what they
	// write after the end meets a closed connection.
	feeders := task.New(ctx)
	defer feeders.Stop()
	feeders.Go("stdin", func(context.Context) error {
		if streams.Stdin != nil {
			_, _ = io.Copy(frameWriter{conn, supervisor.FrameStdin}, streams.Stdin)
		}
		_, _ = conn.Write(supervisor.EncodeFrame(supervisor.FrameEnd, nil))
		return nil
	})
	feeders.Go("resize", func(ctx context.Context) error { return sendSizes(ctx, conn, streams.Resize) })
	for {
		kind, payload, err := supervisor.ReadFrame(conn)
		if err != nil {
			return nil, c.broken(ctx, err)
		}
		var to io.Writer
		switch kind {
		case supervisor.FrameAnswer:
			return answerOf(payload)
		case supervisor.FrameStdout:
			to = streams.Stdout
		case supervisor.FrameStderr:
			to = streams.Stderr
		}
		if to != nil {
			if _, err := to.Write(payload); err != nil {
				return nil, fmt.Errorf("whoever reads the output: %w", err)
			}
		}
	}
}

func sendSizes(ctx context.Context, conn net.Conn, sizes <-chan runtime.Size) error {
	for {
		select {
		case s, ok := <-sizes:
			if !ok {
				return nil
			}
			text, err := json.Marshal(supervisor.Size{Columns: s.Columns, Rows: s.Rows})
			if err != nil {
				return err
			}
			if _, err := conn.Write(supervisor.EncodeFrame(supervisor.FrameResize, text)); err != nil {
				return nil // The session is over.
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// frameWriter makes frames of what is written.
type frameWriter struct {
	conn net.Conn
	kind byte
}

func (w frameWriter) Write(b []byte) (int, error) {
	if _, err := w.conn.Write(supervisor.EncodeFrame(w.kind, b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// dial gets a connection that the supervisor has made.
func (c client) dial(ctx context.Context, port uint16) (net.Conn, error) {
	conn, done, err := c.connect(ctx, &supervisor.Request{Call: supervisor.CallDial, Port: port})
	if err != nil {
		return nil, err
	}
	defer done()
	head, oob := make([]byte, supervisor.FrameHeader), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(head, oob)
	if err != nil {
		return nil, c.broken(ctx, err)
	}
	if fd := supervisor.Rights(oob[:oobn]); fd >= 0 {
		f := os.NewFile(uintptr(fd), "dialled")
		defer f.Close() // FileConn has its own.
		return net.FileConn(f)
	}
	_, payload, err := supervisor.ReadFrame(io.MultiReader(bytes.NewReader(head[:n]), conn))
	if err != nil {
		return nil, c.broken(ctx, err)
	}
	_, err = answerOf(payload)
	if err == nil {
		err = fmt.Errorf("supervisor of %s: no connection came with its answer", c.dir)
	}
	return nil, err
}

// watch calls fn when something became of a container, until the supervisor ends or
// ctx does. It calls it once at the begin: what was before nobody has told.
func (c client) watch(ctx context.Context, fn func()) error {
	conn, done, err := c.connect(ctx, &supervisor.Request{Call: supervisor.CallWatch})
	if err != nil {
		return err
	}
	defer done()
	fn()
	for {
		kind, _, err := supervisor.ReadFrame(conn)
		if err != nil || kind == supervisor.FrameAnswer {
			return ctx.Err()
		}
		fn()
	}
}

// helloMax is how long a supervisor may take to say what it has.
const helloMax = 5 * time.Second

// records are those of the pod; of a supervisor that does not answer, those on disk.
func (c client) records(ctx context.Context) ([]supervisor.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, helloMax)
	defer cancel()
	a, err := c.call(ctx, &supervisor.Request{Call: supervisor.CallState})
	if err != nil {
		return supervisor.ReadRecords(c.dir)
	}
	return a.Records, nil
}
