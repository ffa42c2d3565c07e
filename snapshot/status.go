package snapshot

import (
	"context"
	"fmt"
	"hash/maphash"
	"io"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
)

// Status is what a snapshot holds.
type Status struct {
	Totals
	Header    *holdfastpb.SnapshotHeader
	Keys      int64 // At the position of the snapshot.
	StateHash backend.Sum
	Members   []*holdfastpb.Member // Present ones, by ID.
	Leases    int
	Users     int
	Roles     int
	Alarms    int
}

// StatusOptions say how a snapshot is read. progress may be nil.
type StatusOptions struct {
	SkipHashCheck bool                    // The SHA-256 at the end may be missing.
	Progress      func(done, total int64) // Now and then.
}

// StatusOf verifies every byte of a snapshot file and tells what is in it. A
// *DamageError says where the file does not hold what was written.
func StatusOf(ctx context.Context, fsys vfs.FS, path string, o StatusOptions) (*Status, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	v := &verifier{ctx: ctx, options: o, file: f, size: size, status: &Status{}, changed: make(map[uint64]bool), seed: maphash.MakeSeed()}
	if err := v.verify(); err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", path, err)
	}
	return v.status, nil
}

// verifier reads a file, twice if it holds history: which keys of base history
// has changed is known only when history was read, and it comes last.
type verifier struct {
	ctx     context.Context
	options StatusOptions
	file    vfs.File
	size    int64
	reader  *reader
	status  *Status
	seed    maphash.Seed
	changed map[uint64]bool // Keys that history has changed, and whether they exist at its end.
	told    int64
}

func (v *verifier) open() error {
	r, err := newReader(io.NewSectionReader(v.file, 0, v.size))
	if err == nil {
		v.reader = r // Else the one before stays, to be closed.
	}
	return err
}

func (v *verifier) verify() error {
	if err := v.open(); err != nil {
		return err
	}
	defer func() { v.reader.close() }()
	v.reader.hashed = !v.options.SkipHashCheck
	v.status.Header = v.reader.header
	if err := v.smallRows(); err != nil {
		return err
	}
	if err := v.base(v.status.StateHash.AddRow); err != nil {
		return err
	}
	if err := v.records(); err != nil {
		return err
	}
	v.reader.hash = v.status.StateHash
	if err := v.reader.end(); err != nil {
		return err
	}
	v.status.Totals = Totals{Bytes: v.size, Rows: v.reader.rows, Records: v.reader.records}
	v.status.Keys = int64(v.reader.rows)
	if len(v.changed) == 0 {
		return nil
	}
	for _, exists := range v.changed { //tidy:ordered a count
		if exists {
			v.status.Keys++
		}
	}
	v.reader.close()
	if err := v.open(); err != nil {
		return err
	}
	v.told = 0
	return v.again()
}

// again takes those out of the count that were counted in base and in history.
func (v *verifier) again() error {
	for {
		row, err := v.reader.small()
		if err != nil {
			return err
		}
		if row == nil {
			break
		}
	}
	return v.base(func(key, _ []byte) {
		if _, ok := v.changed[maphash.Bytes(v.seed, key)]; ok {
			v.status.Keys--
		}
	})
}

func (v *verifier) progress() error {
	at := v.reader.frames.offset
	if at-v.told < progressBytes {
		return nil
	}
	v.told = at
	if v.options.Progress != nil {
		v.options.Progress(at, v.size)
	}
	return v.ctx.Err()
}

func (v *verifier) smallRows() error {
	for {
		row, err := v.reader.small()
		if err != nil || row == nil {
			return err
		}
		switch row.Table {
		case backend.TableMember:
			m := &holdfastpb.Member{}
			if err := m.UnmarshalVT(row.Value); err != nil {
				return v.reader.frames.damaged("member row: %v", err)
			}
			if !m.Removed {
				v.status.Members = append(v.status.Members, m)
			}
		case backend.TableLease:
			v.status.Leases++
		case backend.TableUser:
			v.status.Users++
		case backend.TableRole:
			v.status.Roles++
		case backend.TableAlarm:
			v.status.Alarms++
		}
	}
}

func (v *verifier) base(row func(key, kv []byte)) error {
	for {
		key, kv, err := v.reader.base()
		if err != nil || key == nil {
			return err
		}
		row(key, kv)
		if err := v.progress(); err != nil {
			return err
		}
	}
}

func (v *verifier) records() error {
	for {
		rec, err := v.reader.record()
		if err != nil || rec == nil {
			return err
		}
		for i := range rec.Groups {
			for j := range rec.Groups[i].Mutations {
				switch m := &rec.Groups[i].Mutations[j]; m.Kind {
				case history.KeyPut, history.KeyDelete:
					v.changed[maphash.Bytes(v.seed, m.Key)] = m.Kind == history.KeyPut
				}
			}
		}
		if err := v.progress(); err != nil {
			return err
		}
	}
}
