package differential

import (
	"math"
	"math/rand/v2"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// world is what a random sequence knows of both sides, learned from answers
// that were equal, so that requests are often sensible.
type world struct {
	*rand.Rand
	revision  int64
	compacted int64
	leases    []int64  // That exist, most likely.
	members   []uint64 // Beside the first.
	nextLease int64
	nextURL   int
}

func newWorld(seed uint64) *world {
	return &world{Rand: rand.New(rand.NewPCG(seed, 0)), revision: 1, compacted: -1}
}

// one is true once in n times.
func (w *world) one(n int) bool { return w.IntN(n) == 0 }

func pick[T any](w *world, from ...T) T { return from[w.IntN(len(from))] }

var keys = func() [][]byte {
	all := [][]byte{{0}, {0xff}, {0xff, 0xff}, []byte("k\x00z"), []byte(strings.Repeat("long", 400))}
	for _, s := range []string{"a", "a\x00", "b", "c", "d", "e", "dir/", "dir/0", "dir/1", "dir/2", "dir/3", "dir/4", "dir0", "x", "xy", "xyz"} {
		all = append(all, []byte(s))
	}
	return all
}()

// key is one of few, so that requests meet each other.
func (w *world) key() []byte {
	if w.one(100) {
		return nil
	}
	return pick(w, keys...)
}

// end of a range that begins at a key.
func (w *world) end(key []byte) []byte {
	switch w.IntN(10) {
	case 0:
		return []byte{0}
	case 1, 2:
		return []byte("dir0") // With dir/, a prefix.
	case 3:
		return pick(w, keys...) // Often before the key.
	case 4:
		return key
	case 5:
		return []byte{0xff, 0xff, 0xff}
	}
	return nil
}

func (w *world) value() []byte {
	switch w.IntN(40) {
	case 0:
		return []byte(strings.Repeat("v", 1000+w.IntN(5000)))
	case 1:
		return nil
	}
	return pick(w, []byte("0"), []byte("1"), []byte("2"), []byte("x"), []byte{0, 0xff}, []byte("longer than the others"))
}

// at is a revision to read at, most often one that can be read.
func (w *world) at() int64 {
	switch w.IntN(20) {
	case 0:
		return w.compacted - 1
	case 1:
		return w.compacted
	case 2:
		return w.revision + 1
	case 3:
		return pick(w, int64(-1), math.MinInt64, 1<<40, math.MaxInt64)
	case 4:
		return 1
	case 5, 6, 7, 8:
		return w.past()
	}
	return 0
}

// past is a revision of the last few that are not compacted.
func (w *world) past() int64 {
	from := max(w.compacted, w.revision-60, 1)
	return from + w.Int64N(w.revision-from+1)
}

// bound of a filter, most often none.
func (w *world) bound() int64 {
	if w.one(8) {
		return pick(w, w.past(), w.past(), w.revision, w.revision+1, -1, 1, math.MaxInt64)
	}
	return 0
}

func (w *world) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{Key: w.key(), Revision: w.at(), Serializable: w.one(4), KeysOnly: w.one(6), CountOnly: w.one(8)}
	r.RangeEnd = w.end(r.Key)
	if w.one(20) {
		r.Key, r.RangeEnd = []byte{0}, []byte{0}
	}
	if w.one(3) {
		r.Limit = pick(w, int64(1), 1, 2, 3, 7, -1, math.MaxInt64)
	}
	if w.one(3) {
		r.SortOrder = pb.RangeRequest_SortOrder(w.IntN(3))
		r.SortTarget = pb.RangeRequest_SortTarget(w.IntN(5))
	}
	if w.one(60) {
		r.SortOrder = pick[pb.RangeRequest_SortOrder](w, 3, -1, math.MaxInt32)
	}
	if w.one(60) {
		r.SortTarget = pick[pb.RangeRequest_SortTarget](w, 5, -1, math.MinInt32)
	}
	r.MinModRevision, r.MaxModRevision, r.MinCreateRevision, r.MaxCreateRevision = w.bound(), w.bound(), w.bound(), w.bound()
	return r
}

// lease is one to put a key on, most often none.
func (w *world) lease() int64 {
	switch w.IntN(12) {
	case 0, 1, 2:
		if len(w.leases) > 0 {
			return pick(w, w.leases...)
		}
	case 3:
		if w.one(5) {
			return pick(w, int64(123456), -77, math.MinInt64, math.MaxInt64)
		}
	}
	return 0
}

