package state

import (
	"context"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/holdfast-db/holdfast/proto/codec"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// NewServer returns a gRPC server that serves s. The credentials must ask for client
// certificates and verify those that are given: who has none may call Bootstrap only.
// The program that serves decides where it listens, and stops it before s is closed;
// more are its own options, such as interceptors.
func NewServer(s *Service, creds credentials.TransportCredentials, more ...grpc.ServerOption) *grpc.Server {
	g := grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(creds),
		grpc.ForceServerCodecV2(codec.New()), // Watches send events that are encoded already.
		grpc.MaxRecvMsgSize(receiveBytesMax),
		grpc.MaxConcurrentStreams(streamsMax),
		grpc.ChainUnaryInterceptor(roomy),
		// A kubelet that vanished without a word holds its watches until this finds out.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}, more...)...)
	kubepb.RegisterClusterStateServer(g, s)
	return g
}

// roomy serves a call on a stack that is as large as calls need. A new goroutine's would
// be copied at each doubling on the way down, which took a twelfth of a busy control
// plane's time; here there is hardly anything on it yet.
func roomy(ctx context.Context, r any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	useStack()
	return handle(ctx, r)
}

//go:noinline
func useStack() {
	var room [stackBytes]byte
	runtime.KeepAlive(&room)
}

const (
	stackBytes = 20 << 10 // Of a call: the stack becomes 32 KiB.

	// receiveBytesMax of one request: an object as JSON, and what is around it.
	receiveBytesMax = 3 * objectBytesMax

	// streamsMax of one connection: a control plane watches each kind, for each of
	// its parts.
	streamsMax = 1000
)
