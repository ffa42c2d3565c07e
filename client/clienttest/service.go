package clienttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"path"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/holdfast-db/holdfast/internal/task"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// service is one member's side of every RPC.
type service struct {
	cluster *Cluster
	store   *store
	member  int
	tasks   *task.Group // The member's.

	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	pb.UnimplementedLeaseServer
	pb.UnimplementedClusterServer
	pb.UnimplementedMaintenanceServer
	pb.UnimplementedAuthServer
}

func (s *service) unary(ctx context.Context, r any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	method := path.Base(info.FullMethod)
	faults, err := s.arrive(ctx, method)
	if err != nil {
		return nil, err
	}
	answer, err := h(ctx, r)
	if err == nil && faults.After != nil {
		err = faults.After(ctx, s.member, method)
	}
	return answer, err
}

func (s *service) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	if _, err := s.arrive(stream.Context(), path.Base(info.FullMethod)); err != nil {
		return err
	}
	return h(srv, stream)
}

func (s *service) arrive(ctx context.Context, method string) (Faults, error) {
	c := s.cluster
	c.mu.Lock()
	faults := c.mu.faults
	c.mu.calls[method]++
	c.mu.metadata, _ = metadata.FromIncomingContext(ctx)
	c.mu.Unlock()
	if faults.Before != nil {
		if err := faults.Before(ctx, s.member, method); err != nil {
			return faults, err
		}
	}
	return faults, s.speak(ctx)
}

// speak waits while the member is silenced.
func (s *service) speak(ctx context.Context) error {
	s.cluster.mu.Lock()
	var silent chan struct{}
	if m := s.cluster.mu.members[s.member]; m != nil {
		silent = m.silent
	}
	s.cluster.mu.Unlock()
	if silent == nil {
		return nil
	}
	select {
	case <-silent:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *service) headerLocked() *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 1, MemberId: uint64(s.member + 1), Revision: s.store.mu.revision, RaftTerm: 2}
}

func (s *service) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if r.Revision > 0 && r.Revision < s.store.mu.compacted {
		return nil, errCompacted
	}
	kvs := s.store.rangeLocked(r.Key, r.RangeEnd)
	answer := &pb.RangeResponse{Header: s.headerLocked(), Kvs: kvs, Count: int64(len(kvs))}
	if r.Limit > 0 && int64(len(kvs)) > r.Limit {
		answer.Kvs, answer.More = kvs[:r.Limit], true
	}
	return answer, nil
}

func (s *service) Put(_ context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if _, found := s.store.mu.leases[r.Lease]; r.Lease != 0 && !found {
		return nil, errLeaseNotFound
	}
	answer := &pb.PutResponse{}
	if r.PrevKv {
		answer.PrevKv = s.store.mu.kvs[string(r.Key)]
	}
	s.store.putLocked(r)
	s.store.commitLocked()
	answer.Header = s.headerLocked()
	return answer, nil
}

func (s *service) DeleteRange(_ context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	gone := s.store.deleteLocked(r.Key, r.RangeEnd)
	s.store.commitLocked()
	return &pb.DeleteRangeResponse{Header: s.headerLocked(), Deleted: int64(len(gone))}, nil
}

func (s *service) Txn(_ context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	answer := s.store.txnLocked(r)
	s.store.commitLocked()
	answer.Header = s.headerLocked()
	return answer, nil
}

func (s *service) Compact(_ context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if r.Revision <= s.store.mu.compacted {
		return nil, errCompacted
	}
	s.store.mu.compacted = r.Revision
	return &pb.CompactionResponse{Header: s.headerLocked()}, nil
}

func (s *service) LeaseGrant(_ context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	id := r.ID
	if id == 0 {
		id = int64(len(s.store.mu.leases)) + 1
	}
	s.store.mu.leases[id] = r.TTL
	return &pb.LeaseGrantResponse{Header: s.headerLocked(), ID: id, TTL: r.TTL}, nil
}

func (s *service) LeaseRevoke(_ context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if !s.store.revokeLocked(r.ID) {
		return nil, errLeaseNotFound
	}
	return &pb.LeaseRevokeResponse{Header: s.headerLocked()}, nil
}

func (s *service) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := s.speak(stream.Context()); err != nil {
			return err
		}
		s.store.mu.Lock()
		answer := &pb.LeaseKeepAliveResponse{Header: s.headerLocked(), ID: r.ID, TTL: s.store.mu.leases[r.ID]}
		s.store.mu.Unlock()
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

func (s *service) MemberList(context.Context, *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	answer := &pb.MemberListResponse{}
	for i, e := range s.cluster.Endpoints() {
		answer.Members = append(answer.Members, &pb.Member{ID: uint64(i + 1), ClientURLs: []string{e}})
	}
	return answer, nil
}

func (s *service) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return &pb.StatusResponse{Header: s.headerLocked(), Version: "3.7.0"}, nil
}

// Snapshot sends a kilobyte for each revision, and the sum.
func (s *service) Snapshot(_ *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
	data := bytes.Repeat([]byte("holdfast"), 128*int(s.cluster.Revision()))
	sum := sha256.Sum256(data)
	const chunk = 1000
	for len(data) > 0 {
		n := min(chunk, len(data))
		m := &pb.SnapshotResponse{Blob: data[:n], RemainingBytes: uint64(len(data) - n), Version: "3.7.0"}
		if err := stream.Send(m); err != nil {
			return err
		}
		data = data[n:]
	}
	return stream.Send(&pb.SnapshotResponse{Blob: sum[:]})
}

// Authenticate gives out token-1, token-2 and so on, to anybody. That one is
// asked for, or void, is for Faults to say.
func (s *service) Authenticate(context.Context, *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return &pb.AuthenticateResponse{Header: s.headerLocked(), Token: fmt.Sprint("token-", s.cluster.Calls("Authenticate"))}, nil
}
