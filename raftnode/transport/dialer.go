package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// dialer makes connections. One connection carries one stream, so that streams
// do not share a TCP window.
type dialer struct {
	tls           func() *tls.Config // Asked for each connection; nil: cleartext only.
	dial          func(ctx context.Context, address string) (net.Conn, error)
	frameBytesMax int
}

// conn prepares a connection to a peer URL; the first stream on it dials.
func (d dialer) conn(raw string) (*grpc.ClientConn, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("peer URL %q: %w", raw, err)
	}
	creds := insecure.NewCredentials()
	switch {
	case u.Host == "":
		return nil, fmt.Errorf("peer URL %q names no host: %w", raw, ErrUnreachable)
	case u.Scheme == "https" && d.tls == nil:
		return nil, fmt.Errorf("peer URL %q wants TLS, and no certificate is configured for peers: %w", raw, ErrUnreachable)
	case u.Scheme == "https":
		creds = credentials.NewTLS(d.tls())
	case u.Scheme != "http":
		return nil, fmt.Errorf("peer URL %q is neither http nor https: %w", raw, ErrUnreachable)
	}
	dial := d.dial
	if dial == nil {
		dial = func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		}
	}
	return grpc.NewClient("passthrough:///"+u.Host,
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(dial),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithInitialWindowSize(streamWindowBytes),
		grpc.WithInitialConnWindowSize(streamWindowBytes),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(rawCodec{}),
			grpc.MaxCallRecvMsgSize(packetBytesMax(d.frameBytesMax)),
		),
	)
}

// packetBytesMax is the largest packet, given the largest frame.
func packetBytesMax(frameBytesMax int) int { return frameBytesMax + packetBytesGoal }

// greet opens a stream and shakes hands on it. cancel ends the stream's context.
func (t *Transport) greet(ctx context.Context, cancel context.CancelFunc, conn *grpc.ClientConn, method string, number byte, p *peer) (grpc.ClientStream, error) {
	timer := t.cfg.Clock.AfterFunc(dialTimeout, cancel)
	stream, err := t.shakeHands(ctx, conn, method, number, p)
	if !timer.Stop() {
		err = fmt.Errorf("handshake took longer than %s: %w", dialTimeout, ErrUnreachable)
	}
	return stream, err
}

func (t *Transport) shakeHands(ctx context.Context, conn *grpc.ClientConn, method string, number byte, p *peer) (grpc.ClientStream, error) {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return nil, fmt.Errorf("dial peer: %w", err)
	}
	mine := hello{channel: number, identity: t.cfg.Identity, to: p.id, urls: t.cfg.URLs}
	if err := sendPacket(stream, mine.packet()); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("greet peer: %w", err)
	}
	packet, err := recvPacket(stream)
	if err != nil {
		return nil, fmt.Errorf("greet peer: %w", err)
	}
	theirs, err := decodeWelcome(packet)
	if err != nil {
		return nil, err
	}
	if theirs.Member != p.id {
		return nil, fmt.Errorf("member %s answers where %s was expected: %w", theirs.Member, p.id, ErrWrongMember)
	}
	if err := checkIdentity(t.cfg.Identity, theirs); err != nil {
		return nil, err
	}
	if !p.admit(theirs.Incarnation) {
		return nil, fmt.Errorf("member %s has a new data directory: %w", p.id, ErrIncarnation)
	}
	return stream, nil
}

// RosterConfig is what FetchRoster stands on.
type RosterConfig struct {
	TLS  func() *tls.Config                                          // As in Config.
	Dial func(ctx context.Context, address string) (net.Conn, error) // nil means TCP.
}

// FetchRoster asks whoever answers at a peer URL who is in the cluster. It
// needs no identity: members-to-be use it before they have one, and a boot with
// an empty directory uses it to learn whether it was a member before. The
// caller bounds the wait with ctx.
func FetchRoster(ctx context.Context, cfg RosterConfig, url string) (*Roster, error) {
	conn, err := dialer{tls: cfg.TLS, dial: cfg.Dial, frameBytesMax: FrameBytesMaxDefault}.conn(url)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var reply inPacket
	question := seal([]byte{packetRoster, protocolVersion}, 0)
	if err := conn.Invoke(ctx, rosterMethod, &outPacket{question}, &reply); err != nil {
		return nil, fmt.Errorf("ask %s for the members of its cluster: %w", url, err)
	}
	return decodeRoster(reply.bytes)
}
