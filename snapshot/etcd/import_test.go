package etcd

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

func TestAnImportHasTheNewestOfEachKeyWithItsRevisions(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := random(r, 20+r.IntN(400))
		from, to := filepath.Join(t.TempDir(), "db"), filepath.Join(t.TempDir(), "out.snap")
		m.write(t, from, 500, 9*(seed%2))
		if seed%3 > 0 {
			seal(t, from)
		}
		report, err := Import(t.Context(), testConfig(), from, to)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		got, k := keysOf(t, to)
		if !slices.Equal(got, m.want()) {
			t.Fatalf("seed %d: keys\n%q\nwant\n%q", seed, got, m.want())
		}
		h := k.Header
		if h.Revision != m.head || h.Compacted.Revision != m.head || h.Applied.Index != 500 || h.Term != max(9*(seed%2), 1) {
			t.Fatalf("seed %d: header %v, revision is %d", seed, h, m.head)
		}
		if int64(report.Revision) != m.head || report.Keys != int64(len(got)) || report.Leases != len(m.leases) || report.Hashed != (seed%3 > 0) || report.Users != 1 {
			t.Fatalf("seed %d: %+v", seed, report)
		}
		leases := 0
		for _, row := range k.Rows {
			if row.Table == backend.TableLease {
				leases++
			}
		}
		if leases != len(m.leases) {
			t.Fatalf("seed %d: %d leases, not %d", seed, leases, len(m.leases))
		}
		if left, _ := filepath.Glob(to + ".*"); len(left) != 0 {
			t.Fatalf("seed %d: left behind: %q", seed, left)
		}
	}
}

// dataDir makes one with a database as of entry 10, and a log of entries 1 to
// last of which `commit` are known as committed.
func dataDir(t testing.TB, m *model, voters string, last, commit uint64, request func(index uint64) []byte) (dir, wal string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "member", "snap"), 0o700); err != nil {
		t.Fatal(err)
	}
	m.write(t, filepath.Join(dir, "member", "snap", "db"), 10, 2)
	setMeta(t, filepath.Join(dir, "member", "snap", "db"), metaConfState, []byte(voters))
	first := newLogFile(0)
	first.add(recordSnapshot, nil)
	for i := uint64(1); i <= 6; i++ {
		first.entry(t, i, 2, nil)
	}
	writeFile(t, filepath.Join(dir, "member", "wal", "0000000000000000-0000000000000000.wal"), first.b)
	l := newLogFile(first.crc)
	l.state(6, 2)
	for i := uint64(7); i <= 12; i++ {
		l.entry(t, i, 2, []byte("overwritten by the next leader, and never decoded"))
	}
	for i := uint64(7); i <= last; i++ {
		data := []byte(nil)
		if i > 10 {
			data = request(i)
		}
		l.entry(t, i, 2+i/11, data)
	}
	l.state(commit, 3)
	wal = filepath.Join(dir, "member", "wal", "0000000000000001-0000000000000007.wal")
	writeFile(t, wal, append(l.b, make([]byte, 5000)...))
	return dir, wal
}

const (
	oneVoter    = `{"voters":[1],"auto_leave":false}`
	threeVoters = `{"voters":[1,2,3],"auto_leave":false}`
)

