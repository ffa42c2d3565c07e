package recipe

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// claim is a key that says who waits or holds: the oldest under a name has it.
type claim struct {
	session *Session
	prefix  string
	key     string
	created int64 // Revision. Zero: there is none.
}

func newClaim(s *Session, name string) claim {
	return claim{session: s, prefix: name + "/", key: fmt.Sprintf("%s/%x", name, s.lease)}
}

// make makes the key, or finds the one that the session has already. It tells
// what is there. The same attempt again does no harm, so that one whose outcome
// is unknown is repeated.
func (c *claim) make(ctx context.Context, value string) (*mvccpb.KeyValue, error) {
	txn := client.Txn{
		If:   []client.Compare{client.IfCreated(c.key, client.Equal, 0)},
		Then: []client.Op{client.Put{Key: c.key, Value: []byte(value), Lease: c.session.lease}, client.Get{Range: client.One(c.key)}},
		Else: []client.Op{client.Get{Range: client.One(c.key)}},
	}
	r, err := untilKnown(ctx, c.session.client, txn)
	if err != nil {
		return nil, err
	}
	kv := r.Responses[len(r.Responses)-1].GetResponseRange().Kvs[0]
	c.created = kv.CreateRevision
	return kv, nil
}

// untilKnown repeats a transaction that may be executed twice until it is known
// what came of it.
func untilKnown(ctx context.Context, c *client.Client, txn client.Txn) (*pb.TxnResponse, error) {
	for {
		r, err := c.Txn(ctx, txn)
		if err == nil || !errors.Is(err, client.ErrUnknownOutcome) || ctx.Err() != nil {
			return r, err
		}
	}
}

// oldest is the key of who has what all claim; nil if nobody has.
func (c *claim) oldest(ctx context.Context) (*mvccpb.KeyValue, int64, error) {
	return first(ctx, c.session.client, client.Get{Range: client.Prefix(c.prefix), Order: pb.RangeRequest_ASCEND})
}

// first by creation of what g asks for, and the revision of the answer.
func first(ctx context.Context, c *client.Client, g client.Get) (*mvccpb.KeyValue, int64, error) {
	g.SortBy, g.Limit = pb.RangeRequest_CREATE, 1
	r, err := c.Get(ctx, g)
	if err != nil {
		return nil, 0, err
	}
	if len(r.Kvs) == 0 {
		return nil, r.Header.Revision, nil
	}
	return r.Kvs[0], r.Header.Revision, nil
}

// waitTurn returns once no older claim is left. It watches the youngest of
// those before: who is behind it need not wake.
func (c *claim) waitTurn(ctx context.Context) error {
	for {
		ahead, revision, err := first(ctx, c.session.client, client.Get{
			Range: client.Prefix(c.prefix), Order: pb.RangeRequest_DESCEND, KeysOnly: true, MaxCreateRevision: c.created - 1,
		})
		if err != nil || ahead == nil {
			return err
		}
		gone := client.Watch{Range: client.One(string(ahead.Key)), Revision: revision + 1, NoPut: true}
		err = follow(ctx, c.session.client, gone, func(*mvccpb.Event) error { return errSeen })
		if err != nil {
			return err
		}
	}
}

// hold waits until the claim is the oldest, and makes sure that it still stands:
// the session may have ended meanwhile.
func (c *claim) hold(ctx context.Context) error {
	err := c.waitTurn(ctx)
	var r *pb.TxnResponse
	if err == nil {
		r, err = c.session.client.Txn(ctx, client.Txn{
			If: []client.Compare{c.held()}, Then: []client.Op{client.Get{Range: client.One(c.key), KeysOnly: true}},
		})
	}
	if err != nil {
		c.giveUp(ctx)
		return err
	}
	if !r.Succeeded {
		c.created = 0
		return ErrSessionExpired
	}
	return nil
}

// errSeen ends a follow that has seen what it wanted.
var errSeen = errors.New("seen")

// follow calls f for each event of a watch until f fails. It returns nil if f
// said errSeen, or if a compaction was faster: the caller looks again.
func follow(ctx context.Context, c *client.Client, w client.Watch, f func(*mvccpb.Event) error) error {
	watcher := c.Watch(ctx, w)
	defer func() {
		watcher.Cancel()
		for range watcher.Reports() {
		}
	}()
	for r := range watcher.Reports() {
		for _, e := range r.Events {
			if err := f(e); err != nil {
				if errors.Is(err, errSeen) {
					return nil
				}
				return err
			}
		}
	}
	if err := watcher.Err(); err != nil && !errors.Is(err, client.ErrCompacted) {
		return err
	}
	return ctx.Err()
}

// drop takes the claim back, if it is still the one that was made.
func (c *claim) drop(ctx context.Context) (*pb.TxnResponse, error) {
	return untilKnown(ctx, c.session.client, client.Txn{
		If:   []client.Compare{c.held()},
		Then: []client.Op{client.Delete{Range: client.One(c.key)}},
	})
}

// giveUp takes back the claim of who no longer waits. If that fails, the lease
// does it.
func (c *claim) giveUp(ctx context.Context) {
	c.drop(context.WithoutCancel(ctx)) // Ends with the client's time for a request.
	c.created = 0
}

func (c *claim) held() client.Compare { return client.IfCreated(c.key, client.Equal, c.created) }
