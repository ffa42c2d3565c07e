// Package model is what the store should be, in the simplest words: the rules
// of the protocol on maps and sorted slices, from requests to answers. It
// shares no code with the product, so that the two can only agree by both
// being right, and it never forgets: a compaction hides the past from requests,
// not from those who check.
//
// The checkers of tests/check replay histories on it, the simulation keeps one
// beside the cluster, and the tests here hold the state machine against it.
//
// What it returns is shared and read-only. It belongs to one goroutine.
package model

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// Errors, in the words that a client gets.
var (
	ErrEmptyKey       = errors.New("etcdserver: key is not provided")
	ErrKeyNotFound    = errors.New("etcdserver: key not found")
	ErrValueProvided  = errors.New("etcdserver: value is provided")
	ErrLeaseProvided  = errors.New("etcdserver: lease is provided")
	ErrTooManyOps     = errors.New("etcdserver: too many operations in txn request")
	ErrDuplicateKey   = errors.New("etcdserver: duplicate key given in txn request")
	ErrSortOption     = errors.New("etcdserver: invalid sort option")
	ErrCompacted      = errors.New("etcdserver: mvcc: required revision has been compacted")
	ErrFutureRevision = errors.New("etcdserver: mvcc: required revision is a future revision")
	ErrLeaseTTL       = errors.New("etcdserver: too large lease TTL")
	ErrLeaseNotFound  = errors.New("etcdserver: requested lease not found")
	ErrLeaseExists    = errors.New("etcdserver: lease already exists")
)

// Limits of the protocol.
const (
	OpsMax = 128
	TTLMax = 9_000_000_000 // Seconds.
)

// Store is one state of the store, with everything that led to it.
type Store struct {
	// TTLMin is what shorter leases are raised to, in seconds: 2 with etcd's
	// election timeout of 1 s.
	TTLMin int64

	revision  int64
	compacted int64 // -1: never.
	log       []*mvccpb.Event
	keys      []string                      // That ever were, sorted.
	versions  map[string][]*mvccpb.KeyValue // Oldest first. Version 0 is a deletion.
	leases    map[int64]int64               // Granted seconds.
	attached  map[int64]map[string]struct{} // Keys at the head.
}

// New returns an empty store.
func New() *Store {
	return &Store{
		TTLMin: 2, revision: 1, compacted: -1,
		versions: map[string][]*mvccpb.KeyValue{}, leases: map[int64]int64{}, attached: map[int64]map[string]struct{}{},
	}
}

// Clone returns a copy that goes its own way.
func (s *Store) Clone() *Store {
	c := *s
	c.log, c.keys = slices.Clone(s.log), slices.Clone(s.keys)
	c.versions, c.leases = maps.Clone(s.versions), maps.Clone(s.leases)
	for k, v := range c.versions {
		c.versions[k] = slices.Clone(v)
	}
	c.attached = map[int64]map[string]struct{}{}
	for id, keys := range s.attached {
		c.attached[id] = maps.Clone(keys)
	}
	return &c
}

// Revision is the head.
func (s *Store) Revision() int64 { return s.revision }

// Compacted is the oldest revision that requests can read, -1 if nothing was
// compacted.
func (s *Store) Compacted() int64 { return s.compacted }

// Leases lists the leases there are, by ID.
func (s *Store) Leases() []int64 { return slices.Sorted(maps.Keys(s.leases)) }

// LeaseKeys lists the keys that hang on a lease, sorted.
func (s *Store) LeaseKeys(id int64) []string { return slices.Sorted(maps.Keys(s.attached[id])) }

// Events returns what happened at the revisions from and to and between them,
// compacted or not, in order and without previous values.
func (s *Store) Events(from, to int64) []*mvccpb.Event {
	lo, _ := slices.BinarySearchFunc(s.log, from, eventAt)
	hi, _ := slices.BinarySearchFunc(s.log, to+1, eventAt)
	return s.log[lo:max(lo, hi)]
}

func eventAt(e *mvccpb.Event, revision int64) int { return int(e.Kv.ModRevision - revision) }

// Get returns a key as of a revision, compacted or not, or nil.
func (s *Store) Get(key string, revision int64) *mvccpb.KeyValue {
	versions := s.versions[key]
	n := len(versions)
	if n > 0 && versions[n-1].ModRevision > revision {
		n = sort.Search(n, func(i int) bool { return versions[i].ModRevision > revision })
	}
	if n == 0 || versions[n-1].Version == 0 {
		return nil
	}
	return versions[n-1]
}

// At returns all keys as of a revision, compacted or not, sorted.
func (s *Store) At(revision int64) []*mvccpb.KeyValue {
	return s.interval(nil, []byte{0}, revision)
}