func TestTheLogBeyondTheDatabaseIsApplied(t *testing.T) {
	for _, c := range []struct {
		name, voters string
		last, commit uint64
		applied      uint64
		uncertain    uint64
		elsewhere    bool // The log has a folder of its own.
	}{
		{"of the only voter all entries count", oneVoter, 15, 12, 15, 0, false},
		{"of one among three those known as committed", threeVoters, 15, 13, 13, 2, true},
		{"nothing beyond", threeVoters, 10, 10, 10, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newModel()
			m.put("a", "1", 0, 0)
			m.head++
			want := *m
			dir, _ := dataDir(t, m, c.voters, c.last, c.commit, func(i uint64) []byte { return putRequest(fmt.Sprintf("log-%d", i), "x") })
			for i := uint64(11); i <= c.applied; i++ {
				want.put(fmt.Sprintf("log-%d", i), "x", 0, 0)
				want.head++
			}
			to, cfg := filepath.Join(t.TempDir(), "out.snap"), testConfig()
			if c.elsewhere {
				cfg.WALDir = filepath.Join(t.TempDir(), "log")
				if err := os.Rename(filepath.Join(dir, "member", "wal"), cfg.WALDir); err != nil {
					t.Fatal(err)
				}
			}
			report, err := Import(t.Context(), cfg, dir, to)
			if err != nil {
				t.Fatal(err)
			}
			got, k := keysOf(t, to)
			if !slices.Equal(got, want.want()) || k.Header.Revision != want.head || k.Header.Applied.Index != c.applied || k.Header.ClusterId != 0xc1 {
				t.Fatalf("header %v, keys %q, want %q", k.Header, got, want.want())
			}
			if report.FromLog != int(c.applied-10) || report.Uncertain != c.uncertain {
				t.Fatalf("%+v", report)
			}
		})
	}
}

func TestEachKindOfRequestInTheLog(t *testing.T) {
	message := func(number protowire.Number, m interface{ MarshalVT() ([]byte, error) }) []byte {
		return nested(field(nil, 1, 5), number, must(m.MarshalVT()))
	}
	requests := [][]byte{
		message(requestLeaseGrant, &etcdserverpb.LeaseGrantRequest{TTL: 60, ID: 77}),
		message(requestPut, &etcdserverpb.PutRequest{Key: []byte("leased"), Value: []byte("v"), Lease: 77}),
		message(requestPut, &etcdserverpb.PutRequest{Key: []byte("refused"), Lease: 99}), // No such lease: an outcome.
		message(requestTxn, &etcdserverpb.TxnRequest{
			Compare: []*etcdserverpb.Compare{{Key: []byte("a"), Target: etcdserverpb.Compare_VERSION, TargetUnion: &etcdserverpb.Compare_Version{Version: 1}}},
			Success: []*etcdserverpb.RequestOp{
				{Request: &etcdserverpb.RequestOp_RequestPut{RequestPut: &etcdserverpb.PutRequest{Key: []byte("then"), Value: []byte("1")}}},
				{Request: &etcdserverpb.RequestOp_RequestDeleteRange{RequestDeleteRange: &etcdserverpb.DeleteRangeRequest{Key: []byte("a")}}},
			},
		}),
		message(requestCompaction, &etcdserverpb.CompactionRequest{Revision: 3}),
		append(nested(field(nil, 1, 9), 2, []byte("PUT")), nested(nested(nil, 3, []byte("/0/version")), 4, []byte("3.4.0"))...), // Of the second version.
		message(1300, &etcdserverpb.PutRequest{Key: []byte("3.7.0")}),                                                           // A cluster version.
		message(requestLeaseGrant, &etcdserverpb.LeaseGrantRequest{TTL: 60, ID: 78}),
		message(requestPut, &etcdserverpb.PutRequest{Key: []byte("goes"), Lease: 78}),
		message(requestLeaseRevoke, &etcdserverpb.LeaseRevokeRequest{ID: 78}),
		message(requestDeleteRange, &etcdserverpb.DeleteRangeRequest{Key: []byte("nobody")}),
	}
	m := newModel()
	m.put("a", "1", 0, 0)
	m.head++
	dir, _ := dataDir(t, m, oneVoter, 10+uint64(len(requests)), 10, func(i uint64) []byte { return requests[i-11] })
	to := filepath.Join(t.TempDir(), "out.snap")
	report, err := Import(t.Context(), testConfig(), dir, to)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	list, k := keysOf(t, to)
	for _, row := range list {
		kv := &mvccpb.KeyValue{}
		if err := kv.UnmarshalVT([]byte(row)); err != nil {
			t.Fatal(err)
		}
		names = append(names, fmt.Sprintf("%s@%d", kv.Key, kv.ModRevision))
	}
	if got := strings.Join(names, " "); got != "leased@3 then@4" || k.Header.Revision != 6 || report.Leases != 1 || k.Header.Compacted.Revision != 3 {
		t.Fatalf("%s; %v; %+v", got, k.Header, report)
	}
}

