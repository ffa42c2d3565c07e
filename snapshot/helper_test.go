package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"github.com/holdfast-db/holdfast/proto/authpb"
	"hash/crc32"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine"
	"github.com/holdfast-db/holdfast/statemachine/alarm"
	"github.com/holdfast-db/holdfast/statemachine/lease"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

var (
	runsFlag = flag.Int("snapshot.runs", 12, "how many random runs each model test makes")
	seedFlag = flag.Uint64("snapshot.seed", 0, "run only this seed")
)

// forSeeds runs a test for some seeds, or for the one of the flag.
func forSeeds(t *testing.T, run func(t *testing.T, r *rand.Rand)) {
	first, last := uint64(1), uint64(*runsFlag)
	if *seedFlag != 0 {
		first, last = *seedFlag, *seedFlag
	}
	for seed := first; seed <= last; seed++ {
		ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { run(t, rand.New(rand.NewPCG(seed, 1))) })
		if !ok {
			t.Fatalf("replay: go test ./snapshot -run '%s' -snapshot.seed=%d", t.Name(), seed)
		}
	}
}

func storeConfig(dir string) mvcc.Config {
	return mvcc.Config{
		FS: vfs.OS(), Dir: dir, Clock: clock.Real(), Logger: hclog.NewNullLogger(),
		SegmentBytes: 8 << 10, RingBytes: 32 << 10, Manual: true, BaseNoSync: true, BaseMapBytes: 64 << 20,
	}
}

var oldIdentity = mvcc.Identity{Cluster: 0xc1, Timeline: 3}

