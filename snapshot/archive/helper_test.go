package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
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
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
	"github.com/holdfast-db/holdfast/statemachine"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

// memStore is a blobstore.Store in memory.
type memStore struct {
	mu      sync.Mutex
	objects map[string][]byte
	tags    map[string]int
	serial  int
	// before may fail a call, or look at it. It is called without the lock.
	before func(verb, name string) error
}

func newMemStore() *memStore {
	return &memStore{objects: map[string][]byte{}, tags: map[string]int{}}
}

func (m *memStore) call(ctx context.Context, verb, name string) error {
	if m.before != nil {
		if err := m.before(verb, name); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (m *memStore) Put(ctx context.Context, name string, data []byte, c blobstore.Condition) (blobstore.Tag, error) {
	if err := m.call(ctx, "put", name); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, there := m.objects[name]
	if c.Absent && there || c.Match != "" && blobstore.Tag(fmt.Sprint(m.tags[name])) != c.Match {
		return "", blobstore.ErrCondition
	}
	m.serial++
	m.objects[name], m.tags[name] = bytes.Clone(data), m.serial
	return blobstore.Tag(fmt.Sprint(m.serial)), nil
}

func (m *memStore) Get(ctx context.Context, name string) ([]byte, blobstore.Tag, error) {
	if err := m.call(ctx, "get", name); err != nil {
		return nil, "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.objects[name]
	if !ok {
		return nil, "", blobstore.ErrNotFound
	}
	return bytes.Clone(data), blobstore.Tag(fmt.Sprint(m.tags[name])), nil
}

func (m *memStore) GetRange(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	data, _, err := m.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	offset = min(offset, int64(len(data)))
	return data[offset:min(offset+length, int64(len(data)))], nil
}

func (m *memStore) List(ctx context.Context, prefix, after string, fn func(blobstore.Object) error) error {
	if err := m.call(ctx, "list", prefix); err != nil {
		return err
	}
	for _, name := range m.names() {
		if strings.HasPrefix(name, prefix) && name > after {
			m.mu.Lock()
			o := blobstore.Object{Name: name, Size: int64(len(m.objects[name]))}
			m.mu.Unlock()
			if err := fn(o); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *memStore) Delete(ctx context.Context, name string) error {
	if err := m.call(ctx, "delete", name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, name)
	return nil
}

func (m *memStore) String() string { return "mem://" }
func (m *memStore) Close() error   { return nil }

func (m *memStore) names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.objects {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

var (
	testUUID     = UUID(bytes.Repeat([]byte{7}, 16))
	testIdentity = mvcc.Identity{Cluster: 0xc1, Timeline: 3}
	testPlace    = place{testUUID, testIdentity.Timeline}
)

func storeConfig(dir string) mvcc.Config {
	return mvcc.Config{
		FS: vfs.OS(), Dir: dir, Clock: clock.Real(), Logger: hclog.NewNullLogger(),
		SegmentBytes: 8 << 10, RingBytes: 32 << 10, Manual: true, BaseNoSync: true, BaseMapBytes: 64 << 20,
	}
}

// cluster is a store that a script writes to, and the naive model of its past.
type cluster struct {
	mu    sync.Mutex // The apply goroutine.
	t     testing.TB
	r     *rand.Rand
	store *mvcc.Store
	index ident.Index
	term  ident.Term
	past  []moment
}

// moment is what the model holds after a group.
type moment struct {
	at       ident.Position
	time     int64
	revision ident.Revision
	made     bool // The group made the revision.
	state    model
}

// model is keys and small rows as maps. Rows of members and cluster are left
// out: a restore replaces them.
type model struct {
	keys map[string]version
	rows map[string]string
}

type version struct {
	value        string
	create, mod  int64
	count, lease int64
}

func (m model) clone() model { return model{maps.Clone(m.keys), maps.Clone(m.rows)} }

func newCluster(t testing.TB, seed uint64) *cluster {
	t.Helper()
	s, err := mvcc.Create(storeConfig(t.TempDir()), testIdentity)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{t: t, r: rand.New(rand.NewPCG(seed, 1)), store: s}
	c.begin()
	return c
}

// begin is the first entry: members and the facts of the cluster.
func (c *cluster) begin() {
	c.index, c.term = 2, 2
	e := c.store.Begin(c.index, c.term, 1000)
	tx := e.Tx()
	var conf raftpb.ConfState
	for i := range uint64(3) {
		row := &holdfastpb.Member{Id: 0xa + i, Name: fmt.Sprintf("old%d", i), PeerUrls: []string{fmt.Sprintf("http://old%d:2380", i)}}
		tx.SetRow(backend.TableMember, member.Key(ident.MemberID(row.Id)), c.marshal(row))
		conf.Voters = append(conf.Voters, row.Id)
	}
	tx.SetRow(backend.TableMeta, statemachine.ClusterKey, c.marshal(&holdfastpb.Cluster{
		Uuid: testUUID[:], ClusterId: uint64(testIdentity.Cluster), Version: "3.7",
		Timeline: &holdfastpb.TimelineInfo{Number: 3, Parent: 2, Fork: &holdfastpb.Position{Index: 1}},
	}))
	tx.Commit()
	b, err := proto.Marshal(&conf)
	if err != nil {
		c.t.Fatal(err)
	}
	e.SetConfState(b)
	c.commit(e)
	c.past = append(c.past, moment{at: ident.Position{Index: c.index}, time: e.Time(), revision: c.store.Head(), state: modelOf(c.t, c.store)})
}

func (c *cluster) commit(e *mvcc.Entry) {
	c.t.Helper()
	if err := e.Commit(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) marshal(m interface{ MarshalVT() ([]byte, error) }) []byte {
	b, err := m.MarshalVT()
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// modelOf reads a store into maps.
func modelOf(t testing.TB, s *mvcc.Store) model {
	t.Helper()
	v := s.View()
	defer v.Release()
	res, err := v.Range(context.Background(), mvcc.RangeArgs{Key: []byte{0}, End: []byte{0}})
	if err != nil {
		t.Fatal(err)
	}
	m := model{keys: map[string]version{}, rows: map[string]string{}}
	for _, b := range res.KVs {
		kv := &mvccpb.KeyValue{}
		if err := kv.UnmarshalVT(b); err != nil {
			t.Fatal(err)
		}
		m.keys[string(kv.Key)] = version{string(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease}
	}
	for _, table := range []backend.Table{backend.TableLease, backend.TableUser, backend.TableRole} {
		if err := s.Rows(table, func(key, value []byte) error {
			m.rows[rowName(table, string(key))] = string(value)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func rowName(table backend.Table, key string) string { return fmt.Sprintf("%d %q", table, key) }

// run applies n entries of some requests each, and writes down what each left.
func (c *cluster) run(n int) {
	c.t.Helper()
	for range n {
		c.mu.Lock()
		c.entry()
		c.mu.Unlock()
	}
}

func (c *cluster) entry() {
	c.t.Helper()
	c.index += 1 + ident.Index(c.r.IntN(2))
	c.term += ident.Term(c.r.IntN(20) / 19)
	e := c.store.Begin(c.index, c.term, int64(c.index)*1_000_000_000)
	now := c.past[len(c.past)-1]
	for group := range uint32(c.r.IntN(4)) {
		next := moment{at: ident.Position{Index: c.index, Group: group}, time: e.Time(), revision: now.revision, state: now.state.clone()}
		tx := e.Tx()
		changed := c.request(tx, &next)
		tx.Commit()
		if changed {
			now = next
			c.past = append(c.past, next)
		}
	}
	c.commit(e)
	if c.r.IntN(4) == 0 {
		if _, err := c.store.Step(); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *cluster) key() string { return fmt.Sprintf("key-%02d", c.r.IntN(30)) }

// request changes something, in the store and in the model.
func (c *cluster) request(tx *mvcc.Tx, next *moment) (changed bool) {
	c.t.Helper()
	m := next.state
	switch c.r.IntN(10) {
	case 0, 1:
		from, to := c.key(), c.key()
		n, _, err := tx.DeleteRange([]byte(from), []byte(to), false)
		if err != nil {
			c.t.Fatal(err)
		}
		maps.DeleteFunc(m.keys, func(k string, _ version) bool { return k >= from && k < to })
		if n == 0 {
			return false
		}
	case 2, 3:
		table := []backend.Table{backend.TableUser, backend.TableLease}[c.r.IntN(2)]
		name, value := fmt.Sprintf("row-%d", c.r.IntN(5)), fmt.Sprint(c.r.IntN(9))
		if _, there := m.rows[rowName(table, name)]; there && c.r.IntN(2) == 0 {
			tx.DeleteRow(table, []byte(name))
			delete(m.rows, rowName(table, name))
		} else {
			tx.SetRow(table, []byte(name), []byte(value))
			m.rows[rowName(table, name)] = value
		}
		return true
	case 4:
		if c.r.IntN(4) != 0 || c.store.Head() <= tx.Compacted() {
			return false
		}
		if err := tx.Compact(tx.Compacted() + 1 + ident.Revision(c.r.Int64N(int64(c.store.Head()-tx.Compacted())))); err != nil {
			c.t.Fatal(err)
		}
		return true
	default:
		value, lease := make([]byte, c.r.IntN(400)), ident.LeaseID(c.r.IntN(3))
		for i := range value {
			value[i] = byte(c.r.Uint32())
		}
		key, mod := c.key(), int64(next.revision)+1
		if _, err := tx.Put(mvcc.PutArgs{Key: []byte(key), Value: value, Lease: lease}); err != nil {
			c.t.Fatal(err)
		}
		old, there := m.keys[key]
		v := version{string(value), mod, mod, old.count + 1, int64(lease)}
		if there {
			v.create = old.create
		}
		m.keys[key] = v
	}
	next.revision++
	next.made = true
	return true
}

// segments cuts what lies after a point into objects of n records.
func (c *cluster) segments(after Point, n int, add func(s *segment)) Point {
	c.t.Helper()
	r, err := c.store.History().Scan(ident.Position{Index: after.Index + 1})
	if err != nil {
		c.t.Fatal(err)
	}
	defer r.Close()
	s := &segment{}
	s.begin(after)
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			if s.records > 0 {
				add(s)
			}
			return s.end
		}
		if err == nil {
			err = s.add(rec)
		}
		if err != nil {
			c.t.Fatal(err)
		}
		if s.records == n {
			add(s)
			s.begin(s.end)
		}
	}
}