func (w *world) put() *pb.PutRequest {
	r := &pb.PutRequest{Key: w.key(), Value: w.value(), Lease: w.lease(), PrevKv: w.one(4)}
	if w.one(10) {
		r.IgnoreValue = true
		if !w.one(5) {
			r.Value = nil
		}
	}
	if w.one(10) {
		r.IgnoreLease = true
		if !w.one(5) {
			r.Lease = 0
		}
	}
	return r
}

func (w *world) delete() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{Key: w.key(), PrevKv: w.one(3)}
	if w.one(3) {
		r.RangeEnd = w.end(r.Key)
	}
	return r
}

func (w *world) compact() *pb.CompactionRequest {
	r := &pb.CompactionRequest{Physical: w.one(2)}
	switch w.IntN(8) {
	case 0:
		r.Revision = pick(w, w.compacted, w.compacted-1, 0, -1, math.MinInt64)
	case 1:
		r.Revision = pick(w, w.revision+1, math.MaxInt64)
	case 2:
		r.Revision = w.revision
	default:
		r.Revision = w.past()
	}
	return r
}

func (w *world) compare() *pb.Compare {
	c := &pb.Compare{Key: w.key(), Result: pb.Compare_CompareResult(w.IntN(4)), Target: pb.Compare_CompareTarget(w.IntN(5))}
	if w.one(4) {
		c.RangeEnd = w.end(c.Key)
	}
	target := c.Target
	if w.one(20) {
		target = pb.Compare_CompareTarget(w.IntN(6)) // The fifth sets none.
	}
	switch target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: w.Int64N(4)}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: pick(w, 0, w.past(), w.revision)}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: pick(w, 0, w.past(), w.revision)}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: w.value()}
	case pb.Compare_LEASE:
		id := w.lease()
		if id >= leaseNames && id < leaseNames+1<<32 && c.Result != pb.Compare_NOT_EQUAL {
			c.Result = pb.Compare_EQUAL // Each side has drawn its own: which is greater is chance.
		}
		c.TargetUnion = &pb.Compare_Lease{Lease: id}
	}
	if w.one(100) {
		c.Result = pick[pb.Compare_CompareResult](w, 4, -1)
	}
	if w.one(100) {
		c.Target = pick[pb.Compare_CompareTarget](w, 5, -1)
	}
	return c
}

// txn is a transaction with others nested in it. Its keys are most often all
// different, so that it is most often allowed.
func (w *world) txn() *pb.TxnRequest {
	unused := w.Perm(len(keys))
	t := w.txnOf(3, &unused)
	if w.one(60) { // Around the limit.
		for n := 126 + w.IntN(5); len(t.Success) < n; {
			t.Success = append(t.Success, rangeOp(&pb.RangeRequest{Key: []byte("a")}))
		}
	}
	if w.one(60) {
		for n := 126 + w.IntN(5); len(t.Compare) < n; {
			t.Compare = append(t.Compare, &pb.Compare{Key: []byte("none"), Target: pb.Compare_VERSION})
		}
	}
	return t
}

func (w *world) txnOf(depth int, unused *[]int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range w.IntN(3) {
		t.Compare = append(t.Compare, w.compare())
	}
	for _, branch := range []*[]*pb.RequestOp{&t.Success, &t.Failure} {
		for range w.IntN(4) {
			*branch = append(*branch, w.op(depth, unused))
		}
	}
	return t
}

func rangeOp(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func putOp(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func deleteOp(r *pb.DeleteRangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
}

func txnOp(t *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
}

func (w *world) op(depth int, unused *[]int) *pb.RequestOp {
	fresh := func() []byte {
		if len(*unused) == 0 || w.one(30) {
			return w.key()
		}
		key := keys[(*unused)[0]]
		*unused = (*unused)[1:]
		return key
	}
	switch n := w.IntN(60); {
	case n == 0:
		return &pb.RequestOp{}
	case n < 20:
		r := w.rangeRequest()
		if r.Revision != 0 && !w.one(8) {
			r.Revision = 0
		}
		return rangeOp(r)
	case n < 40:
		p := w.put()
		p.Key = fresh()
		return putOp(p)
	case n < 50 || depth == 0:
		d := w.delete()
		d.Key = fresh()
		if !w.one(4) {
			d.RangeEnd = nil
		}
		if len(d.RangeEnd) == 1 && d.RangeEnd[0] == 0 {
			d.RangeEnd = []byte{0xff, 0xff, 0xff} // See the scene of deletes from a key on.
		}
		return deleteOp(d)
	}
	return txnOp(w.txnOf(depth-1, unused))
}

// note keeps what an answer tells.
func (w *world) note(h *pb.ResponseHeader) {
	if h.GetRevision() > w.revision {
		w.revision = h.GetRevision()
	}
}
