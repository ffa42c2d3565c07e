package clienttest

import (
	"bytes"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

var (
	errCompacted     = status.Error(codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")
	errLeaseNotFound = status.Error(codes.NotFound, "etcdserver: requested lease not found")
)

// store is what all members share: keys now, and every event that led here.
type store struct {
	mu struct {
		sync.Mutex
		revision  int64
		compacted int64
		pending   []*mvccpb.Event // Of the revision being made.
		events    []*mvccpb.Event
		kvs       map[string]*mvccpb.KeyValue
		leases    map[int64]int64 // To the TTL.
		changed   chan struct{}   // Closed at the next revision.
	}
}

func newStore() *store {
	s := &store{}
	s.mu.revision = 1
	s.mu.kvs = make(map[string]*mvccpb.KeyValue)
	s.mu.leases = make(map[int64]int64)
	s.mu.changed = make(chan struct{})
	return s
}

func contains(key, end, k []byte) bool {
	switch {
	case len(end) == 0:
		return bytes.Equal(k, key)
	case len(end) == 1 && end[0] == 0:
		return bytes.Compare(k, key) >= 0
	}
	return bytes.Compare(k, key) >= 0 && bytes.Compare(k, end) < 0
}

// rangeLocked returns copies, in order.
func (s *store) rangeLocked(key, end []byte) []*mvccpb.KeyValue {
	var found []*mvccpb.KeyValue
	for k, kv := range s.mu.kvs {
		if contains(key, end, []byte(k)) {
			found = append(found, proto.CloneOf(kv))
		}
	}
	slices.SortFunc(found, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	return found
}

// putLocked makes a change of the revision to come.
func (s *store) putLocked(r *pb.PutRequest) {
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, Lease: r.Lease, CreateRevision: s.mu.revision + 1}
	prev := s.mu.kvs[string(r.Key)]
	if prev != nil {
		kv.CreateRevision, kv.Version = prev.CreateRevision, prev.Version
	}
	kv.Version++
	kv.ModRevision = s.mu.revision + 1
	s.mu.kvs[string(r.Key)] = kv
	s.mu.pending = append(s.mu.pending, &mvccpb.Event{Kv: kv, PrevKv: prev})
}

func (s *store) deleteLocked(key, end []byte) []*mvccpb.KeyValue {
	gone := s.rangeLocked(key, end)
	for _, kv := range gone {
		delete(s.mu.kvs, string(kv.Key))
		s.mu.pending = append(s.mu.pending, &mvccpb.Event{
			Type: mvccpb.Event_DELETE, PrevKv: kv,
			Kv: &mvccpb.KeyValue{Key: kv.Key, ModRevision: s.mu.revision + 1},
		})
	}
	return gone
}

// commitLocked ends a revision, if it changed anything.
func (s *store) commitLocked() int64 {
	if len(s.mu.pending) > 0 {
		s.mu.revision++
		s.mu.events = append(s.mu.events, s.mu.pending...)
		s.mu.pending = nil
		close(s.mu.changed)
		s.mu.changed = make(chan struct{})
	}
	return s.mu.revision
}

func (s *store) revokeLocked(id int64) bool {
	_, found := s.mu.leases[id]
	delete(s.mu.leases, id)
	for _, kv := range s.rangeLocked([]byte{0}, []byte{0}) {
		if kv.Lease == id {
			s.deleteLocked(kv.Key, nil)
		}
	}
	s.commitLocked()
	return found
}

func (s *store) txnLocked(t *pb.TxnRequest) *pb.TxnResponse {
	answer := &pb.TxnResponse{Succeeded: true}
	for _, c := range t.Compare {
		answer.Succeeded = answer.Succeeded && s.holdsLocked(c)
	}
	ops := t.Failure
	if answer.Succeeded {
		ops = t.Success
	}
	for _, op := range ops {
		r := &pb.ResponseOp{}
		switch op := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			kvs := s.rangeLocked(op.RequestRange.Key, op.RequestRange.RangeEnd)
			r.Response = &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Kvs: kvs, Count: int64(len(kvs))}}
		case *pb.RequestOp_RequestPut:
			s.putLocked(op.RequestPut)
			r.Response = &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}
		case *pb.RequestOp_RequestDeleteRange:
			gone := s.deleteLocked(op.RequestDeleteRange.Key, op.RequestDeleteRange.RangeEnd)
			r.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: &pb.DeleteRangeResponse{Deleted: int64(len(gone))}}
		case *pb.RequestOp_RequestTxn:
			r.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: s.txnLocked(op.RequestTxn)}
		}
		answer.Responses = append(answer.Responses, r)
	}
	return answer
}

// holdsLocked decides a comparison of one key.
func (s *store) holdsLocked(c *pb.Compare) bool {
	kv, found := s.mu.kvs[string(c.Key)]
	if !found {
		kv = &mvccpb.KeyValue{}
	}
	var order int
	switch c.Target {
	case pb.Compare_VALUE:
		if !found {
			return false
		}
		order = bytes.Compare(kv.Value, c.GetValue())
	case pb.Compare_VERSION:
		order = int(kv.Version - c.GetVersion())
	case pb.Compare_CREATE:
		order = int(kv.CreateRevision - c.GetCreateRevision())
	case pb.Compare_MOD:
		order = int(kv.ModRevision - c.GetModRevision())
	case pb.Compare_LEASE:
		order = int(kv.Lease - c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return order == 0
	case pb.Compare_NOT_EQUAL:
		return order != 0
	case pb.Compare_LESS:
		return order < 0
	}
	return order > 0
}
