package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/snapshot"
)

func (c *ctl) forkCommand() *cobra.Command {
	var dir, at string
	var f archiveFlags
	cmd := &cobra.Command{
		Use:   "fork <filename> | --archive URL --at TARGET",
		Short: "Runs a scratch cluster of one member on a snapshot or a point in time, to look around in",
		Long: `Restores a snapshot, or a point in time out of an archive, into a folder and serves it on a
free port of this machine, until interrupted. The cluster has IDs of its own and another
timeline: nothing that is done to it reaches the one that the snapshot is of.

  holdfastctl fork --archive s3://backups/prod --at before-revision=48211

Without --dir the folder is a temporary one, which goes with the command. Leases start with
their full time; keys go when theirs runs out, so look at those first.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && cmd.Flags().Changed("at"):
				return badArguments("--at %s: a snapshot file holds one point; give the URL of an archive with --archive", at)
			case len(args) == 1 && f.url == "":
				return exit(exitFailed, c.fork(cmd.Context(), args[0], fileOrigin(args[0]), dir))
			case len(args) == 0 && f.url != "":
				return exit(exitFailed, c.fork(cmd.Context(), at+" of "+f.url, pointOrigin(&f, at), dir))
			}
			return badArguments("fork expects one argument, a snapshot file, or --archive and --at")
		},
	}
	f.declare(cmd.Flags())
	cmd.Flags().StringVar(&at, "at", "latest", "point in time within the archive, as --to of restore")
	cmd.Flags().StringVar(&dir, "dir", "", "make the data directory here and keep it; must be empty or absent")
	return cmd
}

const forkName = "fork"

func (c *ctl) fork(ctx context.Context, what string, from origin, dir string) (err error) {
	scratch, err := os.MkdirTemp("", "holdfast-fork-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	file, err := from(ctx, scratch)
	if err != nil {
		return err
	}
	if dir == "" {
		dir = filepath.Join(scratch, "data")
	}
	f := &fork{ctl: c, what: what, dir: dir, listeners: map[string]net.Listener{}}
	defer f.close()
	if f.peer, err = f.listen(); err == nil {
		f.client, err = f.listen()
	}
	if err != nil {
		return err
	}
	if err := f.restore(ctx, file); err != nil {
		return err
	}
	return f.serve(ctx)
}

// fork is a cluster of one member in this process.
type fork struct {
	*ctl
	what         string // It is a fork of.
	dir          string
	peer, client string // URLs.
	listeners    map[string]net.Listener
	plan         *snapshot.Plan
}

// listen takes a free port of this machine and keeps it until the member opens it.
func (f *fork) listen() (url string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	f.listeners[l.Addr().String()] = l
	return "http://" + l.Addr().String(), nil
}

func (f *fork) close() {
	for _, l := range f.listeners {
		_ = l.Close() // The member has closed those that it took.
	}
}

func (f *fork) restore(ctx context.Context, file string) error {
	head, err := snapshot.ReadHeader(vfs.OS(), file)
	if errors.Is(err, snapshot.ErrNotSnapshot) {
		err = fmt.Errorf("%w; if it is etcd's, 'snapshot import' makes one of it", err)
	}
	if err != nil {
		return err
	}
	nonce, err := snapshot.NewNonce(rand.Reader)
	if err != nil {
		return err
	}
	f.plan, err = snapshot.PlanRestore(head.Header, snapshot.RestoreOptions{
		Members: []snapshot.Target{{Name: forkName, PeerURLs: []string{f.peer}, DataDir: f.dir}}, Nonce: nonce,
	})
	if err != nil {
		return err
	}
	bar := f.progress("restoring", -1)
	err = snapshot.Restore(ctx, snapshot.RestoreConfig{
		FS: vfs.OS(), Clock: clock.Real(), Logger: f.logger(), Random: rand.Reader, Progress: bar.set,
	}, file, f.plan)
	bar.done()
	if errors.Is(err, snapshot.ErrNotEmpty) {
		err = fmt.Errorf("%w: name another folder with --dir", err)
	}
	return err
}

func (f *fork) serve(ctx context.Context) error {
	cfg := server.DefaultConfig(f.logger())
	cfg.Name, cfg.DataDir = forkName, f.dir
	cfg.ListenPeerURLs, cfg.ListenClientURLs = []string{f.peer}, []string{f.client}
	cfg.QuotaBytes = -1 // What is here was within its own.
	cfg.Listen = func(network, address string) (net.Listener, error) {
		if l := f.listeners[address]; l != nil {
			delete(f.listeners, address)
			return l, nil
		}
		return net.Listen(network, address)
	}
	s, err := server.Start(ctx, cfg)
	if err != nil {
		return err
	}
	select {
	case <-s.Ready():
	case <-s.Done():
		return errors.Join(s.Err(), s.Close())
	case <-ctx.Done():
		return s.Close()
	}
	h := f.plan.Header
	// Both: ours goes before etcd's, and may name the cluster that this one is a fork of.
	fmt.Fprintf(f.out, "Fork of %s at revision %d (index %d), in %s, until interrupted. Paste in another terminal:\n\n  export HOLDFASTCTL_ENDPOINTS=%[5]s ETCDCTL_ENDPOINTS=%[5]s\n\n",
		f.what, h.Revision, h.Applied.GetIndex(), absolute(f.dir), f.client)
	select {
	case <-s.Done():
		return errors.Join(s.Err(), s.Close())
	case <-ctx.Done():
		return s.Close()
	}
}
