package etcd

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/spill"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/statemachine/alarm"
	"github.com/holdfast-db/holdfast/statemachine/lease"
)

// database is etcd's file, read.
type database struct {
	file   vfs.File
	name   string
	size   int64 // Of the pages.
	hashed bool
	sum    [sha256.Size]byte // Of the pages.

	older    bool // See book.
	head     int64
	index    uint64
	term     uint64              // 0: not known, as before 3.5.
	conf     *raftpb.ConfState   // Nil: the same.
	rows     []backend.RowChange // Leases, alarms, users and roles.
	versions int64               // Rows of bucket key that are no tombstones.
	leases   int
	users    int
	roles    int
	auth     holdfastpb.Auth
	progress func(done, total int64)
}

// openDatabase reads all of a file once, to compare its hash.
func openDatabase(ctx context.Context, cfg *Config, name string) (*database, error) {
	f, err := cfg.FS.Open(name)
	if err != nil {
		return nil, err
	}
	d := &database{file: f, name: name, progress: cfg.Progress}
	if d.size, err = f.Size(); err == nil {
		err = d.verify(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

func (d *database) verify(ctx context.Context) error {
	switch d.size % padBytes {
	case hashBytes:
		d.hashed = true
		d.size -= hashBytes
	case 0:
	default:
		return &DamageError{File: d.name, Offset: d.size, Reason: fmt.Sprintf("it ends here, but a database has a multiple of %d bytes, and %d more if a SHA-256 follows", padBytes, hashBytes)}
	}
	if _, err := openBook(d.file, d.name, d.size); err != nil { // Before so much is read of what is not etcd's.
		return err
	}
	sha := sha256.New()
	block := make([]byte, hashBlockBytes)
	for at := int64(0); at < d.size; at += hashBlockBytes {
		part := block[:min(hashBlockBytes, d.size-at)]
		if _, err := d.file.ReadAt(part, at); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		sha.Write(part)
		if d.progress != nil {
			d.progress(at, 2*d.size)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	copy(d.sum[:], sha.Sum(nil))
	if !d.hashed {
		return nil
	}
	want := make([]byte, hashBytes)
	if _, err := d.file.ReadAt(want, d.size); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !slices.Equal(want, d.sum[:]) {
		return &DamageError{File: d.name, Offset: d.size, Reason: fmt.Sprintf("SHA-256 of the %d bytes before is %x, here is %x", d.size, d.sum, want)}
	}
	return nil
}

func (d *database) close() error { return d.file.Close() }

// damagedRow names a row's page and what is wrong.
func (d *database) damagedRow(at int64, format string, args ...any) error {
	return &DamageError{File: d.name, Offset: at, Reason: fmt.Sprintf(format, args...)}
}

// load reads every row. Versions of keys go to add in the order of revisions,
// with an empty row for a deletion; the rest is kept.
func (d *database) load(ctx context.Context, add func(key, row []byte) error) error {
	b, err := openBook(d.file, d.name, d.size)
	if err != nil {
		return err
	}
	d.older = b.older
	buckets, err := b.buckets()
	if err != nil {
		return err
	}
	for _, name := range []string{bucketKey, bucketMeta} {
		if _, ok := buckets[name]; !ok {
			return fmt.Errorf("%s is a bbolt file without bucket %q: %w", d.name, name, ErrNotEtcd)
		}
	}
	for _, part := range []struct {
		bucket string
		row    func(key, value []byte, at int64) error
	}{
		{bucketMeta, d.metaRow},
		{bucketLease, d.leaseRow},
		{bucketAlarm, d.alarmRow},
		{bucketAuth, d.authRow},
		{bucketUsers, d.userRow},
		{bucketRoles, d.roleRow},
		{bucketKey, d.keyRow(ctx, add)},
	} {
		where, ok := buckets[part.bucket]
		if !ok {
			continue
		}
		if err := b.each(where, part.row); err != nil {
			return fmt.Errorf("bucket %s: %w", part.bucket, err)
		}
	}
	d.head = max(d.head, 1)
	d.index = max(d.index, 1)
	return nil
}

func (d *database) metaRow(key, value []byte, at int64) error {
	switch string(key) {
	case metaIndex, metaTerm:
		if len(value) != 8 {
			return d.damagedRow(at, "%s has %d bytes", key, len(value))
		}
		if string(key) == metaIndex {
			d.index = binary.BigEndian.Uint64(value)
		} else {
			d.term = binary.BigEndian.Uint64(value)
		}
	case metaScheduled, metaFinished:
		r, ok := decodeRevision(value)
		if !ok {
			return d.damagedRow(at, "%s is not a revision: %x", key, value)
		}
		d.head = max(d.head, r.main) // What was compacted had been reached.
	case metaConfState:
		state := struct {
			Voters         []uint64 `json:"voters"`
			Learners       []uint64 `json:"learners"`
			VotersOutgoing []uint64 `json:"voters_outgoing"`
			LearnersNext   []uint64 `json:"learners_next"`
			AutoLeave      bool     `json:"auto_leave"`
		}{}
		if err := json.Unmarshal(value, &state); err != nil {
			return d.damagedRow(at, "configuration of Raft: %v", err)
		}
		d.conf = &raftpb.ConfState{
			Voters: state.Voters, Learners: state.Learners, VotersOutgoing: state.VotersOutgoing, LearnersNext: state.LearnersNext, AutoLeave: &state.AutoLeave,
		}
	}
	return nil
}

func (d *database) leaseRow(key, value []byte, at int64) error {
	f, err := decodeFields(value)
	if err != nil || len(key) != 8 || f.numbers[1] != binary.BigEndian.Uint64(key) || f.numbers[1] == 0 {
		return d.damagedRow(at, "row %x of a lease is not one: %v", key, err)
	}
	row := backend.RowChange{Table: backend.TableLease}
	if row.Key, row.Value, err = lease.Row(ident.LeaseID(f.numbers[1]), int64(f.numbers[2])); err != nil {
		return err
	}
	d.rows = append(d.rows, row)
	d.leases++
	return nil
}

func (d *database) alarmRow(key, _ []byte, at int64) error {
	m := &etcdserverpb.AlarmMember{}
	if err := m.UnmarshalVT(key); err != nil {
		return d.damagedRow(at, "alarm: %v", err)
	}
	a := alarm.Alarm{Member: ident.MemberID(m.MemberID), Kind: alarm.Kind(m.Alarm)}
	d.rows = append(d.rows, backend.RowChange{Table: backend.TableAlarm, Key: alarm.Key(a)})
	return nil
}

// keyRow takes in the revisions of bucket key.
func (d *database) keyRow(ctx context.Context, add func(key, row []byte) error) func(key, value []byte, at int64) error {
	seen, told := int64(0), int64(0)
	return func(key, value []byte, at int64) error {
		r, ok := decodeRevision(key)
		if !ok {
			return d.damagedRow(at, "%x is not a revision", key)
		}
		kv := &mvccpb.KeyValue{}
		if err := kv.UnmarshalVT(value); err != nil {
			return d.damagedRow(at, "revision %d.%d: %v", r.main, r.sub, err)
		}
		if len(kv.Key) == 0 || !r.tombstone && (kv.ModRevision != r.main || kv.CreateRevision < 1 || kv.CreateRevision > r.main || kv.Version < 1) {
			return d.damagedRow(at, "revision %d.%d holds key %q of revision %d, created at %d, version %d", r.main, r.sub, kv.Key, kv.ModRevision, kv.CreateRevision, kv.Version)
		}
		d.head = max(d.head, r.main)
		if seen += int64(len(key) + len(value)); d.progress != nil && seen-told > hashBlockBytes {
			told = seen
			d.progress(d.size+min(seen, d.size), 2*d.size)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if r.tombstone {
			return add(kv.Key, nil)
		}
		d.versions++
		row, err := (&mvccpb.KeyValue{
			Key: kv.Key, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version, Value: kv.Value, Lease: kv.Lease,
		}).MarshalVT() // In the one form that a row has here, without what is unknown.
		if err != nil {
			return err
		}
		return add(kv.Key, row)
	}
}

// seed begins a store with what was read. level is the cluster's.
func (d *database) seed(level string, cluster ident.ClusterID, sorted *spill.Iterator) (mvcc.Seed, error) {
	at := backend.Point{Position: ident.Position{Index: ident.Index(d.index)}, Revision: ident.Revision(d.head)}
	row, err := clusterRow(level, cluster, d.digest())
	if err == nil {
		err = d.addAuthRow()
	}
	if err != nil {
		return mvcc.Seed{}, err
	}
	next := func() (key, kv []byte, err error) {
		for {
			key, kv, ok, err := sorted.Next()
			if err != nil || !ok {
				return nil, nil, err
			}
			if len(kv) > 0 {
				return slices.Clone(key), slices.Clone(kv), nil
			}
		}
	}
	return mvcc.Seed{
		Last: at.Position.Index, Next: next, Rows: append(d.rows, row),
		Meta: backend.Meta{
			Applied: at.Position, Term: ident.Term(max(d.term, 1)), Digest: d.digest(), Revision: at.Revision,
			Compacted: at, Merged: at, Cluster: cluster, Timeline: firstTimeline,
		},
	}, nil
}

// digest stands for the history that etcd knows and we do not.
func (d *database) digest() ident.Digest {
	b := append([]byte("import"), d.sum[:]...)
	b = binary.BigEndian.AppendUint64(b, d.index)
	sum := sha256.Sum256(b)
	return ident.Digest(sum[:len(ident.Digest{})])
}