func newStore(t testing.TB) *mvcc.Store {
	t.Helper()
	s, err := mvcc.Create(storeConfig(t.TempDir()), oldIdentity)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openStore(t testing.TB, dir string) *mvcc.Store {
	t.Helper()
	s, err := mvcc.Open(storeConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeStore(t testing.TB, s *mvcc.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func stepAll(t testing.TB, s *mvcc.Store) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = s.Step(); err != nil {
			t.Fatal(err)
		}
	}
}

// script writes to a store what a cluster might.
type script struct {
	r     *rand.Rand
	index ident.Index
	term  ident.Term
}

// begin is the first entry: members and the facts of the cluster.
func (sc *script) begin(t testing.TB, s *mvcc.Store) {
	t.Helper()
	sc.index, sc.term = 2, 2
	e := s.Begin(sc.index, sc.term, 1000)
	tx := e.Tx()
	var conf raftpb.ConfState
	for i := range uint64(3) {
		row := &holdfastpb.Member{Id: 0xa + i, Name: fmt.Sprintf("old%d", i), PeerUrls: []string{fmt.Sprintf("http://old%d:2380", i)}, Incarnation: 77 + i}
		tx.SetRow(backend.TableMember, member.Key(ident.MemberID(row.Id)), mustMarshal(t, row))
		conf.Voters = append(conf.Voters, row.Id)
	}
	tx.SetRow(backend.TableMeta, statemachine.ClusterKey, mustMarshal(t, &holdfastpb.Cluster{
		Uuid: bytes.Repeat([]byte{7}, 16), ClusterId: uint64(oldIdentity.Cluster), Version: "3.7",
		Timeline: &holdfastpb.TimelineInfo{Number: 3, Parent: 2, Fork: &holdfastpb.Position{Index: 1}},
	}))
	tx.SetRow(backend.TableLease, lease.Key(5), mustMarshal(t, &holdfastpb.Lease{Id: 5, Ttl: 60}))
	tx.SetRow(backend.TableAlarm, alarm.Key(alarm.Alarm{Member: 0xa, Kind: alarm.NoSpace}), []byte{1})
	tx.Commit()
	b, err := proto.Marshal(&conf)
	if err != nil {
		t.Fatal(err)
	}
	e.SetConfState(b)
	if err := e.Commit(); err != nil {
		t.Fatal(err)
	}
}

func mustMarshal(t testing.TB, m interface{ MarshalVT() ([]byte, error) }) []byte {
	t.Helper()
	b, err := m.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (sc *script) key() []byte { return fmt.Appendf(nil, "key-%02d", sc.r.IntN(30)) }

// run applies n entries, each of some requests.
func (sc *script) run(t testing.TB, s *mvcc.Store, n int) {
	t.Helper()
	for range n {
		sc.index += 1 + ident.Index(sc.r.IntN(2))
		sc.term += ident.Term(sc.r.IntN(20) / 19)
		e := s.Begin(sc.index, sc.term, int64(sc.index)*1000)
		for range sc.r.IntN(4) {
			sc.request(t, s, e)
		}
		if err := e.Commit(); err != nil {
			t.Fatal(err)
		}
		if sc.r.IntN(4) == 0 {
			if _, err := s.Step(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (sc *script) request(t testing.TB, s *mvcc.Store, e *mvcc.Entry) {
	t.Helper()
	tx := e.Tx()
	defer tx.Commit()
	switch sc.r.IntN(12) {
	case 0, 1:
		if _, _, err := tx.DeleteRange(sc.key(), nil, false); err != nil {
			t.Fatal(err)
		}
	case 2:
		if _, _, err := tx.DeleteRange(sc.key(), sc.key(), false); err != nil {
			t.Fatal(err)
		}
	case 3:
		name := fmt.Appendf(nil, "user%03d", sc.r.IntN(5))
		row, err := (&authpb.User{Name: name, Password: []byte{byte(sc.r.IntN(9))}}).MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		tx.SetRow(backend.TableUser, name, row)
	case 4:
		tx.DeleteRow(backend.TableUser, fmt.Appendf(nil, "user%03d", sc.r.IntN(5)))
	case 5:
		if c := tx.Compacted(); sc.r.IntN(3) == 0 && s.Head() > c {
			if err := tx.Compact(c + 1 + ident.Revision(sc.r.Int64N(int64(s.Head()-c)))); err != nil {
				t.Fatal(err)
			}
		}
	default:
		for range 1 + sc.r.IntN(3) {
			value := make([]byte, sc.r.IntN(400))
			if _, err := tx.Put(mvcc.PutArgs{Key: sc.key(), Value: value, Lease: ident.LeaseID(sc.r.IntN(3))}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// contents is all that can be read of a store, by revision.
func contents(t testing.TB, s *mvcc.Store, from ident.Revision) map[ident.Revision][]string {
	t.Helper()
	v := s.View()
	defer v.Release()
	all := map[ident.Revision][]string{}
	for rev := max(from, 1); rev <= s.Head(); rev++ {
		res, err := v.Range(context.Background(), mvcc.RangeArgs{Key: []byte{0}, End: []byte{0}, Revision: rev})
		if err != nil {
			t.Fatalf("range at %d of %d: %v", rev, s.Head(), err)
		}
		for _, kv := range res.KVs {
			all[rev] = append(all[rev], string(kv))
		}
	}
	return all
}

func rows(t testing.TB, s *mvcc.Store) []string {
	t.Helper()
	var list []string
	for table := backend.TableLease; table <= backend.TableMeta; table++ {
		if err := s.Rows(table, func(key, value []byte) error {
			list = append(list, fmt.Sprintf("%d %q %x", table, key, value))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// state is what must be equal wherever a snapshot comes to.
func state(s *mvcc.Store) mvcc.State {
	st := s.Applied()
	st.Merged = 0 // Physical.
	return st
}

func sameStore(t testing.TB, got, want *mvcc.Store) {
	t.Helper()
	if g, w := state(got), state(want); !reflect.DeepEqual(g, w) {
		t.Fatalf("state %+v\nwant  %+v", g, w)
	}
	if g, w := contents(t, got, got.Compacted()), contents(t, want, want.Compacted()); !reflect.DeepEqual(g, w) {
		t.Fatalf("keys differ")
	}
	if g, w := rows(t, got), rows(t, want); !reflect.DeepEqual(g, w) {
		t.Fatalf("rows\n%s\nwant\n%s", g, w)
	}
}

// freeze fails the test instead of returning an error.
func freeze(t testing.TB, s *mvcc.Store) *mvcc.Frozen {
	t.Helper()
	f, err := s.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// snapshotOf writes a whole snapshot.
func snapshotOf(t testing.TB, s *mvcc.Store, o WriteOptions) []byte {
	t.Helper()
	f := freeze(t, s)
	defer f.Close()
	var b bytes.Buffer
	totals, err := Write(t.Context(), &b, f, o)
	if err != nil {
		t.Fatal(err)
	}
	if totals.Bytes != int64(b.Len()) || b.Len()%padBytes != hashBytes {
		t.Fatalf("%d bytes, said %d", b.Len(), totals.Bytes)
	}
	return b.Bytes()
}

var tContext = context.Background()

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// sealed ends bytes with their hash.
func sealed(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}
