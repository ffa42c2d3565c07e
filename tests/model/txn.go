package model

import (
	"bytes"
	"cmp"
	"slices"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// tx is one request under way. It sees what it wrote itself, at the revision
// that it will have.
type tx struct {
	*Store
	wrote bool
}

func (s *Store) begin() *tx { return &tx{Store: s} }

func (t *tx) end() {
	if t.wrote {
		t.Store.revision++
	}
}

// now is the newest revision that the request can read.
func (t *tx) now() int64 {
	if t.wrote {
		return t.revision + 1
	}
	return t.revision
}

// set writes a version of a key. History knows one change of a key at a
// revision: a second one takes the place of the first.
func (t *tx) set(kv *mvccpb.KeyValue) {
	key := string(kv.Key)
	versions, known := t.versions[key]
	if !known {
		at, _ := slices.BinarySearch(t.keys, key)
		t.keys = slices.Insert(t.keys, at, key)
	}
	if n := len(versions); n > 0 {
		delete(t.attached[versions[n-1].Lease], key)
	}
	if kv.Lease != 0 {
		if t.attached[kv.Lease] == nil {
			t.attached[kv.Lease] = map[string]struct{}{}
		}
		t.attached[kv.Lease][key] = struct{}{}
	}
	event := &mvccpb.Event{Kv: kv}
	if kv.Version == 0 {
		event.Type = mvccpb.Event_DELETE
	}
	t.wrote = true
	if n := len(versions); n > 0 && versions[n-1].ModRevision == kv.ModRevision {
		versions[n-1] = kv
		for i, e := range t.log {
			if e.Kv.ModRevision == kv.ModRevision && string(e.Kv.Key) == key {
				t.log[i] = event
			}
		}
		return
	}
	t.versions[key] = append(versions, kv)
	t.log = append(t.log, event)
}

func (t *tx) checkPut(r *pb.PutRequest) error {
	if r.GetLease() != 0 {
		if _, ok := t.leases[r.Lease]; !ok {
			return ErrLeaseNotFound
		}
	}
	if (r.GetIgnoreValue() || r.GetIgnoreLease()) && t.Get(string(r.Key), t.now()) == nil {
		return ErrKeyNotFound
	}
	return nil
}

func (t *tx) put(r *pb.PutRequest) *pb.PutResponse {
	old := t.Get(string(r.Key), t.now())
	next := t.revision + 1
	kv := &mvccpb.KeyValue{Key: r.Key, CreateRevision: next, ModRevision: next, Version: 1, Value: r.Value, Lease: r.Lease}
	if old != nil {
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
		if r.IgnoreValue {
			kv.Value = old.Value
		}
		if r.IgnoreLease {
			kv.Lease = old.Lease
		}
	}
	t.set(kv)
	answer := &pb.PutResponse{Header: header(t.now())}
	if r.PrevKv {
		answer.PrevKv = old
	}
	return answer
}

func (t *tx) delete(r *pb.DeleteRangeRequest) *pb.DeleteRangeResponse {
	doomed := t.interval(r.Key, r.RangeEnd, t.now())
	for _, kv := range doomed {
		t.set(&mvccpb.KeyValue{Key: kv.Key, ModRevision: t.revision + 1})
	}
	answer := &pb.DeleteRangeResponse{Header: header(t.now()), Deleted: int64(len(doomed))}
	if r.PrevKv {
		answer.PrevKvs = doomed
	}
	return answer
}

func (t *tx) get(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	at := r.GetRevision()
	switch {
	case at <= 0:
		at = t.now()
	case at > t.now():
		return nil, ErrFutureRevision
	case at < t.compacted:
		return nil, ErrCompacted
	}
	found := t.interval(r.Key, r.RangeEnd, at)
	answer := &pb.RangeResponse{Header: header(t.now()), Count: int64(len(found))}
	if r.CountOnly {
		return answer, nil
	}
	kvs, filtered := filter(r, found)
	if r.SortOrder == pb.RangeRequest_NONE && !filtered && r.Limit > 0 && int64(len(kvs))-1 > r.Limit {
		kvs = kvs[:r.Limit+1] // As etcd: without an order only these are sorted by a target.
	}
	sortBy(r, kvs)
	if r.Limit > 0 && int64(len(kvs)) > r.Limit {
		kvs, answer.More = kvs[:r.Limit], true
	}
	if r.KeysOnly {
		kvs = bare(r, kvs)
	}
	answer.Kvs = kvs
	return answer, nil
}

// filter applies the bounds of revisions. An upper one below zero lets nothing
// through.
func filter(r *pb.RangeRequest, kvs []*mvccpb.KeyValue) (passed []*mvccpb.KeyValue, filtered bool) {
	if r.MinModRevision == 0 && r.MaxModRevision == 0 && r.MinCreateRevision == 0 && r.MaxCreateRevision == 0 {
		return kvs, false
	}
	for _, kv := range kvs {
		if within(kv.ModRevision, r.MinModRevision, r.MaxModRevision) && within(kv.CreateRevision, r.MinCreateRevision, r.MaxCreateRevision) {
			passed = append(passed, kv)
		}
	}
	return passed, true
}

func within(revision, lo, hi int64) bool { return revision >= lo && (hi == 0 || revision <= hi) }

// sortBy sorts in place. Equals stay in the order of keys.
func sortBy(r *pb.RangeRequest, kvs []*mvccpb.KeyValue) {
	by := func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) }
	switch r.SortTarget {
	case pb.RangeRequest_VERSION:
		by = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.Version, b.Version) }
	case pb.RangeRequest_CREATE:
		by = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) }
	case pb.RangeRequest_MOD:
		by = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.ModRevision, b.ModRevision) }
	case pb.RangeRequest_VALUE:
		by = func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Value, b.Value) }
	}
	if r.SortOrder == pb.RangeRequest_DESCEND {
		up := by
		by = func(a, b *mvccpb.KeyValue) int { return up(b, a) }
	}
	slices.SortStableFunc(kvs, by)
}

