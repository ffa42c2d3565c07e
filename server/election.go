package server

import (
	"bytes"
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/watch"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	electionpb "github.com/holdfast-db/holdfast/proto/v3electionpb"
)

// electionService answers v3electionpb.Election. The leader is who has the
// oldest of the keys under the election's name, one for each lease that stands.
type electionService struct {
	electionpb.UnimplementedElectionServer
	*onBehalf
}

// Known by their texts: they travel as Unknown.
var (
	errNoLeaderField     = status.Error(codes.Unknown, `"leader" field must be provided`)
	errElectionNotLeader = status.Error(codes.Unknown, "election: not leader")
	errElectionNoLeader  = status.Error(codes.Unknown, "election: no leader")
)

func (s *electionService) Campaign(ctx context.Context, r *electionpb.CampaignRequest) (*electionpb.CampaignResponse, error) {
	lease, err := s.leaseOr(ctx, r.Lease)
	if err != nil {
		return nil, err
	}
	prefix := namePrefix(r.Name)
	claim, h, err := s.claim(ctx, claimKey(prefix, lease), r.Value, lease)
	if err != nil {
		return nil, err
	}
	leader := &electionpb.LeaderKey{Name: r.Name, Key: claim.Key, Rev: claim.CreateRevision, Lease: lease}
	if !bytes.Equal(claim.Value, r.Value) { // The same lease stood before, with another value.
		if h, err = s.proclaim(ctx, leader, r.Value); err != nil {
			s.giveUp(ctx, claim)
			return nil, err
		}
	}
	if _, err := s.hold(ctx, prefix, claim, errElectionNotLeader); err != nil {
		return nil, err
	}
	return &electionpb.CampaignResponse{Header: h, Leader: leader}, nil
}

func (s *electionService) Proclaim(ctx context.Context, r *electionpb.ProclaimRequest) (*electionpb.ProclaimResponse, error) {
	if r.Leader == nil {
		return nil, errNoLeaderField
	}
	h, err := s.proclaim(ctx, r.Leader, r.Value)
	if err != nil {
		return nil, err
	}
	return &electionpb.ProclaimResponse{Header: h}, nil
}

// proclaim gives the leader's key another value. Without a lease in the proof
// the key keeps the one it has: a leadership must not outlive its leader.
func (s *electionService) proclaim(ctx context.Context, l *electionpb.LeaderKey, value []byte) (*pb.ResponseHeader, error) {
	answer, err := s.txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{ifCreated(l.Key, l.Rev)},
		Success: []*pb.RequestOp{opPutOf(&pb.PutRequest{Key: l.Key, Value: value, Lease: l.Lease, IgnoreLease: l.Lease == 0})},
	})
	if err != nil {
		return nil, err
	}
	if !answer.Succeeded {
		return nil, errElectionNotLeader
	}
	return answer.Header, nil
}

func (s *electionService) Leader(ctx context.Context, r *electionpb.LeaderRequest) (*electionpb.LeaderResponse, error) {
	kv, h, err := s.leader(ctx, namePrefix(r.Name))
	if err != nil {
		return nil, err
	}
	if kv == nil {
		return nil, errElectionNoLeader
	}
	return &electionpb.LeaderResponse{Header: h, Kv: kv}, nil
}

func (s *electionService) leader(ctx context.Context, prefix []byte) (*mvccpb.KeyValue, *pb.ResponseHeader, error) {
	return s.first(ctx, &pb.RangeRequest{Key: prefix, RangeEnd: prefixEnd(prefix)})
}

// Observe sends the leader's key, and again whenever its value changes or
// another one leads.
func (s *electionService) Observe(r *electionpb.LeaderRequest, stream electionpb.Election_ObserveServer) error {
	ctx, prefix := stream.Context(), namePrefix(r.Name)
	for {
		kv, h, err := s.leader(ctx, prefix)
		if err != nil {
			return err
		}
		if kv == nil {
			if kv, err = s.nextStanding(ctx, prefix, h.Revision); err != nil {
				return err
			}
			if kv == nil {
				continue // Compacted meanwhile.
			}
			h.Revision = kv.ModRevision
		}
		if err := stream.Send(&electionpb.LeaderResponse{Header: h, Kv: kv}); err != nil {
			return err
		}
		after := watch.Request{Key: kv.Key, Start: ident.Revision(h.Revision + 1)}
		err = s.follow(ctx, after, func(e *mvccpb.Event) error {
			if e.Type == mvccpb.Event_DELETE {
				return errCaughtUp
			}
			h := s.header()
			h.Revision = e.Kv.ModRevision
			return stream.Send(&electionpb.LeaderResponse{Header: h, Kv: e.Kv})
		})
		if err != nil {
			return err
		}
	}
}

// nextStanding waits until somebody stands for election.
func (s *electionService) nextStanding(ctx context.Context, prefix []byte, after int64) (*mvccpb.KeyValue, error) {
	var kv *mvccpb.KeyValue
	r := watch.Request{Key: prefix, End: prefixEnd(prefix), Start: ident.Revision(after + 1), NoDelete: true}
	err := s.follow(ctx, r, func(e *mvccpb.Event) error {
		kv = e.Kv
		return errCaughtUp
	})
	return kv, err
}

func (s *electionService) Resign(ctx context.Context, r *electionpb.ResignRequest) (*electionpb.ResignResponse, error) {
	if r.Leader == nil {
		return nil, errNoLeaderField
	}
	answer, err := s.txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{ifCreated(r.Leader.Key, r.Leader.Rev)},
		Success: []*pb.RequestOp{opDeleteOf(r.Leader.Key)},
	})
	if err != nil {
		return nil, err
	}
	return &electionpb.ResignResponse{Header: answer.Header}, nil
}