// refusal is a source that cannot be imported, and what is said of it.
type refusal struct {
	name string
	make func() (from string)
	want error
	text string
}

// refused imports each, which must leave nothing behind.
func refused(t *testing.T, cases []refusal) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			from, to := c.make(), filepath.Join(t.TempDir(), "out.snap")
			_, err := Import(t.Context(), testConfig(), from, to)
			if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.text) {
				t.Errorf("%v", err)
			}
			if left, _ := filepath.Glob(to + "*"); len(left) != 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// alter changes a file.
func alter(t *testing.T, path string, change func(b []byte) []byte) {
	t.Helper()
	writeFile(t, path, change(readFile(t, path)))
}

// onePut is a store with one key.
func onePut() *model {
	m := newModel()
	m.put("a", "1", 0, 0)
	m.head++
	return m
}

func TestAFileThatCannotBeImportedSaysWhy(t *testing.T) {
	m := onePut()
	refused(t, []refusal{
		{"a text", func() string {
			p := filepath.Join(t.TempDir(), "text")
			writeFile(t, p, []byte(strings.Repeat("no etcd ", 4096)))
			return p
		}, ErrNotEtcd, "meta page"},
		{"an empty folder", func() string { return t.TempDir() }, ErrNotEtcd, "member/snap/db"},
		{"a flipped byte under a hash", func() string {
			p := filepath.Join(t.TempDir(), "db")
			m.write(t, p, 5, 1)
			seal(t, p)
			alter(t, p, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
			return p
		}, ErrDamaged, "SHA-256"},
		{"a cut file", func() string {
			p := filepath.Join(t.TempDir(), "db")
			m.write(t, p, 5, 1)
			alter(t, p, func(b []byte) []byte { return b[:4*4096] })
			return p
		}, ErrDamaged, "ends here"},
		{"a database in use", func() string {
			p := filepath.Join(t.TempDir(), "db")
			m.write(t, p, 5, 1)
			db, err := bbolt.Open(p, 0o600, &bbolt.Options{NoSync: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			return p
		}, ErrRunning, "stop it"},
	})
}

func TestADataDirectoryThatCannotBeImportedSaysWhy(t *testing.T) {
	m := onePut()
	put := func(i uint64) []byte { return putRequest("b", "2") }
	refused(t, []refusal{
		{"a log of another time", func() string {
			dir, _ := dataDir(t, m, oneVoter, 12, 12, put)
			setMeta(t, filepath.Join(dir, "member", "snap", "db"), metaIndex, number(400))
			return dir
		}, ErrDamaged, "ends with entry 12"},
		{"a flipped byte in the log", func() string {
			dir, wal := dataDir(t, m, oneVoter, 12, 12, put)
			alter(t, wal, func(b []byte) []byte { b[len(b)/30] ^= 1; return b })
			return dir
		}, ErrDamaged, "checksum"},
		{"committed entries missing", func() string {
			dir, _ := dataDir(t, m, threeVoters, 12, 20, put)
			return dir
		}, ErrDamaged, "entry 20 was committed"},
		{"a file of the log missing", func() string {
			dir, wal := dataDir(t, m, oneVoter, 12, 12, put)
			if err := os.Rename(wal, filepath.Join(filepath.Dir(wal), "0000000000000002-0000000000000100.wal")); err != nil {
				t.Fatal(err)
			}
			return dir
		}, ErrDamaged, "missing"},
	})
}

func TestAnExistingTargetStays(t *testing.T) {
	m := newModel()
	from, to := filepath.Join(t.TempDir(), "db"), filepath.Join(t.TempDir(), "out.snap")
	m.write(t, from, 5, 1)
	writeFile(t, to, []byte("precious"))
	if _, err := Import(t.Context(), testConfig(), from, to); !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	if _, err := Import(t.Context(), testConfig(), from+"x", to+"x"); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if got := readFile(t, to); string(got) != "precious" {
		t.Fatalf("the target is now %q", got)
	}
}
