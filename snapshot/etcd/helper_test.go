package etcd

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/bbolt"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/proto/authpb"
	"github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/snapshot"
)

func testConfig() Config {
	return Config{
		FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), ClusterLevel: "3.7", SortBytes: 3000,
		Tune: func(c *mvcc.Config) { c.Manual, c.BaseNoSync, c.BaseMapBytes = true, true, 64<<20 },
	}
}

// model is what an etcd does to its keys.
type model struct {
	head   int64
	keys   map[string]*mvccpb.KeyValue
	leases map[int64]int64
	rows   map[string][]byte // Of bucket key.
}

func newModel() *model {
	return &model{head: 1, keys: map[string]*mvccpb.KeyValue{}, leases: map[int64]int64{}, rows: map[string][]byte{}}
}

// put and remove change a key at the revision after head; sub is its place in
// the transaction.
func (m *model) put(key, value string, lease int64, sub int64) {
	kv := &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), Lease: lease, ModRevision: m.head + 1, CreateRevision: m.head + 1, Version: 1}
	if old := m.keys[key]; old != nil {
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
	}
	m.keys[key] = kv
	m.rows[string(revision{main: m.head + 1, sub: sub}.append(nil))] = must(kv.MarshalVT())
}

func (m *model) remove(key string, sub int64) bool {
	if m.keys[key] == nil {
		return false
	}
	delete(m.keys, key)
	m.rows[string(revision{main: m.head + 1, sub: sub, tombstone: true}.append(nil))] = must((&mvccpb.KeyValue{Key: []byte(key)}).MarshalVT())
	return true
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// random makes a history of n transactions, and forgets some old revisions as a
// compaction does.
func random(r *rand.Rand, n int) *model {
	m := newModel()
	for id := range int64(r.IntN(4)) {
		m.leases[id+7] = 30 + id
	}
	for range n {
		changed := false
		for sub := range int64(1 + r.IntN(3)) {
			key := fmt.Sprintf("key-%02d", 3*r.IntN(12)+int(sub))
			if r.IntN(4) == 0 {
				changed = m.remove(key, sub) || changed
			} else {
				m.put(key, fmt.Sprintf("value %d", r.IntN(1000)), int64(r.IntN(2))*7*int64(len(m.leases)), sub)
				changed = true
			}
		}
		if changed {
			m.head++
		}
	}
	return m
}

// want is the keys as they must come out, in wire form by rising key.
func (m *model) want() []string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(m.keys)) {
		list = append(list, string(must(m.keys[key].MarshalVT())))
	}
	return list
}

func number(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// write makes a database as etcd would.
func (m *model) write(t testing.TB, path string, index, term uint64) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, PageSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	buckets := map[string]map[string][]byte{
		bucketKey: m.rows, bucketMeta: {metaIndex: number(index)}, bucketLease: {}, bucketAlarm: {}, bucketCluster: {"clusterVersion": []byte("3.4.0")},
		bucketMembers: {"8e9e05c52164694d": []byte("{}")}, bucketMembersRemoved: {}, bucketAuth: {authEnabled: {0}}, bucketUsers: {"root": must((&authpb.User{Name: []byte("root")}).MarshalVT())}, bucketRoles: {},
	}
	if term > 0 {
		buckets[bucketMeta][metaTerm] = number(term)
		buckets[bucketMeta][metaConfState] = []byte(`{"voters":[1],"auto_leave":false}`)
	}
	for id, ttl := range m.leases {
		buckets[bucketLease][string(number(uint64(id)))] = encodeLease(id, ttl)
	}
	for _, name := range slices.Sorted(maps.Keys(buckets)) {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte(name))
			for _, key := range slices.Sorted(maps.Keys(buckets[name])) {
				if err == nil {
					err = b.Put([]byte(key), buckets[name][key])
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// seal adds the hash that a snapshot of etcd ends in.
func seal(t testing.TB, path string) {
	t.Helper()
	b := readFile(t, path)
	sum := sha256.Sum256(b)
	writeFile(t, path, append(b, sum[:]...))
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// keysOf is the keys of a snapshot file of ours.
func keysOf(t testing.TB, path string) (list []string, k *snapshot.Keys) {
	t.Helper()
	k, err := snapshot.OpenKeys(t.Context(), vfs.OS(), path, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for {
		key, kv, err := k.Next()
		if err != nil {
			t.Fatal(err)
		}
		if key == nil {
			return list, k
		}
		list = append(list, string(kv))
	}
}

// logFile writes records as etcd's log has them.
type logFile struct {
	b   []byte
	crc uint32
}

func newLogFile(crc uint32) *logFile {
	l := &logFile{crc: crc}
	l.frame(recordCRC, nil)
	l.add(recordMetadata, field(field(nil, 1, 1), 2, 0xc1))
	return l
}

func field(b []byte, number protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), v)
}

func nested(b []byte, number protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), v)
}

func (l *logFile) add(kind uint64, data []byte) {
	l.crc = crc32.Update(l.crc, castagnoli, data)
	l.frame(kind, data)
}

func (l *logFile) frame(kind uint64, data []byte) {
	m := field(field(nil, 1, kind), 2, uint64(l.crc))
	if data != nil {
		m = nested(m, 3, data)
	}
	length := uint64(len(m))
	if pad := (8 - len(m)%8) % 8; pad != 0 {
		length |= uint64(0x80|pad) << 56
		m = append(m, make([]byte, pad)...)
	}
	l.b = append(binary.LittleEndian.AppendUint64(l.b, length), m...)
}

func (l *logFile) entry(t testing.TB, index, term uint64, data []byte) {
	t.Helper()
	l.add(recordEntry, must(proto.Marshal(&raftpb.Entry{Index: &index, Term: &term, Data: data})))
}

func (l *logFile) state(commit, term uint64) {
	l.add(recordState, field(field(field(nil, 1, term), 2, 1), 3, commit))
}

func putRequest(key, value string) []byte {
	body := must((&etcdserverpb.PutRequest{Key: []byte(key), Value: []byte(value)}).MarshalVT())
	return nested(field(nested(nil, 100, field(nil, 1, 5)), 1, 5), requestPut, body)
}

func setMeta(t testing.TB, path, key string, value []byte) {
	t.Helper()
	setBucket(t, path, bucketMeta, key, value)
}

func setBucket(t testing.TB, path, bucket, key string, value []byte) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	if err == nil {
		err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), value) })
	}
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}
