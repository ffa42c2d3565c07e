package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/moby/spdystream"
	"google.golang.org/grpc/status"
	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Exec implements runtime.Engine. A command that somebody reads along with goes on when ctx
// ends, until it notices that nobody does: CRI cannot kill it. Others are the runtime's to
// wait for, and to kill: a probe that hangs would leave one after the other behind. One that
// is given up while it is being started may still be: containerd 1.6 then forgets it.
func (e *Engine) Exec(ctx context.Context, id string, spec *runtime.ExecSpec) (int32, error) {
	if len(spec.Command) == 0 {
		return 0, fmt.Errorf("%w: empty", runtime.ErrNoCommand)
	}
	c, _, err := e.running(ctx, id)
	if err != nil {
		return 0, err
	}
	if spec.Whole {
		return e.execWhole(ctx, c.Id, spec)
	}
	answer, err := e.runtime.Exec(ctx, &api.ExecRequest{
		ContainerId: c.Id, Cmd: spec.Command, Tty: spec.TTY, Stdin: spec.Streams.Stdin != nil, Stdout: true, Stderr: !spec.TTY,
	})
	if err != nil {
		return 0, fmt.Errorf("run a command in %s: %w", id, refine(err))
	}
	code, err := converse(ctx, answer.Url, spec.Streams, spec.TTY)
	if err != nil {
		return 0, fmt.Errorf("run a command in %s: %w", id, err)
	}
	return code, nil
}

func (e *Engine) execWhole(ctx context.Context, id string, spec *runtime.ExecSpec) (int32, error) {
	answer, err := e.runtime.ExecSync(ctx, &api.ExecSyncRequest{ContainerId: id, Cmd: spec.Command})
	if err != nil {
		text := status.Convert(err).Message()
		if ctx.Err() == nil && hasAny(text, unrunnable) {
			return 0, fmt.Errorf("run a command in %s: %w: %s", id, runtime.ErrNoCommand, text)
		}
		return 0, errors.Join(ctx.Err(), fmt.Errorf("run a command in %s: %w", id, refine(err)))
	}
	for _, out := range []struct {
		to   io.Writer
		text []byte
	}{{spec.Streams.Stdout, answer.Stdout}, {spec.Streams.Stderr, answer.Stderr}} {
		if out.to == nil {
			continue
		}
		if _, err := out.to.Write(out.text); err != nil {
			return 0, fmt.Errorf("whoever reads the output: %w", err)
		}
	}
	return answer.ExitCode, nil
}

// Attach implements runtime.Engine.
func (e *Engine) Attach(ctx context.Context, id string, streams runtime.Streams) error {
	c, _, err := e.running(ctx, id)
	if err != nil {
		return err
	}
	tty := c.Annotations[annotationTTY] != ""
	if c.Annotations[annotationStdin] == "" {
		streams.Stdin = nil // It does not read.
	}
	answer, err := e.runtime.Attach(ctx, &api.AttachRequest{ContainerId: c.Id, Tty: tty, Stdin: streams.Stdin != nil, Stdout: true, Stderr: !tty})
	if err != nil {
		return fmt.Errorf("join %s: %w", id, refine(err))
	}
	if _, err := converse(ctx, answer.Url, streams, tty); err != nil {
		return fmt.Errorf("join %s: %w", id, err)
	}
	return nil
}

// converse carries streams to and fro until the other end says how it went.
func converse(ctx context.Context, address string, streams runtime.Streams, tty bool) (int32, error) {
	s, err := connect(ctx, address)
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer s.close()
	defer stop()
	result, err := s.stream("error")
	if err != nil {
		return 0, errors.Join(err, ctx.Err())
	}
	ended, end := context.WithCancel(ctx)
	defer end()
	outputs := task.New(ended)
	if err := carry(ended, s, streams, tty, outputs); err != nil {
		return 0, errors.Join(err, ctx.Err())
	}
	text, err := io.ReadAll(result)
	if err == nil && len(text) == 0 && ctx.Err() == nil {
		err = io.ErrUnexpectedEOF // Even success is said.
	}
	if err != nil || ctx.Err() != nil {
		s.conn.Close()
		return 0, errors.Join(ctx.Err(), err, outputs.Wait())
	}
	if err := outputs.Wait(); err != nil {
		return 0, err
	}
	return verdict(text)
}

// carry begins to copy each stream.
func carry(ctx context.Context, s *session, streams runtime.Streams, tty bool, outputs *task.Group) error {
	if streams.Stdin != nil {
		in, err := s.stream("stdin")
		if err != nil {
			return err
		}
		// Not waited for: whoever gave Stdin may never write or close it.
		task.New(ctx).Go("cri-stdin", func(context.Context) error {
			io.Copy(in, streams.Stdin) // The other end may have ended; it says how.
			return ignore(in.Close())
		})
	}
	kinds := []struct {
		kind string
		to   io.Writer
	}{{"stdout", streams.Stdout}, {"stderr", streams.Stderr}}
	if tty {
		kinds = kinds[:1]
	}
	for _, k := range kinds {
		from, err := s.stream(k.kind)
		if err != nil {
			return err
		}
		to := k.to
		if to == nil {
			to = io.Discard
		}
		outputs.Go("cri-"+k.kind, func(context.Context) error {
			_, err := io.Copy(to, from)
			return err
		})
	}
	if !tty {
		return nil
	}
	sizes, err := s.stream("resize")
	if err != nil {
		return err
	}
	if streams.Resize != nil {
		task.New(ctx).Go("cri-resize", func(ctx context.Context) error { return resize(ctx, sizes, streams.Resize) })
	}
	return nil
}

// ignore is for errors of streams that end while somebody still writes to them.
func ignore(error) error { return nil }

// resize tells sizes of a terminal.
func resize(ctx context.Context, to *spdystream.Stream, sizes <-chan runtime.Size) error {
	for {
		select {
		case size, ok := <-sizes:
			if !ok {
				return nil
			}
			text, err := json.Marshal(struct{ Width, Height uint16 }{size.Columns, size.Rows})
			if err != nil {
				return err
			}
			if _, err := to.Write(text); err != nil {
				return ignore(err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// verdict reads what the streaming server says in the end.
func verdict(text []byte) (int32, error) {
	var said struct {
		Status, Reason, Message string
		Details                 struct {
			Causes []struct{ Reason, Message string }
		}
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return 0, fmt.Errorf("the runtime says %q: %w", text, err)
	}
	if said.Status == "Success" {
		return 0, nil
	}
	for _, c := range said.Details.Causes {
		if said.Reason == "NonZeroExitCode" && c.Reason == "ExitCode" {
			code, err := strconv.ParseInt(c.Message, 10, 32)
			return int32(code), err
		}
	}
	if hasAny(said.Message, unrunnable) {
		return 0, fmt.Errorf("%w: %s", runtime.ErrNoCommand, said.Message)
	}
	return 0, errors.New(said.Message)
}
