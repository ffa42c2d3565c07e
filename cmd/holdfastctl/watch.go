package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/cmd/holdfastctl/cluster"
	"github.com/holdfast-db/holdfast/internal/task"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

type watchFlags struct {
	prefix, prevKV, progress bool
	rev                      int64
}

func (f *watchFlags) declare(fs *pflag.FlagSet) {
	fs.BoolVar(&f.prefix, "prefix", false, "watch all keys that begin with the given one")
	fs.Int64Var(&f.rev, "rev", 0, "the first revision to report")
	fs.BoolVar(&f.prevKV, "prev-kv", false, "print also what was there before")
	fs.BoolVar(&f.progress, "progress-notify", false, "print now and then how far the watch has come")
}

// The words of etcdctl, which scripts look for.
var (
	errWatchArguments = errors.New("bad number of arguments")
	errWatchEnviron   = errors.New("bad number of arguments (found conflicting environment key)")
	errWatchCommand   = errors.New("bad number of arguments (found separator --, but no commands)")
	errWatchRange     = errors.New("`range_end` and `--prefix` are mutually exclusive")
)

// watchOrder is one watch that somebody ordered.
type watchOrder struct {
	watch   client.Watch
	command []string // To run for each event.
}

// order makes a watch of flags and arguments; dash is where "--" stood among
// them, or below zero.
func (c *ctl) order(f *watchFlags, args []string, dash int) (watchOrder, error) {
	var o watchOrder
	if dash >= 0 {
		args, o.command = args[:dash], args[dash:]
		if len(o.command) == 0 {
			return o, errWatchCommand
		}
	}
	if _, key := c.fromEnviron("watch-key"); key != "" {
		if len(args) > 0 {
			return o, errWatchEnviron
		}
		args = []string{key}
		if _, end := c.fromEnviron("watch-range-end"); end != "" {
			args = append(args, end)
		}
	}
	switch {
	case len(args) == 0 || len(args) > 2:
		return o, errWatchArguments
	case len(args) == 2 && f.prefix:
		return o, errWatchRange
	}
	keys, err := keyRange(args, f.prefix, false)
	o.watch = client.Watch{Range: keys, Revision: f.rev, PrevKV: f.prevKV, Progress: f.progress}
	return o, err
}

