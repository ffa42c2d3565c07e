package etcd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/holdfast-db/holdfast/internal/spill"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/statemachine/auth"
)

// ExportReport says what is in a file for etcd.
type ExportReport struct {
	Revision int64 // Everything before it is compacted there.
	Keys     int64
	Leases   int
	Users    int
	Roles    int
	Bytes    int64
	Alarms   int // Left out: a restore is not the disk that was full.
}

// Versions that an export can be for. They differ in the notes that etcd looks
// for in bucket meta.
var Versions = []string{"3.4", "3.5", "3.6", "3.7"}

// Export makes the file `to` out of a snapshot of ours: one that etcd's own
// restore of that version takes. bbolt writes it, so cfg.FS must be the
// operating system's.
func Export(ctx context.Context, cfg Config, from, to, version string) (*ExportReport, error) {
	e := &exporter{cfg: cfg, ctx: ctx, from: from, scratch: to + scratchSuffix, version: version, report: &ExportReport{}}
	err := notThere(cfg.FS, to)
	if err == nil && !slices.Contains(Versions, version) {
		err = fmt.Errorf("%q: %w", version, ErrVersion)
	}
	if err == nil {
		err = e.run(to)
	}
	if err != nil {
		return nil, fmt.Errorf("export %s: %w", from, err)
	}
	return e.report, nil
}

type exporter struct {
	cfg     Config
	ctx     context.Context
	from    string
	scratch string
	version string
	report  *ExportReport
}

func (e *exporter) run(to string) (err error) {
	fsys := e.cfg.FS
	if err := fsys.RemoveAll(e.scratch); err != nil { // Of an export that was cut short.
		return err
	}
	sortDir, keysDir := filepath.Join(e.scratch, "sort"), filepath.Join(e.scratch, "keys")
	if err := errors.Join(fsys.MkdirAll(sortDir), fsys.MkdirAll(keysDir)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fsys.RemoveAll(e.scratch)) }()
	keys, err := snapshot.OpenKeys(e.ctx, fsys, e.from, keysDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	sorter := spill.New(spill.Config{FS: fsys, Dir: sortDir, MemoryBytes: e.cfg.SortBytes})
	defer func() { err = errors.Join(err, sorter.Close()) }()
	if err := e.byRevision(keys, sorter); err != nil {
		return err
	}
	database := filepath.Join(e.scratch, "db")
	if err := e.writeDatabase(database, keys, sorter); err != nil {
		return err
	}
	if err := sorter.Close(); err != nil { // What it keeps in memory is not needed any more.
		return err
	}
	return e.finish(database, to)
}

// byRevision sorts the keys as etcd's bucket has them: the revision that wrote
// a key last, and its place among the keys of that revision.
func (e *exporter) byRevision(keys *snapshot.Keys, sorter *spill.Sorter) error {
	for {
		key, row, err := keys.Next()
		if err != nil {
			return err
		}
		if key == nil {
			return nil
		}
		kv := &mvccpb.KeyValue{}
		if err := kv.UnmarshalVT(row); err != nil {
			return fmt.Errorf("row of a key: %w", err)
		}
		if err := sorter.Add(append(binary.BigEndian.AppendUint64(nil, uint64(kv.ModRevision)), key...), row); err != nil {
			return err
		}
		e.report.Keys++
	}
}

