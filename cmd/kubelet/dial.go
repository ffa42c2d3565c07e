package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/codec"
)

// dial returns a connection to all control planes. Calls go to those that answer, in
// turn: what was refused by one finds the next.
func dial(servers []string, creds credentials.TransportCredentials) (*grpc.ClientConn, error) {
	r := manual.NewBuilderWithScheme("holdfast")
	var addresses []resolver.Address
	for _, s := range servers {
		addresses = append(addresses, resolver.Address{Addr: s, ServerName: s})
	}
	r.InitialState(resolver.State{Addresses: addresses})
	conn, err := grpc.NewClient("holdfast:///cluster",
		grpc.WithResolvers(r),
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec.New()), grpc.MaxCallRecvMsgSize(math.MaxInt32)),
	)
	if err != nil {
		return nil, fmt.Errorf("dial %q: %w", servers, err)
	}
	return conn, nil
}

// speaking says in each call which node of a fleet it is.
type speaking struct {
	grpc.ClientConnInterface
	node string
}

func (s speaking) as(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, auth.NodeHeader, s.node)
}

// Invoke implements grpc.ClientConnInterface.
func (s speaking) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return s.ClientConnInterface.Invoke(s.as(ctx), method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (s speaking) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return s.ClientConnInterface.NewStream(s.as(ctx), desc, method, opts...)
}