// bare drops values, and the lease unless values were asked to be sorted by.
func bare(r *pb.RangeRequest, kvs []*mvccpb.KeyValue) []*mvccpb.KeyValue {
	out := make([]*mvccpb.KeyValue, len(kvs))
	for i, kv := range kvs {
		out[i] = &mvccpb.KeyValue{Key: kv.Key, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version}
		if r.SortTarget == pb.RangeRequest_VALUE {
			out[i].Lease = kv.Lease
		}
	}
	return out
}

// branch is what a transaction will do: the operations whose turn it is, and
// the same for those nested in it. Conditions at every depth are about the
// state before.
type branch struct {
	yes    bool
	ops    []*pb.RequestOp
	nested map[*pb.RequestOp]*branch
}

func (s *Store) choose(r *pb.TxnRequest) *branch {
	b := &branch{yes: true, ops: r.GetSuccess(), nested: map[*pb.RequestOp]*branch{}}
	for _, c := range r.GetCompare() {
		b.yes = b.yes && s.holds(c)
	}
	if !b.yes {
		b.ops = r.GetFailure()
	}
	for _, op := range b.ops {
		if inner := op.GetRequestTxn(); inner != nil {
			b.nested[op] = s.choose(inner)
		}
	}
	return b
}

// txn finds all that can fail on the state before, then writes.
func (s *Store) txn(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	b, t := s.choose(r), s.begin()
	if err := t.check(b); err != nil {
		return nil, err
	}
	answer := t.run(b)
	answer.Header.Revision = t.now()
	t.end()
	return answer, nil
}

func (t *tx) check(b *branch) error {
	for _, op := range b.ops {
		var err error
		switch v := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			// Here, unlike outside of a transaction, a negative one may be compacted.
			switch at := v.RequestRange.GetRevision(); {
			case at > t.revision:
				err = ErrFutureRevision
			case at != 0 && at < t.compacted:
				err = ErrCompacted
			}
		case *pb.RequestOp_RequestPut:
			err = t.checkPut(v.RequestPut)
		case *pb.RequestOp_RequestTxn:
			err = t.check(b.nested[op])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) run(b *branch) *pb.TxnResponse {
	answer := &pb.TxnResponse{Header: header(0), Succeeded: b.yes}
	for _, op := range b.ops {
		res := &pb.ResponseOp{}
		switch v := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			got, err := t.get(v.RequestRange)
			if err != nil {
				panic("a range of a transaction fails after it was checked: " + err.Error())
			}
			res.Response = &pb.ResponseOp_ResponseRange{ResponseRange: got}
		case *pb.RequestOp_RequestPut:
			res.Response = &pb.ResponseOp_ResponsePut{ResponsePut: t.put(v.RequestPut)}
		case *pb.RequestOp_RequestDeleteRange:
			res.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: t.delete(v.RequestDeleteRange)}
		case *pb.RequestOp_RequestTxn:
			res.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: t.run(b.nested[op])}
		}
		answer.Responses = append(answer.Responses, res)
	}
	return answer
}

// holds evaluates a condition: all keys of its range must meet it. A key that
// is not there has zeroes to compare with, but no value.
func (s *Store) holds(c *pb.Compare) bool {
	kvs := s.interval(c.Key, c.RangeEnd, s.revision)
	if len(kvs) == 0 {
		return c.Target != pb.Compare_VALUE && meets(c, &mvccpb.KeyValue{})
	}
	for _, kv := range kvs {
		if !meets(c, kv) {
			return false
		}
	}
	return true
}

func meets(c *pb.Compare, kv *mvccpb.KeyValue) bool {
	order := 0
	switch c.Target {
	case pb.Compare_VALUE:
		order = bytes.Compare(kv.Value, c.GetValue())
	case pb.Compare_CREATE:
		order = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
	case pb.Compare_MOD:
		order = cmp.Compare(kv.ModRevision, c.GetModRevision())
	case pb.Compare_VERSION:
		order = cmp.Compare(kv.Version, c.GetVersion())
	case pb.Compare_LEASE:
		order = cmp.Compare(kv.Lease, c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return order == 0
	case pb.Compare_GREATER:
		return order > 0
	case pb.Compare_LESS:
		return order < 0
	case pb.Compare_NOT_EQUAL:
		return order != 0
	}
	return true // As etcd: what it does not know, it lets pass.
}