func (e *exporter) writeDatabase(path string, keys *snapshot.Keys, sorter *spill.Sorter) (err error) {
	w, err := newBookWriter(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := e.writeKeys(w, sorter); err != nil {
		return err
	}
	for _, row := range keys.Rows {
		if err := e.writeRow(w, row); err != nil {
			return err
		}
	}
	e.report.Revision = keys.Header.Revision
	return e.writeMeta(w, keys.Header)
}

// writeRow writes a small row where etcd looks for it.
func (e *exporter) writeRow(w *bookWriter, row backend.RowChange) error {
	switch row.Table {
	case backend.TableAlarm:
		e.report.Alarms++
	case backend.TableLease:
		l := &holdfastpb.Lease{}
		if err := l.UnmarshalVT(row.Value); err != nil {
			return fmt.Errorf("row of a lease: %w", err)
		}
		e.report.Leases++
		return w.put(bucketLease, number64(uint64(l.Id)), encodeLease(l.Id, l.Ttl))
	case backend.TableUser:
		e.report.Users++
		return w.put(bucketUsers, row.Key, row.Value)
	case backend.TableRole:
		e.report.Roles++
		return w.put(bucketRoles, row.Key, row.Value)
	case backend.TableMeta:
		if !bytes.Equal(row.Key, auth.ConfigKey) {
			return nil
		}
		a := &holdfastpb.Auth{}
		if err := a.UnmarshalVT(row.Value); err != nil {
			return fmt.Errorf("auth row: %w", err)
		}
		for key, value := range encodeAuth(a) { //tidy:ordered rows of a bucket
			if err := w.put(bucketAuth, []byte(key), value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *exporter) writeKeys(w *bookWriter, sorter *spill.Sorter) (err error) {
	sorted, err := sorter.Sorted()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sorted.Close()) }()
	at := revision{}
	for {
		key, row, ok, err := sorted.Next()
		if err != nil || !ok {
			return err
		}
		main := int64(binary.BigEndian.Uint64(key))
		if at.sub++; main != at.main {
			at = revision{main: main}
		}
		if err := errors.Join(w.put(bucketKey, at.append(nil), slices.Clone(row)), e.ctx.Err()); err != nil {
			return err
		}
	}
}

// writeMeta notes where Raft stood, and that everything before the newest
// revision is compacted: so etcd begins at it even if no key has it.
func (e *exporter) writeMeta(w *bookWriter, h *holdfastpb.SnapshotHeader) error {
	rows := [][2]string{{metaIndex, string(number64(h.Applied.GetIndex()))}}
	if h.Revision > 1 {
		head := string(revision{main: h.Revision}.append(nil))
		rows = append(rows, [2]string{metaFinished, head}, [2]string{metaScheduled, head})
	}
	if e.version >= "3.5" {
		rows = append(rows, [2]string{metaTerm, string(number64(max(h.Term, 1)))}, [2]string{metaConfState, `{"auto_leave":false}`})
	}
	if e.version >= "3.6" {
		rows = append(rows, [2]string{metaStorageVersion, e.version + ".0"})
	}
	for _, row := range rows {
		if err := w.put(bucketMeta, []byte(row[0]), []byte(row[1])); err != nil {
			return err
		}
	}
	return nil
}

// finish adds the hash, reads all of it as an import would, and gives it its name.
func (e *exporter) finish(database, to string) error {
	fsys, part := e.cfg.FS, to+partSuffix
	there, err := vfs.Exists(fsys, part)
	if err == nil && there { // Of an export that was cut short.
		err = fsys.Remove(part)
	}
	if err == nil {
		e.report.Bytes, err = sealInto(fsys, database, part)
	}
	if err == nil {
		err = e.verify(part)
	}
	if err == nil {
		if err = fsys.Rename(part, to); err == nil {
			return fsys.SyncDir(filepath.Dir(to))
		}
	}
	if there, _ := vfs.Exists(fsys, part); there {
		err = errors.Join(err, fsys.Remove(part))
	}
	return err
}

// verify reads a finished file and compares what it holds with what was written.
func (e *exporter) verify(path string) error {
	db, err := openDatabase(e.ctx, &e.cfg, path)
	if err != nil {
		return err
	}
	if err := db.load(e.ctx, func(_, _ []byte) error { return nil }); err != nil {
		return errors.Join(err, db.close())
	}
	if !db.hashed || db.versions != e.report.Keys || db.leases != e.report.Leases || db.users != e.report.Users || db.roles != e.report.Roles || db.head != e.report.Revision {
		err = &DamageError{File: path, Reason: fmt.Sprintf("%d keys, %d leases, %d users, %d roles, revision %d; written were %d, %d, %d, %d, %d",
			db.versions, db.leases, db.users, db.roles, db.head, e.report.Keys, e.report.Leases, e.report.Users, e.report.Roles, e.report.Revision)}
	}
	return errors.Join(err, db.close())
}

func number64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
