// Command controlplane is the head of a cluster: a member of the store, the API of
// the cluster's state over it, the scheduler and the controllers.
//
//	controlplane --name a --data-dir /var/lib/holdfast …   one control plane; one or three make a cluster
//	controlplane dev                                       all of a cluster on this machine, to try things
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/grpclog"

	"github.com/holdfast-db/holdfast/internal/build"
	"github.com/holdfast-db/holdfast/kube/demo"
)

// Exit codes: a wrong command line is told apart from a control plane that failed.
const (
	exitFailed = 1
	exitUsage  = 2
)

// collectPercent is how much the heap grows before it is collected, unless GOGC says
// otherwise: a control plane stands beside what it controls on many machines, and what
// it saves on memory costs a few hundredths of its processor.
const collectPercent = 75

func main() {
	if len(os.Args) > 1 && os.Args[1] == "demo" { // What builtin/demo runs; nothing else of this program matters to it.
		os.Exit(demo.Main(os.Args[2:], os.Stdout, os.Stderr))
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// failure is an error of a command that was understood.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) // It writes past our log.
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(failure)):
		fmt.Fprintf(stderr, "%s: %v\n", cmd.CommandPath(), err)
		return exitFailed
	}
	fmt.Fprintf(stderr, "%s: %v\nRun '%s --help' for usage.\n", cmd.CommandPath(), err, cmd.CommandPath())
	return exitUsage
}

func rootCommand() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "controlplane",
		Short: "A control plane: member of the store, API, scheduler and controllers",
		Long: `A control plane: a member of the store, the API of the cluster's state over it, the
scheduler and the controllers. One makes a cluster; with three of them, one may fail.
Certificates come from one folder, as 'holdfastctl certs set' writes it.
`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       build.Version(),
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.config(cmd.ErrOrStderr())
			if err != nil {
				return failure{err}
			}
			return failed(runPlane(cmd.Context(), cfg, nil))
		},
	}
	o.flags(root.Flags())
	root.AddCommand(devCommand())
	return root
}

func failed(err error) error {
	if err == nil {
		return nil
	}
	return failure{err}
}
