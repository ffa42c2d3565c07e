package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine"
	"github.com/holdfast-db/holdfast/statemachine/lease"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

// rewrite applies the one entry that makes the snapshot's state the new
// cluster's: its members instead of the old ones, no alarms, another UUID, the
// timeline with its fork, and no leases if they are to go. It depends on plan
// and state alone, so that every host comes to the same digest.
func (r *restorer) rewrite(s *mvcc.Store) error {
	old := s.Applied()
	e := s.Begin(r.plan.At, r.plan.Term, old.Time+1)
	tx := e.Tx()
	conf, err := r.rewriteRows(tx)
	if err == nil && r.plan.Leases == LeasesDrop {
		err = dropLeases(tx)
	}
	if head := tx.Revision(); err == nil && r.plan.Bump > 0 && old.Compacted < head {
		err = tx.Compact(head)
	}
	if err != nil {
		tx.Abort()
	} else {
		tx.Commit()
		e.SetConfState(conf)
	}
	if commitErr := e.Commit(); err == nil {
		err = commitErr
	}
	return err
}

func (r *restorer) rewriteRows(tx *mvcc.Tx) (conf []byte, err error) {
	cluster := &holdfastpb.Cluster{}
	for _, table := range []backend.Table{backend.TableMember, backend.TableAlarm, backend.TableMeta} {
		err := tx.Rows(table, func(key, value []byte) error {
			if table != backend.TableMeta {
				tx.DeleteRow(table, bytes.Clone(key))
				return nil
			}
			if !bytes.Equal(key, statemachine.ClusterKey) {
				return nil
			}
			return cluster.UnmarshalVT(value)
		})
		if err != nil {
			return nil, fmt.Errorf("rows of table %d: %w", table, err)
		}
	}
	state := &raftpb.ConfState{}
	for _, m := range r.plan.Members {
		row, err := (&holdfastpb.Member{Id: uint64(m.ID), Name: m.Name, PeerUrls: m.PeerURLs, ClientUrls: m.ClientURLs}).MarshalVT()
		if err != nil {
			return nil, fmt.Errorf("encode member row: %w", err)
		}
		tx.SetRow(backend.TableMember, member.Key(m.ID), row)
		state.Voters = append(state.Voters, uint64(m.ID))
	}
	h := r.plan.Header
	cluster.Uuid, cluster.ClusterId = r.plan.UUID[:], uint64(r.plan.Cluster)
	cluster.Timeline = &holdfastpb.TimelineInfo{Number: uint64(r.plan.Timeline), Parent: h.Timeline.GetNumber(), Fork: h.Applied}
	row, err := cluster.MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("encode cluster row: %w", err)
	}
	tx.SetRow(backend.TableMeta, statemachine.ClusterKey, row)
	return proto.Marshal(state)
}

// dropLeases takes away all leases, and the keys attached to them, at one
// revision.
func dropLeases(tx *mvcc.Tx) error {
	leases := lease.NewTable()
	if err := tx.Rows(backend.TableLease, leases.Load); err != nil {
		return err
	}
	for _, id := range leases.List() {
		keys, err := tx.LeaseKeys(id)
		if err != nil {
			return fmt.Errorf("keys of lease %x: %w", int64(id), err)
		}
		for _, key := range keys {
			if _, _, err := tx.DeleteRange(key, nil, false); err != nil {
				return fmt.Errorf("delete a key of lease %x: %w", int64(id), err)
			}
		}
		tx.DeleteRow(backend.TableLease, lease.Key(id))
	}
	return nil
}

// bump makes a second generation of the first: the same keys at a higher
// revision, all of which is compacted. History cannot leap over revisions, so
// it begins anew.
func (r *restorer) bump(first *mvcc.Store, s *site) (err error) {
	frozen, err := first.Freeze() // No merge: what it would do to the first base is done to the second at once.
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, frozen.Close()) }()
	view := first.View()
	defer view.Release()
	all, err := view.Range(r.ctx, mvcc.RangeArgs{Key: lowestKey, End: noEnd, CountOnly: true})
	if err != nil {
		return err
	}
	at := first.Applied()
	head := ident.Revision(r.plan.Header.Revision + r.plan.Bump) // As planned, whether or not keys went with their leases.
	point := backend.Point{Position: at.Position, Revision: head}
	seed := mvcc.Seed{Last: at.Position.Index, Next: r.keysOf(view), Meta: backend.Meta{
		Applied: at.Position, Term: at.Term, Time: at.Time, Digest: bumpedDigest(at.Digest, head), Revision: head,
		Compacted: point, Merged: point, ConfState: at.ConfState, Cluster: at.Cluster, Timeline: at.Timeline,
	}}
	err = frozen.Rows(func(table backend.Table, key, value []byte) error {
		seed.Rows = append(seed.Rows, backend.RowChange{Table: table, Key: key, Value: value})
		return nil
	})
	if err != nil {
		return err
	}
	second, err := mvcc.CreateFrom(lean(r.store(s, secondGeneration)), seed)
	if err != nil {
		return err
	}
	if got := second.Base().Meta().Rows; got != all.Count {
		err = fmt.Errorf("%d keys became %d: %w", all.Count, got, backend.ErrDamaged)
	}
	return errors.Join(err, second.Close())
}

var lowestKey, noEnd = []byte{0}, []byte{0} // Of a range over all keys.

// keysOf gives the rows of all keys of a view by rising key.
func (r *restorer) keysOf(view *mvcc.View) func() (key, kv []byte, err error) {
	from := lowestKey
	var part [][]byte
	return func() (key, kv []byte, err error) {
		for len(part) == 0 {
			if from == nil {
				return nil, nil, nil
			}
			some, err := view.Range(r.ctx, mvcc.RangeArgs{Key: from, End: noEnd, PartBytes: frameBytes})
			if err != nil {
				return nil, nil, err
			}
			part, from = some.KVs, some.Next
		}
		kv, part = part[0], part[1:]
		return keyOf(kv), kv, nil
	}
}

// bumpedDigest stands for the leap in the chain of digests.
func bumpedDigest(d ident.Digest, head ident.Revision) ident.Digest {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(append([]byte("bump"), d[:]...), uint64(head)))
	return ident.Digest(sum[:len(d)])
}

// sameHeader reports whether a plan was made for this snapshot.
func sameHeader(a, b *holdfastpb.SnapshotHeader) bool {
	return bytes.Equal(a.Digest, b.Digest) && position(a) == position(b) && a.Revision == b.Revision && a.ClusterId == b.ClusterId
}
