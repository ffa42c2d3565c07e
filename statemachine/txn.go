package statemachine

import (
	"bytes"
	"cmp"
	"context"
	"fmt"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// reader is what conditions are evaluated on: a transaction under way, or a
// view of the store.
type reader interface {
	Range(a mvcc.RangeArgs) (*mvcc.RangeResult, error)
	Revision() ident.Revision
	Compacted() ident.Revision
}

type viewReader struct {
	ctx context.Context
	*mvcc.View
}

func (v viewReader) Range(a mvcc.RangeArgs) (*mvcc.RangeResult, error) { return v.View.Range(v.ctx, a) }

// Puts tells whether a transaction may put a key, in either branch and at any
// depth.
func Puts(t *pb.TxnRequest) bool {
	return anyOp(t, func(op *pb.RequestOp) bool { return op.GetRequestPut() != nil })
}

// ReadOnly tells whether a transaction needs no entry of the log. As in etcd a
// nested transaction counts as a write, whatever it holds.
func ReadOnly(t *pb.TxnRequest) bool {
	return onlyRanges(t, func(*pb.RangeRequest) bool { return true })
}

// Serializable tells whether a read-only transaction asks for no newer state
// than this member has.
func Serializable(t *pb.TxnRequest) bool { return onlyRanges(t, (*pb.RangeRequest).GetSerializable) }

func onlyRanges(t *pb.TxnRequest, ok func(*pb.RangeRequest) bool) bool {
	for _, branch := range [][]*pb.RequestOp{t.GetSuccess(), t.GetFailure()} {
		for _, op := range branch {
			if r := op.GetRequestRange(); r == nil || !ok(r) {
				return false
			}
		}
	}
	return true
}

func anyOp(t *pb.TxnRequest, is func(*pb.RequestOp) bool) bool {
	for _, branch := range [][]*pb.RequestOp{t.GetSuccess(), t.GetFailure()} {
		for _, op := range branch {
			if is(op) || op.GetRequestTxn() != nil && anyOp(op.GetRequestTxn(), is) {
				return true
			}
		}
	}
	return false
}

// ReadTxn answers a read-only transaction from a view.
func ReadTxn(ctx context.Context, v *mvcc.View, t *pb.TxnRequest) (*pb.TxnResponse, error) {
	rd := viewReader{ctx, v}
	p, err := choose(rd, t)
	if err != nil {
		return nil, err
	}
	if err := p.checkRanges(rd); err != nil {
		return nil, err
	}
	answer := &pb.TxnResponse{Header: &pb.ResponseHeader{Revision: int64(v.Revision())}, Succeeded: p.yes}
	for _, op := range p.ops {
		res, err := rd.Range(RangeArgs(op.GetRequestRange()))
		if err != nil {
			return nil, err
		}
		got, err := rangeAnswer(res)
		if err != nil {
			return nil, err
		}
		answer.Responses = append(answer.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: got}})
	}
	return answer, nil
}

// path is the branch that was chosen, and those of the transactions nested in
// it. All conditions are evaluated on the state before any of it is executed.
type path struct {
	yes    bool
	ops    []*pb.RequestOp
	nested map[int]*path // By number of the operation.
}

func choose(rd reader, t *pb.TxnRequest) (*path, error) {
	p := &path{yes: true}
	for _, c := range t.GetCompare() {
		ok, err := holds(rd, c)
		if err != nil {
			return nil, err
		}
		if !ok {
			p.yes = false
			break
		}
	}
	p.ops = t.GetSuccess()
	if !p.yes {
		p.ops = t.GetFailure()
	}
	for i, op := range p.ops {
		inner := op.GetRequestTxn()
		if inner == nil {
			continue
		}
		sub, err := choose(rd, inner)
		if err != nil {
			return nil, err
		}
		if p.nested == nil {
			p.nested = map[int]*path{}
		}
		p.nested[i] = sub
	}
	return p, nil
}

