package server

import (
	"context"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	lockpb "github.com/holdfast-db/holdfast/proto/v3lockpb"
)

// lockService answers v3lockpb.Lock. A lock is the oldest of the keys under its
// name, one for each lease that wants it, so that clients which do the same by
// themselves share it.
type lockService struct {
	lockpb.UnimplementedLockServer
	*onBehalf
}

var errSessionExpired = status.Error(codes.Unknown, "mutex: session is expired") // Known by its text.

func (s *lockService) Lock(ctx context.Context, r *lockpb.LockRequest) (*lockpb.LockResponse, error) {
	lease, err := s.leaseOr(ctx, r.Lease)
	if err != nil {
		return nil, err
	}
	prefix := namePrefix(r.Name)
	claim, _, err := s.claim(ctx, claimKey(prefix, lease), nil, lease)
	if err != nil {
		return nil, err
	}
	h, err := s.hold(ctx, prefix, claim, errSessionExpired)
	if err != nil {
		return nil, err
	}
	return &lockpb.LockResponse{Header: h, Key: claim.Key}, nil
}

func (s *lockService) Unlock(ctx context.Context, r *lockpb.UnlockRequest) (*lockpb.UnlockResponse, error) {
	answer, err := s.delete(ctx, &pb.DeleteRangeRequest{Key: r.Key})
	if err != nil {
		return nil, err
	}
	return &lockpb.UnlockResponse{Header: answer.Header}, nil
}

// leaseOr makes a lease for who brings none.
func (s *onBehalf) leaseOr(ctx context.Context, lease int64) (int64, error) {
	if lease != 0 {
		return lease, nil
	}
	return s.grant(ctx, claimTTL)
}

// claimKey is the key of a lease under a prefix.
func claimKey(prefix []byte, lease int64) []byte {
	return strconv.AppendInt(prefix[:len(prefix):len(prefix)], lease, 16)
}

// namePrefix is what the keys of a lock or an election begin with.
func namePrefix(name []byte) []byte { return append(name[:len(name):len(name)], '/') }
