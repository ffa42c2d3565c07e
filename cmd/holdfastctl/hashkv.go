package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/snapshot"
)

const (
	lockWaitDefault = 10 * time.Second // etcdutl's.
	lockPause       = 50 * time.Millisecond
)

// lockWaitFlag declares how long a data directory may be in use by another.
func (c *ctl) lockWaitFlag(fs *pflag.FlagSet) {
	fs.DurationVar(&c.globals.lockWait, "timeout", lockWaitDefault, "time to wait for a data directory that is in use; 0: as long as it takes")
}

// waiting calls fn until the data directory is free that it opens.
func (c *ctl) waiting(ctx context.Context, fn func() error) error {
	clk := clock.Real()
	for start := clk.Mono(); ; {
		err := fn()
		if !errors.Is(err, datadir.ErrLocked) || c.globals.lockWait > 0 && clk.Mono()-start >= c.globals.lockWait {
			return err
		}
		select {
		case <-clk.After(lockPause):
		case <-ctx.Done():
			return exit(exitInterrupted, err)
		}
	}
}

func (c *ctl) hashKVCommand() *cobra.Command {
	var revision int64
	cmd := &cobra.Command{
		Use:   "hashkv <filename>",
		Short: "Prints the KV history hash of a given file",
		Long: `Prints the hash of the keys and their history in a snapshot, or in the data directory of a
stopped member. It equals what 'endpoint hashkv' gets of members at the same revision, where
the compacted revision is the same too. Every byte is verified on the way.
`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.needForm(endpointForms...); err != nil {
				return err
			}
			h, err := c.hashFile(cmd.Context(), args[0], ident.Revision(revision))
			if err != nil {
				return exit(exitFailed, err)
			}
			return c.print(fileHashAnswer(h))
		},
	}
	cmd.Flags().Int64Var(&revision, "rev", 0, "greatest revision to hash (default: the latest)")
	if !c.is(etcdutl) {
		c.lockWaitFlag(cmd.Flags())
	}
	return cmd
}

func fileHashAnswer(h mvcc.Hash) answer {
	table := &grid{head: []string{"hash", "hash revision", "compact revision"}}
	table.add(fmt.Sprint(h.Hash), fmt.Sprint(h.Revision), fmt.Sprint(h.Compacted))
	return answer{
		table: table,
		fields: func(p *page) {
			p.field("Hash", h.Hash)
			p.field("Hash revision", h.Revision)
			p.field("Compact revision", h.Compacted)
		},
		json: struct {
			Hash            uint32 `json:"hash"`
			HashRevision    int64  `json:"hashRevision"`
			CompactRevision int64  `json:"compactRevision"`
		}{h.Hash, int64(h.Revision), int64(h.Compacted)},
	}
}

// hashFile restores a snapshot into a scratch folder and hashes what is there,
// as a member would.
func (c *ctl) hashFile(ctx context.Context, path string, revision ident.Revision) (h mvcc.Hash, err error) {
	scratch, err := os.MkdirTemp("", "holdfastctl-")
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	info, err := os.Stat(path)
	if err != nil {
		return h, err
	}
	if info.IsDir() {
		src := snapshot.DirSource{FS: vfs.OS(), Clock: clock.Real(), Logger: c.logger(), DataDir: path}
		path = filepath.Join(scratch, "saved.snap")
		err := c.waiting(ctx, func() error {
			_, err := snapshot.SaveFromDir(ctx, src, path, snapshot.WriteOptions{})
			return err
		})
		if err != nil {
			return h, err
		}
	}
	head, err := snapshot.ReadHeader(vfs.OS(), path)
	if err != nil {
		return h, err
	}
	data := filepath.Join(scratch, "data")
	plan, err := snapshot.PlanRestore(head.Header, snapshot.RestoreOptions{
		Members: []snapshot.Target{{Name: defaultName, PeerURLs: []string{defaultPeerURL}, DataDir: data}}, Nonce: "hash",
	})
	if err != nil {
		return h, err
	}
	err = snapshot.Restore(ctx, snapshot.RestoreConfig{
		FS: vfs.OS(), Clock: clock.Real(), Logger: c.logger(), Random: rand.Reader,
	}, path, plan)
	if err != nil {
		return h, err
	}
	return c.hashDir(ctx, data, revision)
}

func (c *ctl) hashDir(ctx context.Context, data string, revision ident.Revision) (h mvcc.Hash, err error) {
	o, err := openDataDir(data)
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, o.dir.Close()) }()
	store, err := mvcc.Open(mvcc.Config{FS: vfs.OS(), Dir: o.dir.Generation(o.generation), Clock: clock.Real(), Logger: c.logger()})
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return store.HashKV(ctx, revision)
}
