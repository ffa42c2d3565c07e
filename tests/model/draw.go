package model

import (
	"fmt"
	"math"
	"math/rand/v2"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Draw draws requests that meet each other: few keys, few leases, revisions
// that were seen. Some are invalid.
type Draw struct {
	*rand.Rand
	Keys    [][]byte
	Leases  int64 // IDs from 1 to this.
	Invalid int   // One in so many has something that no server accepts; 0: none.
	values  int
}

// Head is what is known of a store when a request is drawn. A Store is one.
type Head interface {
	Revision() int64
	Compacted() int64
}

// NewDraw returns one with the keys that tests of order and intervals want.
func NewDraw(r *rand.Rand) *Draw {
	d := &Draw{Rand: r, Leases: 5, Invalid: 40}
	for _, k := range []string{"\x00", "a", "a\x00", "b", "dir/", "dir/1", "dir/2", "dir/3", "dir0", "x", "xy", "\xff", "\xff\xff"} {
		d.Keys = append(d.Keys, []byte(k))
	}
	return d
}

// Bytes is chance made of bytes, so that a fuzzer decides. Behind the last it
// goes on by itself.
type Bytes struct {
	Data  []byte
	count uint64
}

// Uint64 takes two bytes.
func (b *Bytes) Uint64() uint64 {
	b.count++
	x := b.count
	if len(b.Data) > 1 {
		x = uint64(b.Data[0]) | uint64(b.Data[1])<<8
		b.Data = b.Data[2:]
	}
	x = (x + 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9 // All bits matter to those who take the lower or the upper ones.
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (d *Draw) one(n int) bool { return n > 0 && d.IntN(n) == 0 }

func choice[T any](d *Draw, from ...T) T { return from[d.IntN(len(from))] }

// Request draws one that makes sense for what is known.
func (d *Draw) Request(s Head) proto.Message {
	switch n := d.IntN(100); {
	case n < 30:
		return d.put(s)
	case n < 42:
		return d.delete()
	case n < 70:
		return d.get(s)
	case n < 90:
		unused := d.Perm(len(d.Keys))
		return d.txn(s, 3, &unused)
	case n < 92:
		return &pb.CompactionRequest{Revision: d.compacted(s)}
	case n < 97:
		return &pb.LeaseGrantRequest{ID: 1 + d.Int64N(d.Leases), TTL: choice(d, int64(-1), 0, 1, 10, 60, TTLMax, TTLMax+1)}
	}
	return &pb.LeaseRevokeRequest{ID: 1 + d.Int64N(d.Leases)}
}

func (d *Draw) key() []byte {
	if d.one(4 * d.Invalid) {
		return nil
	}
	return choice(d, d.Keys...)
}

// end of a range that begins at a key, often before it.
func (d *Draw) end() []byte {
	switch d.IntN(8) {
	case 0:
		return []byte{0}
	case 1:
		return []byte("dir0")
	case 2:
		return []byte("\xff\xff\xff")
	case 3:
		return choice(d, d.Keys...)
	}
	return nil
}

// value is most often unlike all others, so that a wrong one is noticed.
func (d *Draw) value() []byte {
	if d.one(4) {
		return choice(d, nil, []byte("0"), []byte("1"), []byte{0, 0xff})
	}
	d.values++
	return fmt.Appendf(nil, "v%d", d.values)
}

// revision to read at, most often none.
func (d *Draw) revision(s Head) int64 {
	switch d.IntN(12) {
	case 0:
		return choice(d, s.Compacted()-1, s.Compacted(), s.Compacted()+1, s.Revision(), s.Revision()+1, -1, math.MinInt64, math.MaxInt64)
	case 1, 2, 3:
		return d.past(s)
	}
	return 0
}

func (d *Draw) past(s Head) int64 {
	from := max(s.Compacted(), s.Revision()-50, 1)
	return from + d.Int64N(max(s.Revision()-from, 0)+1)
}

func (d *Draw) compacted(s Head) int64 {
	if d.one(4) {
		return choice(d, s.Compacted(), s.Compacted()-1, 0, s.Revision(), s.Revision()+1, math.MinInt64, math.MaxInt64)
	}
	return d.past(s)
}

func (d *Draw) bound(s Head) int64 {
	if d.one(8) {
		return choice(d, d.past(s), d.past(s), s.Revision(), s.Revision()+1, -1, 1, math.MaxInt64)
	}
	return 0
}

func (d *Draw) get(s Head) *pb.RangeRequest {
	r := &pb.RangeRequest{
		Key: d.key(), RangeEnd: d.end(), Revision: d.revision(s),
		KeysOnly: d.one(6), CountOnly: d.one(8), Serializable: d.one(4),
		MinModRevision: d.bound(s), MaxModRevision: d.bound(s), MinCreateRevision: d.bound(s), MaxCreateRevision: d.bound(s),
	}
	if d.one(3) {
		r.Limit = choice(d, int64(1), 1, 2, 3, 5, -1, math.MaxInt64)
	}
	if d.one(3) {
		r.SortOrder = pb.RangeRequest_SortOrder(d.IntN(3))
		r.SortTarget = pb.RangeRequest_SortTarget(d.IntN(5))
	}
	if d.one(d.Invalid) {
		r.SortOrder = choice[pb.RangeRequest_SortOrder](d, 3, -1, 0)
		r.SortTarget = choice[pb.RangeRequest_SortTarget](d, 5, -1, 0)
	}
	return r
}

func (d *Draw) lease() int64 {
	if d.one(4) {
		return 1 + d.Int64N(d.Leases)
	}
	return 0
}

func (d *Draw) put(Head) *pb.PutRequest {
	r := &pb.PutRequest{Key: d.key(), Value: d.value(), Lease: d.lease(), PrevKv: d.one(3)}
	if d.one(10) {
		r.IgnoreValue = true
		if !d.one(d.Invalid / 4) {
			r.Value = nil
		}
	}
	if d.one(10) {
		r.IgnoreLease = true
		if !d.one(d.Invalid / 4) {
			r.Lease = 0
		}
	}
	return r
}

func (d *Draw) delete() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{Key: d.key(), PrevKv: d.one(3)}
	if d.one(3) {
		r.RangeEnd = d.end()
	}
	return r
}

func (d *Draw) compare(s Head) *pb.Compare {
	c := &pb.Compare{Key: d.key(), Result: pb.Compare_CompareResult(d.IntN(4)), Target: pb.Compare_CompareTarget(d.IntN(5))}
	if d.one(4) {
		c.RangeEnd = d.end()
	}
	given := c.Target
	if d.one(20) {
		given = pb.Compare_CompareTarget(d.IntN(6)) // Another one, or none.
	}
	switch given {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: d.Int64N(4)}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: choice(d, 0, d.past(s), s.Revision())}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: choice(d, 0, d.past(s), s.Revision())}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: d.value()}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: d.lease()}
	}
	if d.one(d.Invalid) {
		c.Result = choice[pb.Compare_CompareResult](d, 4, -1)
	}
	if d.one(d.Invalid) {
		c.Target = choice[pb.Compare_CompareTarget](d, 5, -1)
	}
	return c
}

