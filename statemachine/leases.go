package statemachine

import (
	"fmt"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine/lease"
)

func (r *request) leaseGrant(c *holdfastpb.LeaseGrant) (any, error) {
	id := ident.LeaseID(c.Id)
	if err := r.m.Leases.CheckGrant(id, c.Ttl); err != nil {
		return nil, err
	}
	key, value, err := lease.Row(id, c.Ttl)
	if err != nil {
		return nil, fmt.Errorf("encode lease row: %w", err)
	}
	r.setRow(mvcc.TableLease, key, value)
	return &pb.LeaseGrantResponse{Header: r.header(), ID: c.Id, TTL: c.Ttl}, nil
}

func (r *request) leaseRevoke(c *holdfastpb.LeaseRevoke) (any, error) {
	if err := r.revoke(ident.LeaseID(c.Id)); err != nil {
		return nil, err
	}
	return &pb.LeaseRevokeResponse{Header: r.header()}, nil
}

// leaseExpire is what the leader proposes when leases have run out. A leader
// that was paused and has lost its term must not take keys away.
func (r *request) leaseExpire(c *holdfastpb.LeaseExpire) (any, error) {
	if ident.Term(c.Term) != r.term {
		return nil, fmt.Errorf("%w: %d, the entry is of %d", ErrTerm, c.Term, r.term)
	}
	for _, id := range c.Ids {
		if r.m.Leases.Check(ident.LeaseID(id)) != nil {
			continue // Revoked since.
		}
		if err := r.revoke(ident.LeaseID(id)); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// revoke takes a lease away, with all keys that hang on it, in key order.
func (r *request) revoke(id ident.LeaseID) error {
	if err := r.m.Leases.Check(id); err != nil {
		return err
	}
	keys, err := r.tx.LeaseKeys(id)
	if err != nil {
		return fmt.Errorf("keys of lease %d: %w", id, err)
	}
	for _, key := range keys {
		if _, _, err := r.tx.DeleteRange(key, nil, false); err != nil {
			return fmt.Errorf("delete key of lease %d: %w", id, err)
		}
		r.m.Counters.Deletes.Add(1)
	}
	r.deleteRow(mvcc.TableLease, lease.Key(id))
	return nil
}
