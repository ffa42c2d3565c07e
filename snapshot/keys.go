package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/holdfast-db/holdfast/internal/spill"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
)

// Keys gives the keys of a snapshot file as of its position, by rising key, in
// memory that does not grow with them: what history has changed is sorted on
// disk, and merged with base on the way.
type Keys struct {
	Header *holdfastpb.SnapshotHeader
	Rows   []backend.RowChange // The small rows as of the position, by table and key.

	ctx     context.Context
	file    vfs.File
	size    int64
	reader  *reader
	sorter  *spill.Sorter
	changes *spill.Iterator

	base, change       []byte // The next key of each; nil: none is left.
	baseRow, changeRow []byte
}

// OpenKeys verifies every byte of a snapshot file, as StatusOf does. scratch is
// an empty folder for what does not fit into memory; Close empties it.
func OpenKeys(ctx context.Context, fsys vfs.FS, path, scratch string) (*Keys, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	k := &Keys{ctx: ctx, file: f, sorter: spill.New(spill.Config{FS: fsys, Dir: scratch})}
	if k.size, err = f.Size(); err == nil {
		if err = k.verify(); err == nil {
			err = k.begin()
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("snapshot %s: %w", path, err), k.Close())
	}
	return k, nil
}

func (k *Keys) open() (err error) {
	if k.reader != nil {
		k.reader.close()
		k.reader = nil
	}
	r, err := newReader(io.NewSectionReader(k.file, 0, k.size))
	if err != nil {
		return err
	}
	k.reader, k.Header = r, r.header
	if r.header.HistoryOnly {
		return ErrHistoryOnly
	}
	return nil
}

// verify reads the file from end to end, and sorts what history has changed.
func (k *Keys) verify() error {
	if err := k.open(); err != nil {
		return err
	}
	for {
		row, err := k.reader.small()
		if err != nil {
			return err
		}
		if row == nil {
			break
		}
		k.Rows = append(k.Rows, *row)
	}
	for {
		key, kv, err := k.reader.base()
		if err != nil {
			return err
		}
		if key == nil {
			break
		}
		k.reader.hash.AddRow(key, kv)
		if err := k.ctx.Err(); err != nil {
			return err
		}
	}
	for {
		rec, err := k.reader.record()
		if err != nil {
			return err
		}
		if rec == nil {
			return k.reader.end()
		}
		if err := k.sort(rec); err != nil {
			return err
		}
	}
}

// sort takes in what a record changes. A deleted key has an empty row.
func (k *Keys) sort(rec *history.Record) error {
	for i := range rec.Groups {
		for j := range rec.Groups[i].Mutations {
			m := &rec.Groups[i].Mutations[j]
			var err error
			switch m.Kind {
			case history.KeyPut:
				err = k.sorter.Add(m.Key, m.Value)
			case history.KeyDelete:
				err = k.sorter.Add(m.Key, nil)
			}
			if err != nil {
				return err
			}
		}
	}
	return k.ctx.Err()
}

// begin moves to the first key.
func (k *Keys) begin() (err error) {
	if err := k.open(); err != nil {
		return err
	}
	for row := new(backend.RowChange); row != nil; {
		if row, err = k.reader.small(); err != nil {
			return err
		}
	}
	if k.changes, err = k.sorter.Sorted(); err != nil {
		return err
	}
	return errors.Join(k.nextBase(), k.nextChange())
}

func (k *Keys) nextBase() error {
	_, kv, err := k.reader.base()
	k.baseRow = bytes.Clone(kv) // It is still with the caller when the next one is read.
	k.base = keyOf(k.baseRow)
	return err
}

func (k *Keys) nextChange() error {
	key, row, ok, err := k.changes.Next()
	if !ok || err != nil {
		k.change = nil
		return err
	}
	k.change, k.changeRow = bytes.Clone(key), bytes.Clone(row)
	return nil
}

// Next returns the next key with its row, a mvccpb.KeyValue in wire form; a nil
// key after the last.
func (k *Keys) Next() (key, kv []byte, err error) {
	for {
		if err := k.ctx.Err(); err != nil {
			return nil, nil, err
		}
		switch {
		case k.base == nil && k.change == nil:
			return nil, nil, nil
		case k.change == nil || k.base != nil && bytes.Compare(k.base, k.change) < 0:
			key, kv = k.base, k.baseRow
			err = k.nextBase()
		default:
			key, kv = k.change, k.changeRow
			if bytes.Equal(k.base, k.change) {
				err = k.nextBase()
			}
			err = errors.Join(err, k.nextChange())
		}
		if err != nil || len(kv) > 0 {
			return key, kv, err
		}
	}
}

// Close ends the reading.
func (k *Keys) Close() error {
	if k.reader != nil {
		k.reader.close()
		k.reader = nil
	}
	var err error
	if k.changes != nil {
		err = k.changes.Close()
		k.changes = nil
	}
	return errors.Join(err, k.sorter.Close(), k.file.Close())
}
