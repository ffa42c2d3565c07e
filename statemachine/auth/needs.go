package auth

import (
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Asker is a request's way to a decision: it takes requests apart into verbs
// and ranges of keys, and asks the state about each. This is the only place
// that knows what a request touches.
type Asker struct {
	State *State
	By    Actor

	// LeaseKeys are the keys on a lease. Who attaches a key to a lease, revokes it
	// or keeps it alive decides about all of them.
	LeaseKeys func(id int64) ([][]byte, error)
}

func (a *Asker) need(verb Verb, key, end []byte) error { return a.State.Check(a.By, verb, key, end) }

// Range asks whether the keys of a read may be read.
func (a *Asker) Range(r *pb.RangeRequest) error { return a.need(Read, r.GetKey(), r.GetRangeEnd()) }

// Watch asks whether a watch may be made, of the range as the client gave it:
// "from key on" is wider than any grant of one key.
func (a *Asker) Watch(key, end []byte) error { return a.need(Read, key, end) }

// Put asks for a write of the key, for the lease, and for a read of what was there.
func (a *Asker) Put(p *pb.PutRequest) error {
	if err := a.need(Write, p.GetKey(), nil); err != nil {
		return err
	}
	if p.GetLease() != 0 {
		if err := a.Lease(p.Lease, Write); err != nil {
			return err
		}
	}
	if p.GetPrevKv() {
		return a.need(Read, p.Key, nil)
	}
	return nil
}

// Lease asks for all keys on a lease.
func (a *Asker) Lease(id int64, verb Verb) error {
	if a.State.CheckRoot(a.By) == nil {
		return nil // Without looking the keys up: there may be many.
	}
	keys, err := a.LeaseKeys(id)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := a.need(verb, key, nil); err != nil {
			return err
		}
	}
	return nil
}

// DeleteRange asks for a write of the range, and for a read of what was there.
func (a *Asker) DeleteRange(d *pb.DeleteRangeRequest) error {
	if err := a.need(Write, d.GetKey(), d.GetRangeEnd()); err != nil {
		return err
	}
	if d.GetPrevKv() {
		return a.need(Read, d.Key, d.RangeEnd)
	}
	return nil
}

// Txn asks for the conditions and for both branches, at any depth: which of
// them is taken tells something too.
func (a *Asker) Txn(t *pb.TxnRequest) error {
	for _, c := range t.GetCompare() {
		if err := a.need(Read, c.GetKey(), c.GetRangeEnd()); err != nil {
			return err
		}
	}
	for _, branch := range [][]*pb.RequestOp{t.GetSuccess(), t.GetFailure()} {
		for _, op := range branch {
			if err := a.op(op); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *Asker) op(op *pb.RequestOp) error {
	switch v := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return a.Range(v.RequestRange)
	case *pb.RequestOp_RequestPut:
		return a.Put(v.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return a.DeleteRange(v.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return a.Txn(v.RequestTxn)
	}
	return ErrDenied // Nobody knows what it would do.
}
