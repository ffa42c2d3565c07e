package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

type logsFlags struct {
	labels, container             string
	follow, previous, all, prefix bool
	timestamps, ignoreErrors      bool
	tail, limit                   int64
	since                         time.Duration
	sinceTime                     string
	most                          int
}

// tailSelected lines of each are shown of containers that a selector picks, unless it
// is said how many.
const tailSelected = 10

func (s *session) logsCommand() *cobra.Command {
	var f logsFlags
	cmd := &cobra.Command{
		Use:   "logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]",
		Short: "Prints what containers wrote",
		Example: `  logs web-1
  logs -f deployment/web --tail=20
  logs web-1 -c proxy --previous
  logs -l app=web --all-containers --prefix`,
	}
	cmd.RunE = s.connected(func(ctx context.Context, args []string) error { return s.logs(ctx, &f, args) })
	fs := cmd.Flags()
	fs.BoolVarP(&f.follow, "follow", "f", false, "go on with what they write, until they have ended")
	fs.BoolVarP(&f.previous, "previous", "p", false, "of the attempt before the last")
	fs.StringVarP(&f.container, "container", "c", "", "name of the container")
	fs.BoolVar(&f.all, "all-containers", false, "of all containers of the pods")
	fs.StringVarP(&f.labels, "selector", "l", "", "labels that the pods must have")
	fs.Int64Var(&f.tail, "tail", -1, "the last so many lines of each; -1: all, but with a selector 10")
	fs.DurationVar(&f.since, "since", 0, "only what is not older than this: 5s, 2m, 3h")
	fs.StringVar(&f.sinceTime, "since-time", "", "only what was written after this time, in the form of RFC 3339")
	fs.BoolVar(&f.timestamps, "timestamps", false, "with the time of each line")
	fs.BoolVar(&f.prefix, "prefix", false, "with pod and container before each line")
	fs.Int64Var(&f.limit, "limit-bytes", 0, "at most so many bytes of each")
	fs.BoolVar(&f.ignoreErrors, "ignore-errors", false, "go on with others where one of them fails")
	fs.IntVar(&f.most, "max-log-requests", 5, "how many to follow at a time")
	return cmd
}

// spring is where a log comes from.
type spring struct {
	pod       *corev1.Pod
	container string
}

func (s *session) logs(ctx context.Context, f *logsFlags, args []string) error {
	r, err := f.request(args, s.Clock.Wall())
	if err != nil {
		return err
	}
	springs, err := s.springs(ctx, f, args)
	if err != nil {
		return err
	}
	if f.follow && len(springs) > f.most {
		return fmt.Errorf("you are attempting to follow %d log streams, but maximum allowed concurrency is %d, use --max-log-requests to increase the limit", len(springs), f.most)
	}
	out := &lines{out: s.Out}
	if !f.follow {
		for _, from := range springs {
			if err := s.logOf(ctx, f, r, from, out, len(springs) == 1); err != nil {
				return err
			}
		}
		return nil
	}
	g := task.New(ctx)
	for _, from := range springs {
		g.Go("log", func(ctx context.Context) error { return s.logOf(ctx, f, r, from, out, len(springs) == 1) })
	}
	err = g.Wait()
	if ctx.Err() != nil {
		return nil // A person has seen enough.
	}
	return err
}

// request also checks what was said.
func (f *logsFlags) request(args []string, now time.Time) (*kubepb.LogsRequest, error) {
	if err := f.check(args); err != nil {
		return nil, err
	}
	if len(args) == 2 {
		f.container = args[1]
	}
	r := &kubepb.LogsRequest{Previous: f.previous, Follow: f.follow, Timestamps: f.timestamps, LimitBytes: f.limit}
	if f.since > 0 {
		r.SinceSeconds = max(1, int64(f.since.Round(time.Second)/time.Second))
	}
	if f.sinceTime != "" {
		at, err := time.Parse(time.RFC3339Nano, f.sinceTime)
		if err != nil {
			return nil, usage("--since-time is %q: give a time like %s", f.sinceTime, now.UTC().Format(time.RFC3339))
		}
		r.SinceTime = nanoseconds(at)
	}
	if f.tail < 0 && f.labels != "" {
		f.tail = tailSelected
	}
	if f.tail >= 0 {
		r.TailLines = &f.tail
	}
	return r, nil
}

