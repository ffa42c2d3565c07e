package cluster

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

type execFlags struct {
	container         string
	stdin, tty, quiet bool
}

func (f *execFlags) declare(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&f.container, "container", "c", "", "name of the container")
	fs.BoolVarP(&f.stdin, "stdin", "i", false, "with what is typed")
	fs.BoolVarP(&f.tty, "tty", "t", false, "with a terminal")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print nothing but what the container writes")
}

// exitCode ends a command as one in a container ended.
type exitCode struct{ code int32 }

func (e *exitCode) Error() string {
	return fmt.Sprintf("command terminated with exit code %d", e.code)
}

func (s *session) execCommand() *cobra.Command {
	var f execFlags
	cmd := &cobra.Command{
		Use:   "exec (POD | TYPE/NAME) [-it] [-c CONTAINER] -- COMMAND [ARGS...]",
		Short: "Runs a command in a container",
		Example: `  exec web-1 -- date
  exec -it web-1 -c proxy -- sh
  exec deployment/web -- cat /etc/hosts`,
		RunE: func(cmd *cobra.Command, args []string) error {
			word, command, err := execArgs(args, cmd.ArgsLenAtDash())
			if err != nil {
				return err
			}
			return s.connected(func(ctx context.Context, _ []string) error { return s.exec(ctx, &f, word, command) })(cmd, nil)
		},
	}
	f.declare(cmd)
	return cmd
}

// execArgs takes apart what stands before and behind "--".
func execArgs(args []string, dash int) (word string, command []string, err error) {
	switch {
	case len(args) == 0 || dash == 0:
		return "", nil, usage("pod or type/name must be specified")
	case dash < 0 && len(args) > 1:
		return "", nil, usage("exec POD COMMAND is not supported: use exec POD -- COMMAND")
	case dash > 1:
		return "", nil, usage("name one pod before --")
	case dash < 0 || len(args) == dash:
		return "", nil, usage("you must specify at least one command for the container: exec POD -- COMMAND")
	}
	return args[0], args[dash:], nil
}

func (s *session) exec(ctx context.Context, f *execFlags, word string, command []string) error {
	p, container, err := s.running(ctx, f, word)
	if err != nil {
		return err
	}
	console, err := s.console(f.stdin, f.tty, f.quiet)
	if err != nil {
		return err
	}
	code, err := tunnel.Exec(ctx, s.client.RPC(), &kubepb.ExecRequest{Of: in(p, container), Command: command, Stdin: f.stdin, Tty: console.tty}, console.streams)
	console.restore()
	if err != nil {
		return reached(err, p, container)
	}
	if code != 0 {
		return &exitCode{code}
	}
	return nil
}

// running is the container that is meant, of a pod that has not ended.
func (s *session) running(ctx context.Context, f *execFlags, word string) (*corev1.Pod, string, error) {
	p, err := s.podFor(ctx, word)
	if err != nil {
		return nil, "", err
	}
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil, "", fmt.Errorf("cannot exec or attach into a container in a completed pod; current phase is %s", p.Status.Phase)
	}
	container, err := s.containerFor(p, f.container, f.quiet)
	return p, container, err
}

func (s *session) attachCommand() *cobra.Command {
	var f execFlags
	cmd := &cobra.Command{
		Use:   "attach (POD | TYPE/NAME) [-it] [-c CONTAINER]",
		Short: "Joins what a container writes and reads",
		RunE: s.connected(func(ctx context.Context, args []string) error {
			if len(args) != 1 {
				return usage("name one POD or TYPE/NAME to attach to")
			}
			return s.attach(ctx, &f, args[0])
		}),
	}
	f.declare(cmd)
	return cmd
}

func (s *session) attach(ctx context.Context, f *execFlags, word string) error {
	p, container, err := s.running(ctx, f, word)
	if err != nil {
		return err
	}
	all := slices.Concat(p.Spec.InitContainers, p.Spec.Containers)
	i := slices.IndexFunc(all, func(c corev1.Container) bool { return c.Name == container })
	has := corev1.Container{}
	if i >= 0 {
		has = all[i]
	}
	tty := f.tty
	if tty && !has.TTY {
		tty = false
		if !f.quiet {
			fmt.Fprintf(s.Err, "Unable to use a TTY - container %s did not allocate one\n", container)
		}
	}
	console, err := s.console(f.stdin, tty, f.quiet)
	if err != nil {
		return err
	}
	if f.stdin && console.tty && !f.quiet {
		fmt.Fprintln(s.Err, "If you don't see a command prompt, try pressing enter.")
	}
	// A container with a terminal has one, whatever is here.
	err = tunnel.Attach(ctx, s.client.RPC(), &kubepb.AttachRequest{Of: in(p, container), Stdin: f.stdin, Tty: console.tty || has.TTY}, console.streams)
	console.restore()
	if ctx.Err() != nil {
		return nil // A person has seen enough; the container goes on.
	}
	return reached(err, p, container)
}
