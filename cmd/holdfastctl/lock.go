package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/client/recipe"
	"github.com/holdfast-db/holdfast/cmd/holdfastctl/cluster"
	"github.com/holdfast-db/holdfast/internal/task"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

func (c *ctl) lockCommand() *cobra.Command {
	var ttl int64
	cmd := &cobra.Command{
		Use:   "lock <lockname> [exec-command arg1 arg2 ...]",
		Short: "Acquires a named lock",
		Long: `Acquires a lock and holds it until it is interrupted, or while a command runs.

A command with flags goes after --:

  lock <lockname> -- <command> --flag

The command has ETCD_LOCK_KEY and ETCD_LOCK_REV in its environment, and its exit
code is that of lock.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return badArguments("lock takes a lock name argument and an optional command to execute")
			}
			if err := c.needForm(requestForms...); err != nil {
				return err
			}
			return c.lock(cmd.Context(), ttl, args[0], args[1:])
		},
	}
	cmd.Flags().Int64Var(&ttl, "ttl", 10, "seconds until the lock is free when this program is gone")
	return cmd
}

// lock ends well when ctx does while it holds the lock: somebody has enough.
func (c *ctl) lock(ctx context.Context, ttl int64, name string, command []string) (err error) {
	cl, session, err := c.session(ctx, ttl)
	if err != nil {
		return err
	}
	defer cl.Close()
	defer func() { err = errors.Join(err, c.endSession(ctx, session)) }()
	l := recipe.NewLock(session, name)
	if err := l.Lock(ctx); err != nil {
		return exit(exitFailed, err)
	}
	held, err := cl.Get(ctx, client.Get{Range: client.One(l.Key())})
	switch {
	case err != nil:
		return exit(exitFailed, err)
	case len(held.Kvs) == 0:
		return exit(exitFailed, errors.New("lock lost on init"))
	}
	if len(command) > 0 {
		return c.under(ctx, session, command, fmt.Sprintf("ETCD_LOCK_KEY=%s", l.Key()), fmt.Sprintf("ETCD_LOCK_REV=%d", held.Header.Revision))
	}
	if err := c.printRange(held); err != nil {
		return err
	}
	return untilEnough(ctx, session, errSessionOver)
}

// session begins a session that outlives ctx, so that it can be closed.
func (c *ctl) session(ctx context.Context, ttl int64) (*client.Client, *recipe.Session, error) {
	cl, err := c.client()
	if err != nil {
		return nil, nil, err
	}
	// Only the grant has a time limit: the session itself goes on.
	short, cancel := c.limited(ctx)
	defer cancel()
	granted, err := cl.Grant(short, ttl, 0)
	if err == nil {
		var session *recipe.Session
		if session, err = recipe.NewSession(context.WithoutCancel(ctx), cl, recipe.SessionConfig{Lease: granted.ID}); err == nil {
			return cl, session, nil
		}
	}
	return nil, nil, errors.Join(exit(exitFailed, err), cl.Close())
}

// endSession lets go of everything, also after an interrupt. Where that fails,
// the lease does it.
func (c *ctl) endSession(ctx context.Context, session *recipe.Session) error {
	ctx, cancel := c.limited(context.WithoutCancel(ctx))
	defer cancel()
	return exit(exitFailed, session.Close(ctx))
}

// under runs a command, and passes on how it ended. When the session is over,
// somebody else may have the lock: the command is told to end.
func (c *ctl) under(ctx context.Context, session *recipe.Session, command []string, environ ...string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tasks := task.New(ctx)
	tasks.Go("session", func(ctx context.Context) error {
		select {
		case <-session.Done():
			cancel(errSessionOver)
		case <-ctx.Done():
		}
		return nil
	})
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = commandPatience
	cmd.Env = append(slices.Clone(c.environ), environ...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.in, cluster.Terminal(c.out), c.err
	err := cmd.Run()
	if errors.Is(context.Cause(ctx), errSessionOver) {
		return exit(exitFailed, errSessionOver)
	}
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		if code := ended.ExitCode(); code > 0 {
			return &exitError{code, nil}
		}
	}
	return exit(exitFailed, err)
}

var errSessionOver = errors.New("session expired")

// commandPatience is how long a command that was told to end may take.
const commandPatience = 10 * time.Second

// untilEnough returns when the user has enough, or with an error when the session is over.
func untilEnough(ctx context.Context, session *recipe.Session, lost error) error {
	select {
	case <-ctx.Done():
		return nil
	case <-session.Done():
		return exit(exitFailed, lost)
	}
}

func (c *ctl) printRange(r *pb.RangeResponse) error {
	return c.print(answer{simple: func(p *page) { p.kvs(r.Kvs) }, fields: func(p *page) { p.rangeFields(r) }, json: r, proto: r})
}