// interval returns the keys of [key, end) as of a revision, in the words of the
// wire: no end is the one key, an end of a zero byte is no end at all.
func (s *Store) interval(key, end []byte, revision int64) (kvs []*mvccpb.KeyValue) {
	if len(end) == 0 {
		if kv := s.Get(string(key), revision); kv != nil {
			kvs = append(kvs, kv)
		}
		return kvs
	}
	from, _ := slices.BinarySearch(s.keys, string(key))
	for _, k := range s.keys[from:] {
		if !Within(k, key, end) {
			break
		}
		if kv := s.Get(k, revision); kv != nil {
			kvs = append(kvs, kv)
		}
	}
	return kvs
}

// Within tells whether a key lies in [key, end), in the words of the wire.
func Within(k string, key, end []byte) bool {
	switch {
	case len(end) == 0:
		return k == string(key)
	case len(end) == 1 && end[0] == 0:
		return k >= string(key)
	}
	return k >= string(key) && k < string(end)
}

// Execute answers a request. Headers carry only the revision. A request that
// fails changes nothing.
func (s *Store) Execute(req proto.Message) (proto.Message, error) {
	if err := Validate(req); err != nil {
		return nil, err
	}
	switch r := req.(type) {
	case *pb.RangeRequest:
		return answer(s.begin().get(r))
	case *pb.PutRequest:
		t := s.begin()
		if err := t.checkPut(r); err != nil {
			return nil, err
		}
		defer t.end()
		return t.put(r), nil
	case *pb.DeleteRangeRequest:
		t := s.begin()
		defer t.end()
		return t.delete(r), nil
	case *pb.TxnRequest:
		return answer(s.txn(r))
	case *pb.CompactionRequest:
		return answer(s.compact(r.GetRevision()))
	case *pb.LeaseGrantRequest:
		return answer(s.grant(r))
	case *pb.LeaseRevokeRequest:
		return answer(s.revoke(r.GetID()))
	}
	return nil, fmt.Errorf("the model knows no %T", req)
}

// answer keeps a nil of a concrete type from becoming a message.
func answer[M proto.Message](m M, err error) (proto.Message, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (s *Store) compact(revision int64) (*pb.CompactionResponse, error) {
	switch {
	case revision <= s.compacted:
		return nil, ErrCompacted
	case revision > s.revision:
		return nil, ErrFutureRevision
	}
	s.compacted = revision
	return &pb.CompactionResponse{Header: header(s.revision)}, nil
}

func header(revision int64) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: revision} }

// grant draws an ID when none is given: the first that is free.
func (s *Store) grant(r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	if r.TTL > TTLMax {
		return nil, ErrLeaseTTL
	}
	id := r.ID
	for next := int64(1); id == 0; next++ {
		if _, taken := s.leases[next]; !taken {
			id = next
		}
	}
	if _, taken := s.leases[id]; taken {
		return nil, ErrLeaseExists
	}
	s.leases[id] = max(r.TTL, s.TTLMin)
	return &pb.LeaseGrantResponse{Header: header(s.revision), ID: id, TTL: s.leases[id]}, nil
}

func (s *Store) revoke(id int64) (*pb.LeaseRevokeResponse, error) {
	if _, ok := s.leases[id]; !ok {
		return nil, ErrLeaseNotFound
	}
	s.Expire(id)
	return &pb.LeaseRevokeResponse{Header: header(s.revision)}, nil
}

// Expire is what the cluster does by itself: it takes leases away, with all
// keys that hang on them, at one revision. Those that do not exist are passed
// over.
func (s *Store) Expire(ids ...int64) {
	t := s.begin()
	for _, id := range ids {
		if _, ok := s.leases[id]; !ok {
			continue
		}
		for _, key := range s.LeaseKeys(id) {
			t.set(&mvccpb.KeyValue{Key: []byte(key), ModRevision: s.revision + 1})
		}
		delete(s.leases, id)
	}
	t.end()
}

// Force takes in the events of the next revision as they are, whatever request
// they came of.
func (s *Store) Force(events []*mvccpb.Event) {
	t := s.begin()
	for _, e := range events {
		kv := e.Kv
		if e.Type == mvccpb.Event_DELETE {
			kv = &mvccpb.KeyValue{Key: kv.Key, ModRevision: s.revision + 1}
		}
		t.set(kv)
	}
	t.end()
}

// Undo takes the newest revision back: its events, not what it did to leases.
func (s *Store) Undo() {
	for n := len(s.log); n > 0 && s.log[n-1].Kv.ModRevision == s.revision; n-- {
		kv := s.log[n-1].Kv
		key := string(kv.Key)
		versions := s.versions[key]
		versions = versions[:len(versions)-1]
		s.versions[key] = versions
		delete(s.attached[kv.Lease], key)
		if m := len(versions); m > 0 && versions[m-1].Lease != 0 {
			s.attached[versions[m-1].Lease][key] = struct{}{}
		}
		s.log = s.log[:n-1]
	}
	s.revision--
}