// txn executes a transaction. What can fail is found out before the first
// write, on the state before the transaction, and in the order of the requests.
func (r *request) txn(t *pb.TxnRequest) (any, error) {
	p, err := choose(r.tx, t)
	if err != nil {
		return nil, err
	}
	if err := r.check(p); err != nil {
		return nil, err
	}
	answer, err := r.run(p)
	if err != nil {
		return nil, err
	}
	answer.Header.Revision = int64(r.tx.Revision())
	r.m.Counters.Txns.Add(1)
	return answer, nil
}

func (p *path) checkRanges(rd reader) error {
	for _, op := range p.ops {
		if q := op.GetRequestRange(); q != nil {
			if err := checkRevision(rd, ident.Revision(q.Revision)); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkRevision(rd reader, rev ident.Revision) error {
	switch {
	case rev == 0:
		return nil
	case rev > rd.Revision():
		return fmt.Errorf("range at %d, head is %d: %w", rev, rd.Revision(), mvcc.ErrFutureRevision)
	case rev < rd.Compacted():
		return fmt.Errorf("range at %d, compacted at %d: %w", rev, rd.Compacted(), mvcc.ErrCompacted)
	}
	return nil
}

func (r *request) check(p *path) error {
	for i, op := range p.ops {
		var err error
		switch v := op.GetRequest().(type) {
		case *pb.RequestOp_RequestRange:
			err = checkRevision(r.tx, ident.Revision(v.RequestRange.GetRevision()))
		case *pb.RequestOp_RequestPut:
			err = r.checkPut(v.RequestPut)
		case *pb.RequestOp_RequestTxn:
			err = r.check(p.nested[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *request) checkPut(p *pb.PutRequest) error {
	if err := r.checkLease(p); err != nil {
		return err
	}
	if !p.IgnoreValue && !p.IgnoreLease {
		return nil
	}
	_, ok, err := r.tx.Get(p.Key)
	if err == nil && !ok {
		err = mvcc.ErrKeyNotFound
	}
	return err
}

func (r *request) run(p *path) (*pb.TxnResponse, error) {
	answer := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: p.yes, Responses: make([]*pb.ResponseOp, len(p.ops))}
	for i, op := range p.ops {
		res, err := r.runOp(op, p.nested[i])
		if err != nil {
			return nil, err
		}
		answer.Responses[i] = res
	}
	return answer, nil
}

func (r *request) runOp(op *pb.RequestOp, nested *path) (*pb.ResponseOp, error) {
	switch v := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		res, err := r.tx.Range(RangeArgs(v.RequestRange))
		if err != nil {
			return nil, err
		}
		answer, err := rangeAnswer(res)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: answer}}, err
	case *pb.RequestOp_RequestPut:
		answer, err := r.putOne(v.RequestPut)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: answer}}, err
	case *pb.RequestOp_RequestDeleteRange:
		answer, err := r.deleteOne(v.RequestDeleteRange)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: answer}}, err
	case *pb.RequestOp_RequestTxn:
		answer, err := r.run(nested)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: answer}}, err
	}
	return &pb.ResponseOp{}, nil
}

// holds evaluates one condition: all keys of its range must meet it. A key
// that does not exist compares as zero, but has no value that could equal or
// differ from anything.
func holds(rd reader, c *pb.Compare) (bool, error) {
	a, found := mvcc.RangeArgs{Key: c.Key, End: c.RangeEnd, PartBytes: comparePartBytes}, false
	for {
		res, err := rd.Range(a)
		if err != nil {
			return false, err
		}
		kv := &mvccpb.KeyValue{}
		for _, row := range res.KVs {
			kv.Reset()
			if err := kv.UnmarshalVT(row); err != nil {
				return false, err
			}
			if !meets(c, kv) {
				return false, nil
			}
			found = true
		}
		if res.Next == nil {
			return found || c.Target != pb.Compare_VALUE && meets(c, &mvccpb.KeyValue{}), nil
		}
		a.Key = res.Next
	}
}

// comparePartBytes of a range are held at a time: a condition may be about all keys.
const comparePartBytes = 1 << 20

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
	case pb.Compare_NOT_EQUAL:
		return order != 0
	case pb.Compare_GREATER:
		return order > 0
	case pb.Compare_LESS:
		return order < 0
	}
	return true // As etcd: a result it does not know is met.
}
