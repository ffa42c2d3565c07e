package client

import (
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Range is a set of adjacent keys.
type Range struct {
	Key string
	End string // Exclusive. Empty: Key alone. A single zero byte: no end.
}

const noEnd = "\x00"

// One is a single key.
func One(key string) Range { return Range{Key: key} }

// From is every key from key on. From("") is every key there is.
func From(key string) Range {
	if key == "" {
		key = "\x00" // No key is empty, and this is the least of them.
	}
	return Range{Key: key, End: noEnd}
}

// Between is every key from key on, up to but not including end.
func Between(key, end string) Range { return Range{Key: key, End: end} }

// Prefix is every key that begins with prefix. Prefix("") is every key there is.
func Prefix(prefix string) Range {
	end := []byte(prefix)
	for len(end) > 0 && end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	if len(end) == 0 {
		return From(prefix)
	}
	end[len(end)-1]++
	return Range{Key: prefix, End: string(end)}
}

// Op is something that a transaction can do: a Get, Put, Delete or Txn.
type Op interface {
	request() *pb.RequestOp
	effect() effect
}

// Get reads keys.
type Get struct {
	Range
	Limit        int64 // Zero: all.
	Revision     int64 // Zero: now.
	SortBy       pb.RangeRequest_SortTarget
	Order        pb.RangeRequest_SortOrder
	Serializable bool // Whatever the member asked knows will do, though it may be old.
	KeysOnly     bool
	CountOnly    bool

	// Bounds of the keys wanted, both inclusive. Zero: none.
	MinModRevision, MaxModRevision       int64
	MinCreateRevision, MaxCreateRevision int64
}

func (g Get) message() *pb.RangeRequest {
	return &pb.RangeRequest{
		Key: []byte(g.Key), RangeEnd: []byte(g.End), Limit: g.Limit, Revision: g.Revision,
		SortOrder: g.Order, SortTarget: g.SortBy,
		Serializable: g.Serializable, KeysOnly: g.KeysOnly, CountOnly: g.CountOnly,
		MinModRevision: g.MinModRevision, MaxModRevision: g.MaxModRevision,
		MinCreateRevision: g.MinCreateRevision, MaxCreateRevision: g.MaxCreateRevision,
	}
}

func (g Get) request() *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: g.message()}}
}

func (Get) effect() effect { return reads }

// Put writes a key.
type Put struct {
	Key         string
	Value       []byte
	Lease       int64 // The key disappears with it. Zero: with none.
	PrevKV      bool  // Answer with what was there.
	IgnoreValue bool  // Keep the value; the key must exist.
	IgnoreLease bool  // Keep the lease; the key must exist.
}

func (p Put) message() *pb.PutRequest {
	return &pb.PutRequest{
		Key: []byte(p.Key), Value: p.Value, Lease: p.Lease,
		PrevKv: p.PrevKV, IgnoreValue: p.IgnoreValue, IgnoreLease: p.IgnoreLease,
	}
}

func (p Put) request() *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p.message()}}
}

func (Put) effect() effect { return writes }

// Delete removes keys.
type Delete struct {
	Range
	PrevKV bool // Answer with what was there.
}

func (d Delete) message() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: []byte(d.Key), RangeEnd: []byte(d.End), PrevKv: d.PrevKV}
}

func (d Delete) request() *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: d.message()}}
}

func (Delete) effect() effect { return writes }

// Txn does Then if every comparison of If holds, else Else: all of it at one
// revision, or nothing.
type Txn struct {
	If   []Compare
	Then []Op
	Else []Op
}

func (t Txn) message() *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for _, c := range t.If {
		r.Compare = append(r.Compare, c.message())
	}
	for _, op := range t.Then {
		r.Success = append(r.Success, op.request())
	}
	for _, op := range t.Else {
		r.Failure = append(r.Failure, op.request())
	}
	return r
}

func (t Txn) request() *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t.message()}}
}

func (t Txn) effect() effect {
	for _, ops := range [][]Op{t.Then, t.Else} {
		for _, op := range ops {
			if op.effect() == writes {
				return writes
			}
		}
	}
	return reads
}

// Compare is a condition on a key, or on each key of a range. A key that does
// not exist has revision, version and lease zero, and no value that any
// comparison could hold for.
type Compare struct {
	Range  Range
	Result pb.Compare_CompareResult
	Target pb.Compare_CompareTarget
	Number int64  // For all targets but the value.
	Value  []byte // For the value.
}

// Results of a comparison.
const (
	Equal    = pb.Compare_EQUAL
	NotEqual = pb.Compare_NOT_EQUAL
	Less     = pb.Compare_LESS
	Greater  = pb.Compare_GREATER
)

// IfValue compares the value.
func IfValue(key string, result pb.Compare_CompareResult, value []byte) Compare {
	return Compare{Range: One(key), Result: result, Target: pb.Compare_VALUE, Value: value}
}

// IfVersion compares how often the key was put since its creation. Version 0
// is that of a key that does not exist.
func IfVersion(key string, result pb.Compare_CompareResult, version int64) Compare {
	return Compare{Range: One(key), Result: result, Target: pb.Compare_VERSION, Number: version}
}

// IfCreated compares the revision that created the key.
func IfCreated(key string, result pb.Compare_CompareResult, revision int64) Compare {
	return Compare{Range: One(key), Result: result, Target: pb.Compare_CREATE, Number: revision}
}

// IfModified compares the revision that last changed the key.
func IfModified(key string, result pb.Compare_CompareResult, revision int64) Compare {
	return Compare{Range: One(key), Result: result, Target: pb.Compare_MOD, Number: revision}
}

// IfLease compares the lease.
func IfLease(key string, result pb.Compare_CompareResult, lease int64) Compare {
	return Compare{Range: One(key), Result: result, Target: pb.Compare_LEASE, Number: lease}
}

// Over returns the same condition on each key of a range.
func (c Compare) Over(r Range) Compare {
	c.Range = r
	return c
}

func (c Compare) message() *pb.Compare {
	m := &pb.Compare{Key: []byte(c.Range.Key), RangeEnd: []byte(c.Range.End), Result: c.Result, Target: c.Target}
	switch c.Target {
	case pb.Compare_VERSION:
		m.TargetUnion = &pb.Compare_Version{Version: c.Number}
	case pb.Compare_CREATE:
		m.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: c.Number}
	case pb.Compare_MOD:
		m.TargetUnion = &pb.Compare_ModRevision{ModRevision: c.Number}
	case pb.Compare_VALUE:
		m.TargetUnion = &pb.Compare_Value{Value: c.Value}
	case pb.Compare_LEASE:
		m.TargetUnion = &pb.Compare_Lease{Lease: c.Number}
	}
	return m
}
