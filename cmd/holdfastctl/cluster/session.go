package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	kubecontext "github.com/holdfast-db/holdfast/kube/context"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// Config is what commands stand on. All fields but Dial are required.
type Config struct {
	Program  string // As it was called: for help.
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	FS       vfs.FS
	Clock    clock.Clock

	// Dial connects to the servers of a context. Nil: over the network.
	Dial func(*kubecontext.Context) (grpc.ClientConnInterface, error)
}

// session is one run of one command.
type session struct {
	Config

	path, context, namespace string // Flags. Empty: as the file has it.
	timeout                  time.Duration

	client *objects.Client // Once connected.
	home   string          // The namespace that is meant when none is named; once connected.
	server string          // For messages; once connected.
	close  func() error
}

// Run executes a command line and returns the exit code.
func Run(ctx context.Context, cfg Config, args []string) int {
	s := &session{Config: cfg}
	root := s.root()
	root.SetArgs(leading(args))
	root.SetIn(cfg.In)
	root.SetOut(cfg.Out)
	root.SetErr(cfg.Err)
	cmd, err := root.ExecuteContextC(ctx)
	if s.close != nil {
		err = errors.Join(err, s.close())
	}
	if err == nil {
		return 0
	}
	var ended *exitCode
	if errors.As(err, &ended) {
		fmt.Fprintln(cfg.Err, ended)
		return int(ended.code)
	}
	if !errors.Is(err, errSaid) {
		fmt.Fprintln(cfg.Err, s.explain(cmd, err))
	}
	return 1
}

// leading puts the flags that stand before the verb behind it.
func leading(args []string) []string {
	at := 0
	for at < len(args) && strings.HasPrefix(args[at], "-") {
		if takesValue(args[at]) {
			at++
		}
		at++
	}
	if at == 0 || at >= len(args) {
		return args
	}
	return append(append([]string{args[at]}, args[:at]...), args[at+1:]...)
}

func (s *session) root() *cobra.Command {
	root := &cobra.Command{
		Use:           s.Program,
		Short:         "Shows and changes the objects of a cluster, in kubectl's words",
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if n := cmd.Flags().Lookup("namespace"); n != nil && n.Changed && s.namespace == "" {
				return usage("-n: the name of the namespace is empty: is a variable not set?")
			}
			return nil
		},
	}
	s.declare(root.PersistentFlags())
	root.AddCommand(s.commands()...)
	root.AddCommand(s.recoverCommand())
	return root
}

func (s *session) declare(fs *pflag.FlagSet) {
	fs.StringVar(&s.path, "config", "", "file of contexts (default: HOLDFAST_CONFIG, or ~/.holdfast/config)")
	fs.StringVar(&s.context, "context", "", "name of the context to use instead of the current one")
	fs.StringVarP(&s.namespace, "namespace", "n", "", "namespace that is meant")
	fs.DurationVar(&s.timeout, "request-timeout", 15*time.Second, "time for one request")
}

// commands are the verbs, in the order of their list in help.
func (s *session) commands() []*cobra.Command {
	return []*cobra.Command{
		s.getCommand(), s.describeCommand(), s.eventsCommand(), s.whyCommand(), s.treeCommand(), s.topCommand(),
		s.logsCommand(), s.execCommand(), s.attachCommand(), s.portForwardCommand(), s.imageCommand(),
		s.applyCommand(), s.createCommand(), s.deleteCommand(), s.editCommand(), s.scaleCommand(), s.rolloutCommand(),
		s.labelCommand(), s.annotateCommand(), s.cordonCommand(), s.uncordonCommand(), s.drainCommand(), s.taintCommand(),
		s.explainCommand(), s.apiResourcesCommand(), s.configCommand(),
	}
}

// Verbs are the commands as a list for the help of the program: names and one line
// each. Get is not among them: the program has one of its own.
func Verbs() []*cobra.Command {
	s := &session{}
	return s.commands()[1:]
}

// contexts reads the file of contexts.
func (s *session) contexts() (*kubecontext.Config, string, error) {
	path, err := s.configPath()
	if err != nil {
		return nil, "", err
	}
	c, err := kubecontext.Load(s.FS, path)
	return c, path, err
}

func (s *session) configPath() (string, error) {
	if s.path != "" {
		return s.path, nil
	}
	return kubecontext.DefaultPath(s.Getenv)
}

// connect makes the client of the context that is meant.
func (s *session) connect() error {
	if s.client != nil {
		return nil
	}
	c, _, err := s.contexts()
	if err != nil {
		return err
	}
	x, err := c.Context(s.context)
	if err != nil {
		return err
	}
	s.home, s.server = x.Home(), strings.Join(x.Server, ",")
	if s.namespace != "" {
		s.home = s.namespace
	}
	if s.Dial != nil {
		cc, err := s.Dial(x)
		if err != nil {
			return err
		}
		s.client = objects.New(cc, "holdfastctl")
		return nil
	}
	cc, err := x.Dial(s.FS, s.Clock)
	if err != nil {
		return err
	}
	s.client, s.close = objects.New(cc, "holdfastctl"), cc.Close
	return nil
}

// within is the context of one request.
func (s *session) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return atMost(ctx, s.timeout)
}

// atMost limits ctx to a time. 0: to none.
func atMost(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

// patience limits ctx to a time that no server is told of: one that ends a watch at the
// same moment, and is heard first, would seem to have failed.
func patience(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := atMost(ctx, limit)
	return untold{ctx}, cancel
}

// untold hides a deadline.
type untold struct{ context.Context }

// Deadline implements context.Context.
func (untold) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

// ask makes one request in its time.
func ask[T any](ctx context.Context, s *session, call func(ctx context.Context) (T, error)) (T, error) {
	ctx, cancel := s.within(ctx)
	defer cancel()
	return call(ctx)
}

// warn prints warnings as kubectl does.
func (s *session) warn(warnings ...string) {
	for _, w := range warnings {
		fmt.Fprintln(s.Err, "Warning: "+w)
	}
}

func (s *session) printf(format string, args ...any) { fmt.Fprintf(s.Out, format, args...) }

// connected is a command that needs a cluster.
func (s *session) connected(run func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := s.connect(); err != nil {
			return err
		}
		return run(cmd.Context(), args)
	}
}

// sleep waits, unless ctx ends first.
func (s *session) sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-s.Clock.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// buffered collects small writes.
func buffered(w io.Writer) *bufio.Writer { return bufio.NewWriterSize(w, 64<<10) }