// nanoseconds since 1970, as far as they can be counted: from then on, since 0 says nothing,
// and to the year 2262.
func nanoseconds(at time.Time) int64 {
	switch {
	case at.Before(time.Unix(0, 1)):
		return 1
	case at.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return at.UnixNano()
}

func (f *logsFlags) check(args []string) error {
	switch {
	case len(args) == 0 && f.labels == "":
		return usage("POD or TYPE/NAME is a required argument for the logs command, or -l SELECTOR")
	case len(args) > 0 && f.labels != "":
		return usage("only a selector (-l) or a POD name is allowed")
	case len(args) > 2 || len(args) == 2 && f.container != "":
		return usage("only one of -c or an inline [CONTAINER] arg is allowed, for one POD or TYPE/NAME")
	case f.all && (f.container != "" || len(args) == 2):
		return usage("--all-containers=true should not be specified with a container name")
	case f.since != 0 && f.sinceTime != "":
		return usage("at most one of --since and --since-time may be used")
	}
	return f.checkNumbers()
}

func (f *logsFlags) checkNumbers() error {
	if f.since < 0 || f.limit < 0 || f.tail < -1 || f.most < 1 {
		return usage("--since, --limit-bytes and --tail are not negative, and --max-log-requests is 1 or more")
	}
	return nil
}

// springs are the containers that are meant.
func (s *session) springs(ctx context.Context, f *logsFlags, args []string) ([]spring, error) {
	var pods []*corev1.Pod
	var err error
	if f.labels != "" {
		if pods, err = s.podsOf(ctx, f.labels); err != nil {
			return nil, err
		}
		if len(pods) == 0 {
			fmt.Fprintf(s.Err, "No resources found in %s namespace.\n", s.home)
		}
		slices.SortFunc(pods, func(a, b *corev1.Pod) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	} else {
		if _, pods, err = s.podsFor(ctx, args[0]); err != nil {
			return nil, err
		}
		if len(pods) > 1 {
			fmt.Fprintf(s.Err, "Found %d pods, using pod/%s\n", len(pods), pods[0].Name)
			pods = pods[:1]
		}
	}
	var all []spring
	for _, p := range pods {
		if f.all {
			first, others := containerNames(p)
			for _, name := range slices.Concat(first, others) {
				all = append(all, spring{p, name})
			}
			continue
		}
		name, err := s.containerFor(p, f.container, false)
		if err != nil {
			return nil, err
		}
		all = append(all, spring{p, name})
	}
	return all, nil
}

// logOf prints one log.
func (s *session) logOf(ctx context.Context, f *logsFlags, r *kubepb.LogsRequest, from spring, to *lines, alone bool) error {
	own := &kubepb.LogsRequest{
		Of: in(from.pod, from.container), Previous: r.Previous, Follow: r.Follow, Timestamps: r.Timestamps, LimitBytes: r.LimitBytes,
		TailLines: r.TailLines, SinceSeconds: r.SinceSeconds, SinceTime: r.SinceTime,
	}
	var w io.Writer = s.Out
	l := &line{to: to}
	if f.prefix {
		l.prefix = fmt.Sprintf("[pod/%s/%s] ", from.pod.Name, from.container)
	}
	if f.prefix || !alone {
		w = l
	}
	var err error
	if f.follow {
		err = tunnel.Follow(ctx, s.client.RPC(), own, w, s.following(from, to))
	} else {
		err = tunnel.Logs(ctx, s.client.RPC(), own, w)
	}
	l.end()
	if err = reached(err, from.pod, from.container); err != nil && f.ignoreErrors && ctx.Err() == nil {
		to.mu.Lock()
		defer to.mu.Unlock()
		fmt.Fprintln(s.Err, s.explain(nil, err))
		return nil
	}
	return err
}

// following tells a person what becomes of a log.
func (s *session) following(from spring, to *lines) tunnel.Following {
	say := func(format string, args ...any) {
		to.mu.Lock()
		defer to.mu.Unlock()
		fmt.Fprintf(s.Err, "pod/%s, container %s: %s\n", from.pod.Name, from.container, fmt.Sprintf(format, args...))
	}
	return tunnel.Following{
		Clock: s.Clock,
		Lost: func(err error) {
			say("the log was lost (%s); asking for the rest of it", strings.TrimSuffix(status.Convert(err).Message(), ": try again"))
		},
		Gap: func() { say("lines are missing here: the log was rotated too often meanwhile") },
	}
}

// lines are printed one at a time, whoever they are of.
type lines struct {
	mu  sync.Mutex
	out io.Writer
}

// line is what one log writes, until it is whole.
type line struct {
	to     *lines
	prefix string
	rest   []byte
}

// lineMax bytes of a line are waited for.
const lineMax = 1 << 20

// Write implements io.Writer.
func (l *line) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	whole := bytes.LastIndexByte(l.rest, '\n') + 1
	if whole == 0 {
		if len(l.rest) < lineMax {
			return len(b), nil
		}
		l.rest = append(l.rest, '\n')
		whole = len(l.rest)
	}
	var text []byte
	for one := range bytes.Lines(l.rest[:whole]) {
		text = append(append(text, l.prefix...), one...)
	}
	l.rest = append(l.rest[:0], l.rest[whole:]...)
	l.to.mu.Lock()
	defer l.to.mu.Unlock()
	_, err := l.to.out.Write(text)
	return len(b), err
}

// end prints a line without its end.
func (l *line) end() {
	if len(l.rest) > 0 {
		_, _ = l.Write([]byte("\n")) // The command ends, one way or the other.
	}
}
