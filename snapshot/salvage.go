package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// KeyChange is what became of a key.
type KeyChange struct {
	Key      []byte
	Value    []byte // Of the last put.
	Lease    int64  // The same.
	Deleted  bool
	Index    ident.Index    // Of the last change.
	Revision ident.Revision // The same.
	Before   ident.Revision // That changed the key last before; 0: there was none.
}

// ChangesAfter tells what a stopped member's log, up to and with the entry until,
// did to keys after an entry: the last change of each key, in the order in which
// keys changed first. The directory is only read; the log is applied to a copy
// of its state in the folder scratch, which is removed.
func ChangesAfter(ctx context.Context, cfg RestoreConfig, src DirSource, until wal.Mark, scratch string, after ident.Index) ([]KeyChange, error) {
	store, err := openCopy(ctx, cfg, src, until, scratch)
	if err != nil {
		return nil, fmt.Errorf("changes in %s: %w", src.DataDir, err)
	}
	list, err := changesAfter(ctx, store, after)
	if err = errors.Join(err, store.Close()); err != nil {
		return nil, fmt.Errorf("changes in %s: %w", src.DataDir, err)
	}
	return list, cfg.FS.RemoveAll(scratch)
}

func changesAfter(ctx context.Context, store *mvcc.Store, after ident.Index) ([]KeyChange, error) {
	r, err := store.History().Scan(ident.Position{Index: after + 1})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var list []KeyChange
	at := map[string]int{}
	var before ident.Revision // The head after the entry.
	for first := true; ; first = false {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if first && rec.PrevIndex > after {
			return nil, fmt.Errorf("history begins with entry %d, wanted is all after %d: %w", rec.Index, after, mvcc.ErrCompacted)
		}
		if rev := firstRevision(rec); before == 0 && rev != 0 {
			before = rev - 1
		}
		if list, err = addChanges(list, at, rec); err != nil {
			return nil, err
		}
	}
	return list, lookBefore(ctx, store, list, before)
}

// addChanges takes a record in.
func addChanges(list []KeyChange, at map[string]int, rec *history.Record) ([]KeyChange, error) {
	for g := range rec.Groups {
		for _, m := range rec.Groups[g].Mutations {
			if m.Kind != history.KeyPut && m.Kind != history.KeyDelete {
				continue
			}
			c := KeyChange{Key: append([]byte(nil), m.Key...), Index: rec.Index, Revision: rec.Groups[g].Revision, Deleted: m.Kind == history.KeyDelete}
			if !c.Deleted {
				kv := &mvccpb.KeyValue{}
				if err := kv.UnmarshalVT(m.Value); err != nil {
					return nil, fmt.Errorf("entry %d: value of key %q: %w", rec.Index, m.Key, err)
				}
				c.Value, c.Lease = append([]byte(nil), kv.Value...), kv.Lease
			}
			i, known := at[string(m.Key)]
			if !known {
				i = len(list)
				at[string(m.Key)] = i
				list = append(list, c)
			}
			list[i] = c
		}
	}
	return list, nil
}

// lookBefore finds what had changed the keys last at a revision.
func lookBefore(ctx context.Context, store *mvcc.Store, list []KeyChange, at ident.Revision) error {
	if at <= 0 {
		return nil // Nothing was there.
	}
	view := store.View()
	defer view.Release()
	for i := range list {
		got, err := view.Range(ctx, mvcc.RangeArgs{Key: list[i].Key, Revision: at})
		if err != nil {
			return err
		}
		if len(got.KVs) == 0 {
			continue
		}
		kv := &mvccpb.KeyValue{}
		if err := kv.UnmarshalVT(got.KVs[0]); err != nil {
			return fmt.Errorf("key %q: %w", list[i].Key, err)
		}
		list[i].Before = ident.Revision(kv.ModRevision)
	}
	return nil
}
