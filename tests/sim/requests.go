package sim

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// request draws what the client asks next. Optional fields are there half of
// the time: what goes wrong goes wrong in combinations.
func (c *client) request() proto.Message {
	switch n := c.chance.Below(100); {
	case n < 30:
		return c.put()
	case n < 50:
		return &pb.RangeRequest{Key: c.key()}
	case n < 65:
		r := c.rangeRequest()
		r.Serializable = true
		return r
	case n < 75:
		return c.rangeRequest()
	case n < 87:
		return c.txn(2)
	case n < 92:
		return c.deletion()
	case n < 95:
		c.named++
		return &pb.LeaseGrantRequest{ID: int64(c.id+1)*100_000 + int64(c.named), TTL: int64(1 + c.chance.Below(6))}
	case n < 97:
		if l := c.lease(); l != 0 {
			return &pb.LeaseRevokeRequest{ID: l}
		}
		return c.put()
	}
	return c.compaction()
}

func (c *client) half() bool { return c.chance.Below(2) == 0 }

// key is skewed: some are asked for much more often.
func (c *client) key() []byte {
	n := c.chance.Below(c.w.cfg.Keys)
	for range c.w.cfg.Skew {
		n = min(n, c.chance.Below(c.w.cfg.Keys))
	}
	return keyName(n)
}

func keyName(n int) []byte { return []byte(fmt.Sprintf("key/%03d", n)) }

// interval is one key, some, or all.
func (c *client) interval() (key, end []byte) {
	switch c.chance.Below(4) {
	case 0:
		return c.key(), nil
	case 1:
		return []byte{0}, []byte{0}
	case 2:
		return c.key(), []byte{0}
	}
	a, b := c.key(), c.key()
	if string(a) > string(b) {
		a, b = b, a
	}
	if string(a) == string(b) {
		return a, nil
	}
	return a, b
}

// value names its writer, so that no two are equal.
func (c *client) value() []byte {
	c.named++
	size := 1 << c.chance.Below(8)
	if c.chance.Chance(2) {
		size = 1 << (8 + c.chance.Below(6))
	}
	v := []byte(fmt.Sprintf("%d.%d ", c.id, c.named))
	for len(v) < size {
		v = append(v, byte('a'+c.named%26))
	}
	return v
}

func (c *client) put() *pb.PutRequest {
	r := &pb.PutRequest{Key: c.key(), Value: c.value(), PrevKv: c.half()}
	if c.chance.Chance(20) {
		r.Lease = c.lease()
	}
	switch c.chance.Below(20) {
	case 0:
		r.IgnoreValue, r.Value = true, nil
	case 1:
		r.IgnoreLease, r.Lease = true, 0
	}
	return r
}

// lease is one of those that the client has asked for, or none.
func (c *client) lease() int64 {
	if len(c.leases) == 0 {
		return 0
	}
	return c.leases[len(c.leases)-1-c.chance.Below(min(3, len(c.leases)))].id
}

func (c *client) deletion() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{Key: c.key(), PrevKv: c.half()}
	if c.chance.Chance(10) {
		r.Key, r.RangeEnd = c.interval()
	}
	return r
}

func (c *client) compaction() *pb.CompactionRequest {
	c.w.fired("A1")
	return &pb.CompactionRequest{Revision: c.w.shadow.model.Revision() - int64(c.chance.Below(60))}
}

func (c *client) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{}
	r.Key, r.RangeEnd = c.interval()
	head := c.w.shadow.model.Revision()
	if c.chance.Chance(30) {
		r.Revision = head - int64(c.chance.Below(100)) + 2
	}
	if c.chance.Chance(40) {
		return r
	}
	if c.half() {
		r.Limit = int64(c.chance.Below(8))
	}
	if c.half() {
		r.SortOrder = pb.RangeRequest_SortOrder(c.chance.Below(3))
		r.SortTarget = pb.RangeRequest_SortTarget(c.chance.Below(5))
	}
	r.KeysOnly = c.chance.Chance(20)
	r.CountOnly = c.chance.Chance(10)
	if c.chance.Chance(20) {
		r.MinModRevision = head - int64(c.chance.Below(200))
	}
	if c.chance.Chance(20) {
		r.MaxModRevision = head - int64(c.chance.Below(200))
	}
	if c.chance.Chance(20) {
		r.MinCreateRevision = head - int64(c.chance.Below(200))
	}
	if c.chance.Chance(20) {
		r.MaxCreateRevision = head - int64(c.chance.Below(200))
	}
	return r
}

func (c *client) txn(depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range c.chance.Below(3) {
		r.Compare = append(r.Compare, c.compare())
	}
	r.Success, r.Failure = c.branch(depth), c.branch(depth)
	return r
}

func (c *client) compare() *pb.Compare {
	x := &pb.Compare{Key: c.key(), Result: pb.Compare_CompareResult(c.chance.Below(4)), Target: pb.Compare_CompareTarget(c.chance.Below(5))}
	head := c.w.shadow.model.Revision()
	switch x.Target {
	case pb.Compare_VERSION:
		x.TargetUnion = &pb.Compare_Version{Version: int64(c.chance.Below(4))}
	case pb.Compare_CREATE:
		x.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: head - int64(c.chance.Below(50))}
	case pb.Compare_MOD:
		x.TargetUnion = &pb.Compare_ModRevision{ModRevision: head - int64(c.chance.Below(20))}
	case pb.Compare_VALUE:
		x.TargetUnion = &pb.Compare_Value{Value: []byte(fmt.Sprint(c.chance.Below(c.w.cfg.Clients)))}
	case pb.Compare_LEASE:
		x.TargetUnion = &pb.Compare_Lease{Lease: c.lease()}
	}
	if c.chance.Chance(20) {
		_, x.RangeEnd = c.interval()
	}
	return x
}

// branch writes no key twice, which would be refused before it is proposed.
func (c *client) branch(depth int) []*pb.RequestOp {
	var ops []*pb.RequestOp
	written := map[string]bool{}
	for range c.chance.Below(4) {
		switch n := c.chance.Below(10); {
		case n < 5:
			p := c.put()
			if written[string(p.Key)] {
				continue
			}
			written[string(p.Key)] = true
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}})
		case n < 7:
			d := &pb.DeleteRangeRequest{Key: c.key(), PrevKv: c.half()}
			if written[string(d.Key)] {
				continue
			}
			written[string(d.Key)] = true
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: d}})
		case n < 9 || depth == 0 || len(written) > 0:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: c.rangeRequest()}})
		default:
			t := c.txn(depth - 1)
			return append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}) // Last, so that it may write what it likes.
		}
	}
	return ops
}
