package server

import (
	"context"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// direct are the calls of the program that embeds the member that need no
// connection, and so end with none: what they use must not be closed before.
type direct struct {
	under sync.WaitGroup

	mu struct {
		sync.Mutex
		closed bool
	}
}

func (d *direct) begin() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.mu.closed {
		d.under.Add(1)
	}
	return !d.mu.closed
}

// close refuses further calls.
func (d *direct) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.closed = true
}

var (
	directTxn = &grpc.UnaryServerInfo{FullMethod: pb.KV_Txn_FullMethodName}

	// directPeer hides whom the program itself is answering: a certificate that was
	// shown to it was not shown to this member.
	directPeer = &peer.Peer{Addr: &net.UnixAddr{Name: "inside", Net: "unix"}}
)

// Txn is KV.Txn for the program that embeds the member: guarded and counted like
// one that comes over Inside, but not encoded. Nobody writes to request or answer
// afterwards. It waits until the member is ready, and not for a leader.
func (s *Server) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	select {
	case <-s.ready:
	case <-s.stopped:
		return nil, errNoLeader
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	if !s.direct.begin() {
		return nil, errNoLeader // Of this member: another attempt meets the one that follows it.
	}
	defer s.direct.under.Done()
	if s.node.Status().Leader == 0 {
		return nil, errNoLeader
	}
	sent, _ := metadata.FromOutgoingContext(ctx)
	ctx = peer.NewContext(metadata.NewIncomingContext(ctx, sent), directPeer)
	answer, err := s.unary(ctx, r, directTxn, func(ctx context.Context, req any) (any, error) {
		return (&kvService{core: s.core}).Txn(ctx, req.(*pb.TxnRequest))
	})
	if err != nil {
		return nil, err
	}
	return answer.(*pb.TxnResponse), nil
}
