// Command holdfastctl talks to a cluster from the command line, and mends one.
//
//	holdfastctl put color blue        the verbs and forms of etcdctl
//	holdfastctl snapshot restore …    a new cluster out of a snapshot
//	holdfastctl bench put             load, and how long requests took
//	holdfastctl certs ca              certificates for members and clients
//	holdfastctl inspect wal …         what lies in a data directory
//
// Called etcdctl or etcdutl it has the commands of that program (tools.go).
//
// One file holds one command: its flags, what it asks, and the forms in which it
// prints the answer. What goes to standard output is for programs too and equals
// what etcdctl prints; everything else goes to standard error.
//
// It keeps nothing between runs. What it writes (snapshots, data directories,
// certificates) appears under its name only when it is whole and durable.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	wire "google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/cmd/holdfastctl/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // Whoever interrupts twice does not wait for the command to end.
	c := &ctl{tool: toolNamed(os.Args[0]), in: os.Stdin, out: os.Stdout, err: os.Stderr, environ: os.Environ()}
	code := c.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run executes one command line and returns the exit code. What could not be printed
// is a failure, whether the command looked or not.
func (c *ctl) run(ctx context.Context, args []string) int {
	ctx, out := cluster.NewOutput(ctx, c.out)
	defer out.Failed()
	c.out = out
	code := c.execute(ctx, args)
	if out.Err != nil && code == exitSuccess {
		fmt.Fprintln(c.err, "Error: write the answer:", out.Err)
		return exitFailed
	}
	return code
}

func (c *ctl) execute(ctx context.Context, args []string) int {
	if code, ok := c.runObjects(ctx, args); ok {
		return code
	}
	root := c.rootCommand()
	root.SetArgs(args)
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	cmd, err := c.known(root, args)
	if err == nil {
		cmd, err = root.ExecuteContextC(ctx)
	}
	if err == nil {
		return exitSuccess
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		// Cobra's own: an unknown command or flag, or a value that does not fit.
		fmt.Fprintf(c.err, "Error: %v\nRun '%s --help' for usage.\n", err, cmd.CommandPath())
		return exitFailed
	}
	if ctx.Err() != nil && exit.code == exitFailed && canceled(exit.err) {
		exit = &exitError{exitInterrupted, fmt.Errorf("interrupted: %w", exit.err)}
	}
	if exit.err != nil {
		fmt.Fprintln(c.err, "Error:", c.explain(exit.err, c.globals.endpoints...))
	}
	if c.is(etcdctl) && exit.code == exitFailed && errors.Is(exit.err, client.ErrAuthFailed) {
		return exitConnection // It logs in while it connects.
	}
	return exit.code
}

// known refuses a word that is none of a command's subcommands, after help too. Cobra, and
// so etcdctl, answers with the help of the command and success, which a script takes for
// its work done.
func (c *ctl) known(root *cobra.Command, args []string) (*cobra.Command, error) {
	helps := c.tool == nil && len(args) > 1 && args[0] == "help"
	if helps {
		args = args[1:]
	}
	cmd, rest, err := root.Find(args)
	if helps && err != nil {
		return cmd, err
	}
	if c.tool != nil || err != nil || cmd.Runnable() || !cmd.HasParent() {
		return cmd, nil
	}
	cmd.InitDefaultHelpFlag()
	if cmd.ParseFlags(rest) != nil || cmd.Flags().NArg() == 0 || cmd.Flags().Lookup("help").Changed {
		return cmd, nil
	}
	var there []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			there = append(there, sub.Name())
		}
	}
	return cmd, fmt.Errorf("unknown command %q for %q: there are %s", cmd.Flags().Arg(0), cmd.CommandPath(), strings.Join(there, ", "))
}

// canceled reports whether an error is nothing but the end of the command's context.
func canceled(err error) bool {
	return errors.Is(err, context.Canceled) || wire.Code(err) == codes.Canceled
}

// ctl is one run of the program.
type ctl struct {
	tool     *tool // Whose name it was called by; nil: its own.
	in       io.Reader
	out, err io.Writer
	environ  []string
	dial     dialFunc   // Replaces the network in tests.
	lookup   lookupFunc // Replaces DNS in tests.

	lines    *bufio.Reader // Of in, once passwords were read from it.
	globals  globals
	noClient error // Why no cluster can be asked; nil: it can.
}
