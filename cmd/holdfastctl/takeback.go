package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// takeBack makes the keys of a running cluster under a prefix what they were at
// a point in time.
func (c *ctl) takeBack(ctx context.Context, p *pointFlags, dryRun bool) error {
	if err := c.needForm(diffForms...); err != nil {
		return err
	}
	from := fileOrigin(p.from)
	if strings.Contains(p.from, "://") {
		p.url = p.from
		from = pointOrigin(&p.archiveFlags, p.to)
	} else if p.to != "latest" {
		return badArguments("--to %s: a snapshot file holds one point; give the URL of an archive", p.to)
	}
	then, err := openFileKeys(ctx, from, p.prefix)
	if err != nil {
		return exit(exitFailed, err)
	}
	defer then.close()
	now, err := c.openLiveKeys(livePoint, p.prefix, 0)
	if err != nil {
		return err
	}
	defer now.close()
	t := &takingBack{ctl: c, client: now.client, dryRun: dryRun, out: &diffOutput{c: c}}
	same := func(a, b *mvccpb.KeyValue) bool { return bytes.Equal(a.Value, b.Value) }
	err = differences(ctx, now, then, same, func(a, b *mvccpb.KeyValue) error { return t.add(ctx, a, b) })
	if err == nil {
		err = t.flush(ctx)
	}
	if err = errors.Join(err, t.out.end()); err != nil {
		return exit(exitFailed, err)
	}
	return t.sum()
}

// takingBack gathers changes into transactions that take place only if no key
// of theirs was written since it was looked at.
type takingBack struct {
	*ctl
	client *client.Client
	dryRun bool
	out    *diffOutput

	batch []keyChange
	bytes int

	done, leases, conflicts int
}

// keyChange takes a key from what it is to what it was; nil where it is or was
// not.
type keyChange struct{ now, then *mvccpb.KeyValue }

const (
	takeBackKeysMax  = 64 // A transaction may have 128 operations unless told otherwise.
	takeBackBytesMax = 512 << 10
)

func (t *takingBack) add(ctx context.Context, now, then *mvccpb.KeyValue) error {
	if err := t.out.add(now, then); err != nil {
		return err
	}
	if then.GetLease() != 0 {
		t.leases++
	}
	if t.dryRun {
		return nil
	}
	change := keyChange{now, then}
	size := len(change.key()) + len(then.GetValue())
	if len(t.batch) == takeBackKeysMax || len(t.batch) > 0 && t.bytes+size > takeBackBytesMax {
		if err := t.flush(ctx); err != nil {
			return err
		}
	}
	t.batch, t.bytes = append(t.batch, change), t.bytes+size
	return nil
}

// flush tries all that was gathered at once. When somebody wrote one of the
// keys, each is tried by itself.
func (t *takingBack) flush(ctx context.Context) error {
	batch := t.batch
	t.batch, t.bytes = nil, 0
	if len(batch) == 0 {
		return nil
	}
	ok, err := t.commit(ctx, batch)
	if err != nil || ok {
		return err
	}
	for i := range batch {
		ok, err := t.commit(ctx, batch[i:i+1])
		if err != nil {
			return err
		}
		if !ok {
			t.conflicts++
			fmt.Fprintf(t.err, "left alone, written meanwhile: %q\n", batch[i].key())
		}
	}
	return nil
}

func (t *takingBack) commit(ctx context.Context, batch []keyChange) (ok bool, err error) {
	var txn client.Txn
	for i := range batch {
		key := batch[i].key()
		if now := batch[i].now; now == nil {
			txn.If = append(txn.If, client.IfCreated(key, pb.Compare_EQUAL, 0))
		} else {
			txn.If = append(txn.If, client.IfModified(key, pb.Compare_EQUAL, now.ModRevision))
		}
		if then := batch[i].then; then == nil {
			txn.Then = append(txn.Then, client.Delete{Range: client.One(key)})
		} else {
			txn.Then = append(txn.Then, client.Put{Key: key, Value: then.Value})
		}
	}
	r, err := t.client.Txn(ctx, txn)
	if err != nil {
		return false, fmt.Errorf("%d keys were taken back before this; run it again to go on: %w", t.done, err)
	}
	if r.Succeeded {
		t.done += len(batch)
	}
	return r.Succeeded, nil
}

func (k *keyChange) key() string {
	if k.now != nil {
		return string(k.now.Key)
	}
	return string(k.then.Key)
}

func (t *takingBack) sum() error {
	if t.dryRun {
		fmt.Fprintln(t.err, "Nothing was done: --dry-run.")
		return nil
	}
	fmt.Fprintf(t.err, "%d keys taken back.\n", t.done)
	if t.leases > 0 {
		fmt.Fprintf(t.err, "%d of them had leases then, and have none now.\n", t.leases)
	}
	if t.conflicts > 0 {
		return exit(exitFailed, fmt.Errorf("%d keys were written meanwhile and left alone; run it again to see what is left", t.conflicts))
	}
	return nil
}
