// Command kubelet is a node of a cluster: it runs the pods that are bound to it.
//
//	kubelet --server cp1:6443,cp2:6443 --token-file join.token
//	kubelet --server 127.0.0.1:6443 --cert fleet --count 1000 --certs-dir certs
//
// The second is a fleet: many simulated nodes in one process, with one certificate
// that may speak for each of them.
package main

import (
	"cmp"
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
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/logs"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/demo"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/node"
)

// Exit codes: a wrong command line is told apart from a kubelet that failed.
const (
	exitFailed = 1
	exitUsage  = 2
)

// collectPercent is how much the heap grows before it is collected, unless GOGC says
// otherwise: a node's memory is for its pods, and the heap is small and changes little.
const collectPercent = 50

func main() {
	if len(os.Args) > 1 && os.Args[1] == "demo" { // What builtin/demo runs; nothing else of this program matters to it.
		os.Exit(demo.Main(os.Args[2:], os.Stdout, os.Stderr))
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}

// removeCommand leaves the machine as it was before.
func (o *options) removeCommand(understood *bool) *cobra.Command {
	return &cobra.Command{
		Use:   "remove",
		Short: "End the pods of this machine and remove what they left",
		Long: `End the pods of a kubelet that does not run, and remove what it made for them: processes,
cgroups, networks, mounts, volumes. Its certificate and images stay; one that starts
again makes the pods anew.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.choose(cmd.Flags().Changed); err != nil {
				return err
			}
			*understood = true
			// A folder that was misspelt must not look like pods that have ended.
			if there, err := kubelet.HasRun(vfs.OS(), o.dir); err != nil || !there {
				return cmp.Or(err, fmt.Errorf("no kubelet has run with --dir %s: nothing is removed; name its folder", o.dir))
			}
			log, err := logs.New(cmd.ErrOrStderr(), "warn", logs.Console, clock.Real())
			if err != nil {
				return err
			}
			if err := o.name(); err != nil {
				return err
			}
			o.log = log
			n, err := node.Remove(cmd.Context(), *o.nodeConfig())
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%d pods removed\n", n)
			}
			return err
		},
	}
}

// usage is an error of the command line.
type usage struct{ error }

func wrong(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

func run(ctx context.Context, args []string, stderr io.Writer) int {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) // It writes past our log.
	o := &options{}
	understood := false
	cmd := &cobra.Command{
		Use:   "kubelet",
		Short: "A node of a cluster: it runs the pods that are bound to it",
		Long: `A node of a cluster: it runs the pods that are bound to it. It joins with a token of
'holdfastctl token create', once; its certificate is kept in --dir and renewed. Pods go
on when it ends, and the next one finds them. With --count it is a fleet of simulated
nodes, to try and to measure a control plane.
`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.choose(cmd.Flags().Changed); err != nil {
				return err
			}
			understood = true
			return o.run(cmd.Context(), stderr)
		},
	}
	o.flags(cmd.Flags(), cmd.PersistentFlags())
	cmd.AddCommand(o.removeCommand(&understood))
	cmd.Version = build.Version()
	cmd.SetArgs(args)
	cmd.SetErr(stderr)
	called, err := cmd.ExecuteContextC(ctx)
	if err == nil || errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return 0
	}
	fmt.Fprintf(stderr, "kubelet: %v\n", err)
	if !understood || errors.As(err, new(usage)) {
		fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", called.CommandPath())
		return exitUsage
	}
	return exitFailed
}
