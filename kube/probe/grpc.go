package probe

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func (t *Target) askGRPC(ctx context.Context, g *corev1.GRPCAction, timeout time.Duration) result {
	port, err := t.port(intstr.FromInt32(g.Port))
	if err != nil {
		return result{err: err}
	}
	conn, err := grpc.NewClient("passthrough:///"+t.address("", port),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return t.connect(ctx, "tcp", address) }),
		grpc.WithUserAgent(userAgent),
		grpc.WithMaxHeaderListSize(headerBytesMax),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(readBytesMax)),
		grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return result{err: err}
	}
	defer conn.Close()
	question := &grpc_health_v1.HealthCheckRequest{}
	if g.Service != nil {
		question.Service = *g.Service
	}
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, question)
	switch {
	case late(ctx):
		return failed("timeout: health rpc did not complete within %s", timeout)
	case status.Code(err) == codes.Unimplemented:
		return failed("this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", status.Convert(err).Message())
	case err != nil:
		return failed("health rpc failed: %s", err)
	case answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING:
		return failed("service unhealthy (responded with %q)", answer.GetStatus())
	}
	return result{healthy: true}
}
