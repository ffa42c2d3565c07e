package crash

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/entry"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// model is what the state should be: every version of every key, no files, no
// indexes, no merging.
type model struct {
	revision  int64
	compacted int64
	keys      map[string][]version // Oldest first.
	leases    map[int64]int64      // Time to live.
	learners  map[uint64]bool
}

// version is a key as of one revision.
type version struct {
	create, mod, version, lease int64
	value                       string
	gone                        bool
	row                         []byte // In wire form, of all but what is gone.
}

func newModel() *model {
	return &model{revision: 1, compacted: -1, keys: map[string][]version{}, leases: map[int64]int64{}, learners: map[uint64]bool{}}
}

func (m *model) clone() *model {
	c := *m
	c.keys, c.leases, c.learners = maps.Clone(m.keys), maps.Clone(m.leases), maps.Clone(m.learners)
	for k, v := range c.keys {
		c.keys[k] = slices.Clip(v)
	}
	return &c
}

func (m *model) at(key string, revision int64) (version, bool) {
	for _, v := range slices.Backward(m.keys[key]) {
		if v.mod <= revision {
			return v, !v.gone
		}
	}
	return version{}, false
}

// all is what a range over everything answers, in wire form.
func (m *model) all(revision int64) [][]byte {
	var rows [][]byte
	for _, key := range slices.Sorted(maps.Keys(m.keys)) {
		if v, ok := m.at(key, revision); ok {
			rows = append(rows, v.row)
		}
	}
	return rows
}

func (m *model) attached(lease int64) (keys []string) {
	for key := range m.keys {
		if v, ok := m.at(key, m.revision); ok && v.lease == lease {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// apply does what an entry says.
func (m *model) apply(e *raftpb.Entry) error {
	data := e.GetData()
	if e.GetType() == raftpb.EntryConfChangeV2 {
		change := &raftpb.ConfChangeV2{}
		if err := proto.Unmarshal(data, change); err != nil {
			return err
		}
		data = change.Context
	}
	if len(data) == 0 {
		return nil
	}
	batch, err := entry.DecodeBatch(data, nil)
	if err != nil {
		return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
	}
	for _, r := range batch.Requests {
		cmd := &holdfastpb.Command{}
		if err := cmd.UnmarshalVT(r.Data); err != nil {
			return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
		m.execute(cmd)
	}
	return nil
}

func (m *model) execute(cmd *holdfastpb.Command) {
	next := m.revision + 1
	wrote := false
	switch c := cmd.Command.(type) {
	case *holdfastpb.Command_Put:
		wrote = m.put(c.Put, next)
	case *holdfastpb.Command_DeleteRange:
		wrote = m.delete(c.DeleteRange, next)
	case *holdfastpb.Command_Txn:
		wrote = m.txn(c.Txn, next)
	case *holdfastpb.Command_Compaction:
		if r := c.Compaction.Revision; r > m.compacted && r <= m.revision {
			m.compacted = r
		}
	case *holdfastpb.Command_LeaseGrant:
		if _, taken := m.leases[c.LeaseGrant.Id]; !taken {
			m.leases[c.LeaseGrant.Id] = c.LeaseGrant.Ttl
		}
	case *holdfastpb.Command_LeaseRevoke:
		wrote = m.revoke(c.LeaseRevoke.Id, next)
	case *holdfastpb.Command_MemberAdd:
		m.learners[c.MemberAdd.Member.Id] = true
	case *holdfastpb.Command_MemberRemove:
		delete(m.learners, c.MemberRemove.Id)
	}
	if wrote {
		m.revision = next
	}
}

func (m *model) put(r *pb.PutRequest, at int64) bool {
	if _, ok := m.leases[r.Lease]; r.Lease != 0 && !ok {
		return false
	}
	v := version{create: at, mod: at, version: 1, lease: r.Lease, value: string(r.Value)}
	if old, ok := m.at(string(r.Key), at); ok {
		v.create, v.version = old.create, old.version+1
	}
	m.add(string(r.Key), v)
	return true
}

func (m *model) add(key string, v version) {
	if !v.gone {
		kv := &mvccpb.KeyValue{Key: []byte(key), CreateRevision: v.create, ModRevision: v.mod, Version: v.version, Value: []byte(v.value), Lease: v.lease}
		var err error
		if v.row, err = kv.MarshalVT(); err != nil {
			panic(err) // A message of ours always has a wire form.
		}
	}
	m.keys[key] = append(slices.Clip(m.keys[key]), v)
}

func (m *model) delete(r *pb.DeleteRangeRequest, at int64) (wrote bool) {
	for key := range m.keys {
		inside := key == string(r.Key)
		if len(r.RangeEnd) > 0 {
			inside = key >= string(r.Key) && key < string(r.RangeEnd)
		}
		if _, ok := m.at(key, at); ok && inside {
			m.add(key, version{mod: at, gone: true})
			wrote = true
		}
	}
	return wrote
}

// txn knows comparisons of versions for equality, puts and deletes.
func (m *model) txn(r *pb.TxnRequest, at int64) (wrote bool) {
	ops := r.Success
	for _, c := range r.Compare {
		v, _ := m.at(string(c.Key), m.revision)
		if v.version != c.GetVersion() {
			ops = r.Failure
		}
	}
	for _, op := range ops { // A lease that is not there refuses all of it.
		if p := op.GetRequestPut(); p != nil && p.Lease != 0 {
			if _, ok := m.leases[p.Lease]; !ok {
				return false
			}
		}
	}
	for _, op := range ops {
		if p := op.GetRequestPut(); p != nil {
			wrote = m.put(p, at) || wrote
		}
		if d := op.GetRequestDeleteRange(); d != nil {
			wrote = m.delete(d, at) || wrote
		}
	}
	return wrote
}

func (m *model) revoke(id, at int64) (wrote bool) {
	if _, ok := m.leases[id]; !ok {
		return false
	}
	for _, key := range m.attached(id) {
		m.add(key, version{mod: at, gone: true})
		wrote = true
	}
	delete(m.leases, id)
	return wrote
}

func sameRows(got, want [][]byte) error {
	for i := range min(len(got), len(want)) {
		if !bytes.Equal(got[i], want[i]) {
			return fmt.Errorf("row %d of %d is %s, want %s", i, len(got), rowText(got[i]), rowText(want[i]))
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d rows, want %d", len(got), len(want))
	}
	return nil
}

func rowText(row []byte) string {
	kv := &mvccpb.KeyValue{}
	if err := kv.UnmarshalVT(row); err != nil {
		return fmt.Sprintf("%x (%v)", row, err)
	}
	return fmt.Sprintf("%s created %d, mod %d, version %d, lease %d, %d bytes", kv.Key, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease, len(kv.Value))
}
