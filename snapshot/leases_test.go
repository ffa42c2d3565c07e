package snapshot

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/statemachine/lease"
)

const heldLease = 5 // Of the script's first entry.

// leased is a grown store in which keys hang on two leases: those named old-… have
// been merged into base, those named new-… have not. Some have left their lease.
func leased(t *testing.T, seed uint64) *mvcc.Store {
	t.Helper()
	s, sc := grown(t, seed)
	put := func(key string, id ident.LeaseID) {
		sc.index++
		e := s.Begin(sc.index, sc.term, 0)
		tx := e.Tx()
		if _, err := tx.Put(mvcc.PutArgs{Key: []byte(key), Value: []byte(key), Lease: id}); err != nil {
			t.Fatal(err)
		}
		tx.SetRow(backend.TableLease, lease.Key(6), mustMarshal(t, &holdfastpb.Lease{Id: 6, Ttl: 10}))
		tx.Commit()
		if err := e.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		put(fmt.Sprintf("old-%d", i), heldLease)
	}
	put("old-left", heldLease)
	sc.index++
	e := s.Begin(sc.index, sc.term, 0)
	tx := e.Tx()
	if err := tx.Compact(s.Head()); err != nil {
		t.Fatal(err)
	}
	tx.Commit()
	if err := e.Commit(); err != nil {
		t.Fatal(err)
	}
	stepAll(t, s)
	if merged := s.Applied().Merged; merged != s.Head() {
		t.Fatalf("merged through %d of %d: the test does not show what it is about", merged, s.Head())
	}
	put("new-5", heldLease)
	put("new-6", 6)
	put("new-left", 6)
	put("new-left", 0)
	put("old-left", 0)
	return s
}

// leasedKeys are the keys at the head that are on one of the two leases, and the
// rows of all others.
func leasedKeys(t *testing.T, s *mvcc.Store) (on []string, others [][]byte) {
	t.Helper()
	v := s.View()
	defer v.Release()
	res, err := v.Range(t.Context(), mvcc.RangeArgs{Key: []byte{0}, End: []byte{0}})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range res.KVs {
		kv := &mvccpb.KeyValue{}
		if err := kv.UnmarshalVT(row); err != nil {
			t.Fatal(err)
		}
		if kv.Lease == heldLease || kv.Lease == 6 {
			on = append(on, string(kv.Key))
		} else {
			others = append(others, bytes.Clone(row))
		}
	}
	return on, others
}

func TestDroppedLeasesTakeTheirKeysWithThem(t *testing.T) {
	old := leased(t, 21)
	on, others := leasedKeys(t, old)
	if want := []string{"new-5", "new-6", "old-0", "old-1", "old-2", "old-3"}; !slices.Equal(on, want) {
		t.Fatalf("keys on leases are %q", on)
	}
	path := writeFile(t, snapshotOf(t, old, WriteOptions{}))
	for _, bump := range []int64{0, 1, 1000} {
		o := RestoreOptions{Members: three(t.TempDir()), Leases: LeasesDrop, BumpRevision: bump, MarkCompacted: bump > 0}
		head := old.Head() + max(ident.Revision(bump), 1)
		p := restore(t, path, o)
		var first mvcc.State
		for i, m := range p.Members {
			l := open(t, m)
			st := state(l.store)
			if st.Revision != head || bump > 0 && st.Compacted != head || st.Position.Index != p.At {
				t.Errorf("bump %d: state %+v, want revision %d", bump, st, head)
			}
			if left, rest := leasedKeys(t, l.store); len(left) > 0 || !reflect.DeepEqual(rest, others) {
				t.Errorf("bump %d: left are %q, and %d other keys of %d", bump, left, len(rest), len(others))
			}
			if list := l.machine.Leases.List(); len(list) > 0 {
				t.Errorf("bump %d: leases %v", bump, list)
			}
			if i > 0 && !reflect.DeepEqual(st, first) {
				t.Errorf("bump %d: %+v, the first %+v", bump, st, first)
			}
			first = st
			if bump > 0 {
				continue
			}
			// Watchers are told of each, and what was can still be read.
			if then := contents(t, l.store, old.Head()); len(then[old.Head()]) != len(on)+len(others) || len(then[head]) != len(others) {
				t.Errorf("%d keys before, %d after", len(then[old.Head()]), len(then[head]))
			}
		}
		for _, target := range o.Members { // Another host, that knows nothing of the first.
			alone := three(t.TempDir())
			q := restore(t, path, RestoreOptions{Members: alone, Only: target.Name, Leases: LeasesDrop, BumpRevision: bump, MarkCompacted: bump > 0})
			at := slices.IndexFunc(q.Members, func(m PlannedMember) bool { return m.Make })
			if got := state(open(t, q.Members[at]).store); !reflect.DeepEqual(got, first) || q.UUID != p.UUID {
				t.Errorf("bump %d, %s alone: %+v, together %+v", bump, target.Name, got, first)
			}
		}
	}
}

func TestLeasesStayUnlessTheyAreDropped(t *testing.T) {
	old := leased(t, 22)
	on, _ := leasedKeys(t, old)
	path := writeFile(t, snapshotOf(t, old, WriteOptions{}))
	var first mvcc.State
	for i, policy := range []LeasePolicy{"", LeasesRefill, LeasesRemaining} {
		l := open(t, restore(t, path, RestoreOptions{Members: three(t.TempDir())[:1], Leases: policy}).Members[0])
		if left, _ := leasedKeys(t, l.store); !slices.Equal(left, on) || !slices.Equal(l.machine.Leases.List(), []ident.LeaseID{5, 6}) {
			t.Errorf("%q: leases %v, keys %q", policy, l.machine.Leases.List(), left)
		}
		if ttl, _ := l.machine.Leases.TTL(heldLease); ttl != 60 {
			t.Errorf("%q: %d s", policy, ttl)
		}
		if st := state(l.store); i > 0 && !reflect.DeepEqual(st, first) {
			t.Errorf("%q: %+v, the first %+v", policy, st, first)
		} else {
			first = st
		}
	}
}

// Without keys on them leases go without a revision.
func TestLeasesWithoutKeysAreDroppedAtTheSameRevision(t *testing.T) {
	old, _ := grown(t, 23)
	path := writeFile(t, snapshotOf(t, old, WriteOptions{}))
	l := open(t, restore(t, path, RestoreOptions{Members: three(t.TempDir())[:1], Leases: LeasesDrop}).Members[0])
	if st := l.store.Applied(); st.Revision != old.Head() || len(l.machine.Leases.List()) != 0 {
		t.Errorf("%+v, leases %v", st, l.machine.Leases.List())
	}
}

// Two hosts that were told different things must not take each other for members
// of one cluster.
func TestAnotherPolicyForLeasesIsAnotherCluster(t *testing.T) {
	old, _ := grown(t, 24)
	path := writeFile(t, snapshotOf(t, old, WriteOptions{}))
	o := RestoreOptions{Members: three("d"), Nonce: "7"}
	kept := plan(t, path, o)
	o.Leases = LeasesDrop
	if dropped := plan(t, path, o); dropped.Cluster == kept.Cluster || dropped.UUID == kept.UUID {
		t.Errorf("both are cluster %s", kept.Cluster)
	}
}