// txn draws a transaction whose keys are most often all different, so that it
// is most often allowed.
func (d *Draw) txn(s Head, depth int, unused *[]int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range d.IntN(3) {
		t.Compare = append(t.Compare, d.compare(s))
	}
	for _, ops := range []*[]*pb.RequestOp{&t.Success, &t.Failure} {
		for range d.IntN(4) {
			*ops = append(*ops, d.op(s, depth, unused))
		}
	}
	if d.one(4 * d.Invalid) { // Around the limit, which nested ones share.
		t.Success = append(t.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: []byte("a")}},
		}}})
		for n := OpsMax - 2 + d.IntN(4); len(t.Failure) < n; {
			t.Failure = append(t.Failure, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a")}}})
		}
	}
	return t
}

func (d *Draw) op(s Head, depth int, unused *[]int) *pb.RequestOp {
	fresh := func() []byte {
		if len(*unused) == 0 || d.one(d.Invalid) {
			return d.key()
		}
		key := d.Keys[(*unused)[0]]
		*unused = (*unused)[1:]
		return key
	}
	switch n := d.IntN(60); {
	case n == 0 && d.one(d.Invalid/4):
		return &pb.RequestOp{}
	case n < 20:
		r := d.get(s)
		if !d.one(8) {
			r.Revision = 0
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
	case n < 40:
		p := d.put(s)
		p.Key = fresh()
		if !d.one(6) {
			p.Lease = 0
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}}
	case n < 50 || depth == 0:
		r := d.delete()
		r.Key = fresh()
		if !d.one(4) {
			r.RangeEnd = nil
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: d.txn(s, depth-1, unused)}}
}
