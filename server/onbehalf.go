package server

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/watch"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// onBehalf makes requests of the basic services for services that are built on
// them. Each goes through the guard in the name of who called: locks and
// elections give nobody more than keys and leases would.
type onBehalf struct {
	*core
	kv     kvService
	leases leaseService
}

func newOnBehalf(c *core) *onBehalf {
	return &onBehalf{core: c, kv: kvService{core: c}, leases: leaseService{core: c}}
}

func (s *onBehalf) txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	return answerAs(ctx, s.core, pb.KV_Txn_FullMethodName, r, s.kv.Txn)
}

func (s *onBehalf) delete(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	return answerAs(ctx, s.core, pb.KV_DeleteRange_FullMethodName, r, s.kv.DeleteRange)
}

func (s *onBehalf) grant(ctx context.Context, ttl int64) (int64, error) {
	r, err := answerAs(ctx, s.core, pb.Lease_LeaseGrant_FullMethodName, &pb.LeaseGrantRequest{TTL: ttl}, s.leases.LeaseGrant)
	if err != nil {
		return 0, err
	}
	return r.ID, nil
}

func answerAs[Q, R any](ctx context.Context, c *core, method string, r *Q, call func(context.Context, *Q) (*R, error)) (*R, error) {
	answer, err := c.answer(ctx, r, &grpc.UnaryServerInfo{FullMethod: method}, func(ctx context.Context, req any) (any, error) {
		return call(ctx, req.(*Q))
	})
	if err != nil {
		return nil, err
	}
	return answer.(*R), nil
}

// first returns the oldest key of a range, or in descending order the youngest, nil
// if there is none, and the header of the answer.
func (s *onBehalf) first(ctx context.Context, r *pb.RangeRequest) (*mvccpb.KeyValue, *pb.ResponseHeader, error) {
	r.SortTarget, r.Limit = pb.RangeRequest_CREATE, 1
	if r.SortOrder == pb.RangeRequest_NONE {
		r.SortOrder = pb.RangeRequest_ASCEND // Without one the limit comes before the sort: the oldest of the first keys.
	}
	answer, err := s.txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{opRange(r)}})
	if err != nil {
		return nil, nil, err
	}
	if kvs := answer.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		return kvs[0], answer.Header, nil
	}
	return nil, answer.Header, nil
}

// errCaughtUp ends a follow that has seen what it wanted.
var errCaughtUp = errors.New("seen")

// follow calls f for each event of a range from a revision on, until f fails.
// It returns nil if f said errCaughtUp, or if a compaction was faster: the
// caller looks again. Who may read the range was asked by the read before it.
func (s *onBehalf) follow(ctx context.Context, r watch.Request, f func(*mvccpb.Event) error) error {
	stream := s.hub.NewStream()
	defer stream.Close()
	if _, err := stream.Watch(r); err != nil {
		return wireOfWatch(err)
	}
	for {
		b, err := stream.Next(ctx)
		if err != nil {
			return wireOfWatch(err)
		}
		if b.Kind == watch.Canceled {
			return toWire(b.Err)
		}
		for _, encoded := range b.Events {
			e := &mvccpb.Event{}
			if err := e.UnmarshalVT(encoded); err != nil {
				return toWire(fmt.Errorf("event of the watch hub: %w", err))
			}
			if err := f(e); err != nil {
				if errors.Is(err, errCaughtUp) {
					return nil
				}
				return err
			}
		}
	}
}

func wireOfWatch(err error) error {
	if errors.Is(err, watch.ErrClosed) {
		return errStopped
	}
	return toWire(err)
}

// waitTurn returns once no key under a prefix is older than the revision. The
// youngest of those before is watched: who is behind it need not wake.
func (s *onBehalf) waitTurn(ctx context.Context, prefix []byte, created int64) error {
	for {
		ahead, h, err := s.first(ctx, &pb.RangeRequest{
			Key: prefix, RangeEnd: prefixEnd(prefix), MaxCreateRevision: created - 1,
			SortOrder: pb.RangeRequest_DESCEND, KeysOnly: true,
		})
		if err != nil || ahead == nil {
			return err
		}
		gone := func(*mvccpb.Event) error { return errCaughtUp }
		err = s.follow(ctx, watch.Request{Key: ahead.Key, Start: ident.Revision(h.Revision + 1), NoPut: true}, gone)
		if err != nil {
			return err
		}
	}
}

// standing is a key that says who waits or holds.
type standing struct {
	*mvccpb.KeyValue
	made bool // By this call; else the same lease had it before, and may hold by it.
}

// claim makes a key, or finds that it is there.
func (s *onBehalf) claim(ctx context.Context, key, value []byte, lease int64) (*standing, *pb.ResponseHeader, error) {
	answer, err := s.txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{ifCreated(key, 0)},
		Success: []*pb.RequestOp{opPutOf(&pb.PutRequest{Key: key, Value: value, Lease: lease})},
		Failure: []*pb.RequestOp{opRange(&pb.RangeRequest{Key: key})},
	})
	if err != nil {
		return nil, nil, err
	}
	if !answer.Succeeded {
		return &standing{KeyValue: answer.Responses[0].GetResponseRange().Kvs[0]}, answer.Header, nil
	}
	made := &mvccpb.KeyValue{Key: key, Value: value, CreateRevision: answer.Header.Revision, Lease: lease}
	return &standing{KeyValue: made, made: true}, answer.Header, nil
}

// hold waits until a claim is the oldest under its prefix, and makes sure that
// it still stands: its lease may have run out meanwhile, which is expired.
func (s *onBehalf) hold(ctx context.Context, prefix []byte, c *standing, expired error) (*pb.ResponseHeader, error) {
	err := s.waitTurn(ctx, prefix, c.CreateRevision)
	if err != nil {
		s.giveUp(ctx, c)
		return nil, err
	}
	held, h, err := s.first(ctx, &pb.RangeRequest{Key: c.Key, KeysOnly: true})
	switch {
	case err != nil:
		s.giveUp(ctx, c)
		return nil, err
	case held == nil || held.CreateRevision != c.CreateRevision:
		return nil, expired
	}
	return h, nil
}

// giveUp takes a claim back that was made for a caller who no longer waits. It tries again
// for as long as a request may take, but not while the server stops: then the
// lease ends it.
func (s *onBehalf) giveUp(ctx context.Context, claim *standing) {
	if !claim.made {
		return
	}
	ctx = context.WithoutCancel(ctx)
	began := s.cfg.Clock.Mono()
	for {
		once, cancel := context.WithTimeout(ctx, stopTimeout)
		_, err := s.txn(once, &pb.TxnRequest{
			Compare: []*pb.Compare{ifCreated(claim.Key, claim.CreateRevision)},
			Success: []*pb.RequestOp{opDeleteOf(claim.Key)},
		})
		cancel()
		if err == nil || s.cfg.Clock.Mono()-began > s.timeout() {
			return
		}
		select {
		case <-s.hub.Done():
			return
		case <-s.cfg.Clock.After(giveUpPause):
		}
	}
}

func ifCreated(key []byte, revision int64) *pb.Compare {
	return &pb.Compare{Key: key, Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: revision}}
}

func opRange(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func opPutOf(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func opDeleteOf(key []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}}
}

// prefixEnd is the first key after all that begin with a prefix, which ends in
// a slash here.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	end[len(end)-1]++
	return end
}
