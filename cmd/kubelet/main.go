// Command kubelet is a node of a cluster: it runs the pods that are bound to it.
//
//	kubelet --server cp1:6443,cp2:6443 --token-file join.token --runtime sim
//	kubelet --server 127.0.0.1:6443 --runtime sim --count 1000 --certs-dir certs
//
// The second is a fleet: many simulated nodes in one process, with one certificate
// that may speak for each of them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/grpclog"
)

// Exit codes: a wrong command line is told apart from a kubelet that failed.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
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
'holdfastctl token create', once; its certificate is kept in --dir and renewed. With
--count it is a fleet of simulated nodes, to try and to measure a control plane.
`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			understood = true
			return o.run(cmd.Context(), stderr)
		},
	}
	o.flags(cmd.Flags())
	cmd.SetArgs(args)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	if err == nil || errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return 0
	}
	fmt.Fprintf(stderr, "kubelet: %v\n", err)
	if !understood || errors.As(err, new(usage)) {
		return exitUsage
	}
	return exitFailed
}
