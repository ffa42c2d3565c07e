package recipe

import (
	"context"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// Election has one leader at a time, which tells its value to all. It belongs
// to one goroutine.
type Election struct {
	claim claim
}

// NewElection returns an election of that name, in which the session does not
// stand yet.
func NewElection(s *Session, name string) *Election { return &Election{newClaim(s, name)} }

// ResumeElection returns the election that a session led before, by what Key
// and Revision said then.
func ResumeElection(s *Session, name, key string, revision int64) *Election {
	return &Election{claim{session: s, prefix: name + "/", key: key, created: revision}}
}

// Campaign waits until the session leads.
func (e *Election) Campaign(ctx context.Context, value string) error {
	kv, err := e.claim.make(ctx, value)
	if err != nil {
		return err
	}
	if string(kv.Value) != value { // The session stood before, with another value.
		if err := e.Proclaim(ctx, value); err != nil {
			e.claim.giveUp(ctx)
			return err
		}
	}
	return e.claim.hold(ctx)
}

// Proclaim changes the leader's value.
func (e *Election) Proclaim(ctx context.Context, value string) error {
	if e.claim.created == 0 {
		return ErrNotLeader
	}
	r, err := untilKnown(ctx, e.claim.session.client, client.Txn{
		If:   []client.Compare{e.claim.held()},
		Then: []client.Op{client.Put{Key: e.claim.key, Value: []byte(value), Lease: e.claim.session.lease}},
	})
	if err != nil {
		return err
	}
	if !r.Succeeded {
		e.claim.created = 0
		return ErrNotLeader
	}
	return nil
}

// Resign ends the leadership, or the wait for it.
func (e *Election) Resign(ctx context.Context) error {
	if e.claim.created == 0 {
		return nil
	}
	_, err := e.claim.drop(ctx)
	if err == nil {
		e.claim.created = 0
	}
	return err
}

// Key exists while the session leads or waits.
func (e *Election) Key() string { return e.claim.key }

// Revision tells two leaderships over one key apart.
func (e *Election) Revision() int64 { return e.claim.created }

// Leads is true in a transaction that is executed while the session leads.
func (e *Election) Leads() client.Compare { return e.claim.held() }

// Leader is the key of who leads.
func (e *Election) Leader(ctx context.Context) (*mvccpb.KeyValue, error) {
	kv, _, err := e.claim.oldest(ctx)
	if err == nil && kv == nil {
		err = ErrNoLeader
	}
	return kv, err
}

// Observe calls f with the leader's key, and again whenever its value changes
// or another one leads, until f or ctx ends it.
func Observe(ctx context.Context, c *client.Client, name string, f func(*mvccpb.KeyValue) error) error {
	all := client.Prefix(name + "/")
	for {
		kv, revision, err := first(ctx, c, client.Get{Range: all, Order: pb.RangeRequest_ASCEND})
		if err != nil {
			return err
		}
		if kv == nil {
			err := follow(ctx, c, client.Watch{Range: all, Revision: revision + 1, NoDelete: true}, func(e *mvccpb.Event) error {
				kv = e.Kv
				return errSeen
			})
			if err != nil {
				return err
			}
			if kv == nil {
				continue // Compacted meanwhile.
			}
			revision = kv.ModRevision
		}
		if err := f(kv); err != nil {
			return err
		}
		err = follow(ctx, c, client.Watch{Range: client.One(string(kv.Key)), Revision: revision + 1}, func(e *mvccpb.Event) error {
			if e.Type == mvccpb.Event_DELETE {
				return errSeen
			}
			return f(e.Kv)
		})
		if err != nil {
			return err
		}
	}
}
