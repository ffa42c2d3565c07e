package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

type mirrorFlags struct {
	prefix, destPrefix string
	noDestPrefix       bool
	rev                int64
	txnOpsMax          uint
	tls                tlsFlags
	account            account
}

func (f *mirrorFlags) declare(fs *pflag.FlagSet) {
	fs.StringVar(&f.prefix, "prefix", "", "mirror only keys that begin with this")
	fs.StringVar(&f.destPrefix, "dest-prefix", "", "put this in place of the prefix at the destination")
	fs.BoolVar(&f.noDestPrefix, "no-dest-prefix", false, "put nothing in place of the prefix at the destination")
	fs.Int64Var(&f.rev, "rev", 0, "mirror changes from this revision on, and not what is there")
	fs.UintVar(&f.txnOpsMax, "max-txn-ops", 128, "greatest number of operations in one transaction at the destination")
	f.tls.declare(fs, "dest-", "the destination")
	f.account.prefix, f.account.prompt = "dest-", "Destination "
	fs.StringVar(&f.account.user, "dest-user", "", "username[:password] at the destination (asks for the password if it is not given)")
	fs.StringVar(&f.account.password, "dest-password", "", "password at the destination")
}

// mirrorReport is how often the number of keys is printed, as by etcdctl.
const mirrorReport = 30 * time.Second

func (c *ctl) mirrorCommand() *cobra.Command {
	var f mirrorFlags
	cmd := &cobra.Command{
		Use:   "make-mirror [options] <destination>",
		Short: "Makes a mirror at the destination etcd cluster",
		Long: `Copies keys to another cluster, then each change as it happens, until it is interrupted.

What is there is copied in transactions of up to --max-txn-ops keys; then the changes of
one revision are one transaction at the destination. An answer that is lost does no harm:
what it was about is written again. Leases are not mirrored. Every 30 seconds the number
of keys written so far is printed.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) != 1:
				return badArguments("make-mirror takes one destination argument")
			case f.destPrefix != "" && f.noDestPrefix:
				return badArguments("`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one")
			case f.txnOpsMax == 0:
				return badArguments("--max-txn-ops must be at least 1")
			}
			return c.makeMirror(cmd.Context(), &f, strings.Split(args[0], ","))
		},
	}
	f.declare(cmd.Flags())
	return cmd
}

func (c *ctl) makeMirror(ctx context.Context, f *mirrorFlags, endpoints []string) error {
	from, err := c.client()
	if err != nil {
		return err
	}
	defer from.Close()
	defer c.tellUnreached(ctx, from)()
	config, err := c.tlsFor(&f.tls, endpoints)
	if err != nil {
		return exit(exitArguments, err)
	}
	to, err := c.connect(endpoints, config, &f.account, false)
	if err != nil {
		return err
	}
	defer to.Close()
	m := &mirror{flags: f, from: from, to: to}
	tasks := task.New(ctx)
	tasks.Go("report", func(ctx context.Context) error { return c.reportMirror(ctx, m) })
	err = m.run(ctx)
	tasks.Stop()
	if ctx.Err() != nil {
		return nil
	}
	return exit(exitFailed, errors.Join(err, tasks.Wait()))
}

func (c *ctl) reportMirror(ctx context.Context, m *mirror) error {
	ticker := time.NewTicker(mirrorReport)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			fmt.Fprintln(c.out, m.total.Load())
		case <-ctx.Done():
			return nil
		}
	}
}

// mirror writes to one cluster what another has.
type mirror struct {
	flags    *mirrorFlags
	from, to *client.Client
	total    atomic.Int64 // Operations at the destination.
	ops      []client.Op  // Of one revision, or of the first copy, not written yet.
	bytes    int          // In them, as far as the first copy counts.
}

func (m *mirror) run(ctx context.Context) error {
	all, next := client.Prefix(m.flags.prefix), m.flags.rev
	if next == 0 {
		head, err := m.from.Get(ctx, client.Get{Range: client.One("\x00"), CountOnly: true})
		if err != nil {
			return err
		}
		if err := m.copy(ctx, all, head.Header.Revision); err != nil {
			return err
		}
		next = head.Header.Revision + 1
	}
	w := m.from.Watch(ctx, client.Watch{Range: all, Revision: next})
	for r := range w.Reports() {
		var revision int64
		for _, e := range r.Events {
			if e.Kv.ModRevision != revision {
				if err := m.flush(ctx); err != nil {
					return err
				}
				revision = e.Kv.ModRevision
			}
			key := m.key(e.Kv.Key)
			var op client.Op = client.Put{Key: key, Value: e.Kv.Value}
			if e.Type == mvccpb.Event_DELETE {
				op = client.Delete{Range: client.One(key)}
			}
			if err := m.add(ctx, op); err != nil {
				return err
			}
		}
		if err := m.flush(ctx); err != nil {
			return err
		}
	}
	return w.Err()
}

// mirrorPage is how many keys are read at a time: the source may be one that
// knows no streams.
const mirrorPage = 1000

// mirrorTxnBytes of keys and values are written at a time by the first copy: a
// third of what a member takes in one request by default.
const mirrorTxnBytes = 512 << 10

// copy writes what is there at a revision.
func (m *mirror) copy(ctx context.Context, all client.Range, revision int64) error {
	for {
		r, err := m.from.Get(ctx, client.Get{Range: all, Revision: revision, Limit: mirrorPage})
		if err != nil {
			return err
		}
		for _, kv := range r.Kvs {
			size := len(kv.Key) + len(kv.Value)
			if m.bytes > 0 && m.bytes+size > mirrorTxnBytes {
				if err := m.flush(ctx); err != nil {
					return err
				}
			}
			if err := m.add(ctx, client.Put{Key: m.key(kv.Key), Value: kv.Value}); err != nil {
				return err
			}
			m.bytes += size
		}
		if !r.More {
			return m.flush(ctx)
		}
		all.Key = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

func (m *mirror) add(ctx context.Context, op client.Op) error {
	if len(m.ops) == int(m.flags.txnOpsMax) {
		if err := m.flush(ctx); err != nil {
			return err
		}
	}
	m.ops = append(m.ops, op)
	return nil
}

// flush writes what waits. The same puts and deletes again do no harm, so that
// an unknown outcome is made a known one.
func (m *mirror) flush(ctx context.Context) error {
	if len(m.ops) == 0 {
		return nil
	}
	for {
		_, err := m.to.Txn(ctx, client.Txn{Then: m.ops})
		if errors.Is(err, client.ErrUnknownOutcome) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		m.total.Add(int64(len(m.ops)))
		m.ops, m.bytes = nil, 0
		return nil
	}
}

// key is the name that a key has at the destination.
func (m *mirror) key(key []byte) string {
	if m.flags.destPrefix == "" && !m.flags.noDestPrefix {
		return string(key)
	}
	return m.flags.destPrefix + strings.TrimPrefix(string(key), m.flags.prefix)
}
