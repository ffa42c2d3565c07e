package transport

import (
	"context"
	"crypto/tls"
	"math"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/holdfast-db/holdfast/internal/frontdoor"
)

// gate is the listening side: gRPC and plain HTTP behind one door.
type gate struct {
	t        *Transport
	door     *frontdoor.Door
	grpc     *grpc.Server
	http     *http.Server
	starting sync.Once
}

func newGate(t *Transport) *gate {
	g := &gate{t: t, door: frontdoor.New(frontdoor.Config{
		Name: "peer", Logger: t.cfg.Logger, Clock: t.cfg.Clock, Looking: handshakesMax, Timeout: sniffTimeout,
	})}
	g.grpc = grpc.NewServer(
		grpc.ForceServerCodecV2(rawCodec{}),
		grpc.MaxRecvMsgSize(packetBytesMax(t.cfg.FrameBytesMax)),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.InitialWindowSize(streamWindowBytes),
		grpc.InitialConnWindowSize(streamWindowBytes),
		grpc.ConnectionTimeout(sniffTimeout),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
	)
	g.grpc.RegisterService(serviceDesc(), t)
	handler := t.cfg.HTTP
	if handler == nil {
		handler = http.NotFoundHandler()
	}
	g.http = &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: sniffTimeout,
		IdleTimeout:       time.Minute,
		ErrorLog:          t.cfg.Logger.StandardLogger(nil),
	}
	return g
}

// listen starts to accept on l.
func (g *gate) listen(l net.Listener, serverTLS *tls.Config) {
	g.starting.Do(func() {
		g.t.group.Go("peer grpc", func(context.Context) error { g.grpc.Serve(g.door.GRPC()); return nil })
		g.t.group.Go("peer http", func(context.Context) error { g.http.Serve(g.door.HTTP()); return nil })
	})
	g.door.Listen(frontdoor.Port{Listener: l, TLS: serverTLS})
}

// close ends everything that listens or was accepted.
func (g *gate) close() {
	g.door.Close()
	g.http.Close()
	g.grpc.Stop()
}