func (c *ctl) watchCommand() *cobra.Command {
	var f watchFlags
	var interactive bool
	cmd := &cobra.Command{
		Use:   "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
		Short: "Watches events stream on keys or prefixes",
		Long: `Watches events on a key, a range or a prefix until it is interrupted.

What follows -- is run for each event, with ETCD_WATCH_REVISION,
ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY and ETCD_WATCH_VALUE in its environment.

With -i, lines are read from standard input:

  watch [options] <key or prefix> [range_end] [--] [exec-command …]
  progress
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.needForm(requestForms...); err != nil {
				return err
			}
			_, key := c.fromEnviron("watch-key")
			if name, end := c.fromEnviron("watch-range-end"); key == "" && end != "" {
				return badArguments("%s is empty but got %s=%q", strings.Replace(name, "RANGE_END", "KEY", 1), name, end)
			}
			if interactive {
				return c.watchInteractive(cmd.Context(), key)
			}
			o, err := c.order(&f, args, cmd.ArgsLenAtDash())
			if err != nil {
				return exit(exitArguments, err)
			}
			return c.watch(cmd.Context(), o)
		},
	}
	f.declare(cmd.Flags())
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "read what to watch from standard input")
	return cmd
}

// watch watches until the server or the user ends it.
func (c *ctl) watch(ctx context.Context, o watchOrder) error {
	cl, err := c.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	defer c.tellUnreached(ctx, cl)()
	s := &watchScreen{ctl: c}
	if err := s.follow(ctx, cl.Watch(ctx, o.watch), o.command); err != nil || ctx.Err() != nil {
		return err
	}
	return exit(exitInterrupted, errors.New("watch is canceled by the server"))
}

// watchScreen shows the reports of all watches, one at a time.
type watchScreen struct {
	ctl *ctl
	mu  sync.Mutex
}

// follow shows what a watch reports until it ends.
func (s *watchScreen) follow(ctx context.Context, w *client.Watcher, command []string) error {
	for r := range w.Reports() {
		if err := s.show(r); err != nil {
			return err
		}
		for _, e := range r.Events {
			if err := s.run(ctx, command, r.Header.GetRevision(), e); err != nil {
				return err
			}
		}
	}
	if w.Err() == nil {
		return nil
	}
	fmt.Fprintf(s.ctl.err, "watch was canceled (%v)\n", canceledText(w.Err()))
	end := &pb.WatchResponse{Header: &pb.ResponseHeader{}, Canceled: true}
	var compacted *client.CompactedError
	if errors.As(w.Err(), &compacted) {
		end.CompactRevision = compacted.Compacted
		fmt.Fprintf(s.ctl.err, "the history before revision %d is gone: read the keys, then watch with --rev from there\n", compacted.Compacted)
	}
	return s.show(end)
}

func canceledText(err error) error {
	if errors.Is(err, client.ErrCompacted) {
		return client.ErrCompacted
	}
	return err
}

func (s *watchScreen) show(r *pb.WatchResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(r.Events) == 0 && !r.Canceled { // In every form, as etcdctl.
		fmt.Fprintf(s.ctl.out, "progress notify: %d\n", r.Header.GetRevision())
	}
	return s.ctl.print(answer{
		simple: func(p *page) {
			for _, e := range r.Events {
				p.line(e.Type)
				if e.PrevKv != nil {
					p.kv(e.PrevKv)
				}
				p.kv(e.Kv)
			}
		},
		fields: func(p *page) {
			p.headerFields(r.Header)
			for _, e := range r.Events {
				p.field("Type", e.Type)
				if e.PrevKv != nil {
					p.kvFields("Prev", e.PrevKv)
				}
				p.kvFields("", e.Kv)
			}
		},
		json:  watchJSON{r.Header, r.Events, r.CompactRevision, r.Canceled, r.Created, r.CancelReason},
		proto: watchEvents(r.Events),
	})
}

// watchJSON is a report as etcdctl writes it.
type watchJSON struct {
	Header          *pb.ResponseHeader
	Events          []*mvccpb.Event
	CompactRevision int64
	Canceled        bool
	Created         bool
	CancelReason    string
}

// watchEvents are the bytes of one event after the other.
type watchEvents []*mvccpb.Event

func (events watchEvents) MarshalVT() (all []byte, err error) {
	for _, e := range events {
		b, err := e.MarshalVT()
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return all, nil
}

// run runs the user's command for one event.
func (s *watchScreen) run(ctx context.Context, command []string, revision int64, e *mvccpb.Event) error {
	if len(command) == 0 {
		return nil
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(cmd.Env, s.ctl.environ...)
	cmd.Env = append(cmd.Env,
		fmt.Sprintf("ETCD_WATCH_REVISION=%d", revision),
		fmt.Sprintf("ETCD_WATCH_EVENT_TYPE=%q", e.Type),
		fmt.Sprintf("ETCD_WATCH_KEY=%q", e.Kv.GetKey()),
		fmt.Sprintf("ETCD_WATCH_VALUE=%q", e.Kv.GetValue()))
	cmd.Stdout, cmd.Stderr = cluster.Terminal(s.ctl.out), s.ctl.err
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		fmt.Fprintf(s.ctl.err, "command %q error (%v)\n", command, err)
		return &exitError{code: exitFailed}
	}
	return nil
}

// watchInteractive starts a watch for each line that asks for one.
func (c *ctl) watchInteractive(ctx context.Context, environKey string) error {
	cl, err := c.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	defer c.tellUnreached(ctx, cl)()
	s := &watchScreen{ctl: c}
	g := task.New(ctx)
	// Waiting for a line cannot be interrupted, so nobody waits for this one.
	lines := make(chan error, 1)
	reader := task.New(ctx)
	reader.Go("read lines", func(ctx context.Context) error {
		lines <- c.readWatches(g, cl, s, environKey)
		return nil
	})
	select {
	case err = <-lines:
		if ctx.Err() != nil {
			err = nil // Interrupted: that input ends then is no error.
		}
	case <-g.Context().Done():
	}
	g.Stop()
	return errors.Join(g.Wait(), err)
}

// readWatches obeys lines until there are no more.
func (c *ctl) readWatches(g *task.Group, cl *client.Client, s *watchScreen, environKey string) error {
	var watchers []*client.Watcher
	in := bufio.NewReader(c.in)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return exit(exitInput, fmt.Errorf("error reading watch request line: %w", err))
		}
		line = strings.TrimSpace(line)
		words, err := splitWords(line)
		switch {
		case err != nil:
			fmt.Fprintf(c.err, "Invalid command %s (%v)\n", line, err)
		case len(words) == 0:
			fmt.Fprintf(c.err, "Invalid command: %s (watch and progress supported)\n", line)
		case words[0] == "progress":
			for _, w := range watchers {
				if err := w.RequestProgress(); err != nil && !errors.Is(err, client.ErrNotWatching) {
					return exit(exitFailed, err)
				}
			}
		case words[0] != "watch":
			fmt.Fprintf(c.err, "Invalid command %s (only support watch)\n", line)
		case len(words) < 2 && environKey == "":
			fmt.Fprintf(c.err, "Invalid command %s (command type or key is not provided)\n", line)
		default:
			o, err := c.orderLine(words[1:])
			if err != nil {
				fmt.Fprintf(c.err, "Invalid command %s (%v)\n", line, err)
				continue
			}
			w := cl.Watch(g.Context(), o.watch)
			watchers = append(watchers, w)
			g.Go("watch", func(ctx context.Context) error { return s.follow(ctx, w, o.command) })
		}
	}
}

func (c *ctl) orderLine(words []string) (watchOrder, error) {
	var f watchFlags
	fs := pflag.NewFlagSet("watch", pflag.ContinueOnError)
	fs.Usage = func() {}
	f.declare(fs)
	if err := fs.Parse(words); err != nil {
		return watchOrder{}, err
	}
	return c.order(&f, fs.Args(), fs.ArgsLenAtDash())
}
