// Package join makes a machine a node: it gets the node's client certificate with
// a join token, renews it for as long as it runs, and dials the cluster with what
// is newest.
//
// The first connection trusts nothing but the authority whose hash is in the
// token, and shows the token only once that was checked. Later ones trust the
// authorities that came with the certificate, and show the certificate.
//
// Its state is the files of a pki.Rotator. After a crash it goes on where it was;
// a token is not needed any more once there is a certificate.
package join

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/token"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Config is what a Node stands on.
type Config struct {
	FS     vfs.FS
	Clock  clock.Clock
	Logger hclog.Logger
	Dir    string // Of the files kubelet.pem, kubelet-ca.pem.

	Node    string
	Servers []string       // host:port of API servers, asked in this order until one answers.
	Token   *token.Token   // Needed for the first certificate alone.
	Spread  func() float64 // Chance from 0 to 1, see pki.RotatorConfig.
	KeyType pki.KeyType
}

// Node holds the certificate of one node.
type Node struct {
	cfg     Config
	rotator *pki.Rotator
}

// New reads what is there.
func New(cfg Config) (*Node, error) {
	if err := pki.CheckNodeName(cfg.Node); err != nil {
		return nil, err
	}
	if len(cfg.Servers) == 0 {
		return nil, fmt.Errorf("there is no server: %w", pki.ErrRequest)
	}
	for _, s := range cfg.Servers {
		if _, _, err := net.SplitHostPort(s); err != nil {
			return nil, fmt.Errorf("server %q is no host:port: %w", s, pki.ErrRequest)
		}
	}
	n := &Node{cfg: cfg}
	var err error
	n.rotator, err = pki.NewRotator(pki.RotatorConfig{
		FS: cfg.FS, Clock: cfg.Clock, Logger: cfg.Logger, Dir: cfg.Dir, Name: "kubelet",
		Subject: pki.NodeSubject(cfg.Node), Key: cfg.KeyType, Sign: n.sign, Spread: cfg.Spread,
	})
	return n, err
}

// Rotator is ready with Ready, renews with Run, and has the files.
func (n *Node) Rotator() *pki.Rotator { return n.rotator }

// Heard tells what a heartbeat was answered with. Authorities that are others than
// those of the certificate have it renewed at once.
func (n *Node) Heard(r *kubepb.HeartbeatResponse) {
	if len(r.GetAuthority()) > 0 {
		n.rotator.Trust(r.GetAuthority())
	}
}

// askMax is how long one server is waited for, before the next is asked.
const askMax = 10 * time.Second

// sign asks the cluster: each server in turn, until one signs or refuses for good. A
// request that two of them saw, as an answer was lost, is the same request.
func (n *Node) sign(ctx context.Context, _ string, csr []byte) (cert, roots []byte, err error) {
	var failed []error
	for _, server := range n.cfg.Servers {
		within, cancel := context.WithTimeout(ctx, askMax)
		cert, roots, err = n.ask(within, server, csr)
		cancel()
		if err == nil || errors.Is(err, pki.ErrNotAllowed) {
			return cert, roots, err
		}
		failed = append(failed, fmt.Errorf("%s: %w", server, err))
	}
	return nil, nil, errors.Join(failed...)
}

// ask one server: with the certificate while there is one, else with the token.
func (n *Node) ask(ctx context.Context, server string, csr []byte) (cert, roots []byte, err error) {
	creds, err := n.Credentials()
	first := errors.Is(err, errNone)
	if first {
		if n.cfg.Token == nil {
			return nil, nil, fmt.Errorf("%w: there is no certificate in %s and no join token: make one with 'holdfastctl token create'", pki.ErrNotAllowed, n.cfg.Dir)
		}
		host, _, _ := net.SplitHostPort(server)
		creds, err = credentials.NewTLS(pki.Pinned(host, n.cfg.Token.Authority, n.cfg.Clock)), nil
	}
	if err != nil {
		return nil, nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+server, grpc.WithTransportCredentials(creds))
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	var answer *kubepb.SignResponse
	if first {
		answer, err = kubepb.NewClusterStateClient(conn).Bootstrap(ctx, &kubepb.BootstrapRequest{Token: n.cfg.Token.Proof(), Node: n.cfg.Node, Csr: csr})
	} else {
		answer, err = kubepb.NewClusterStateClient(conn).SignRequest(ctx, &kubepb.SignRequestRequest{Csr: csr})
	}
	switch status.Code(err) {
	case codes.OK:
		return answer.GetCertificate(), answer.GetAuthority(), nil
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument:
		return nil, nil, fmt.Errorf("%w: %s", pki.ErrNotAllowed, status.Convert(err).Message())
	default:
		return nil, nil, err
	}
}

var errNone = errors.New("there is no certificate yet")

// Credentials are for connections to the cluster. Each connection is made with the
// newest certificate and checked against the newest authorities: neither a renewal
// nor a rotation of the authority needs a new client.
func (n *Node) Credentials() (credentials.TransportCredentials, error) {
	if n.rotator.Certificate() == nil {
		return nil, errNone
	}
	r, err := pki.NewReloader(pki.Config{FS: n.cfg.FS, Clock: n.cfg.Clock, Logger: n.cfg.Logger, Files: n.rotator.Files()})
	if err != nil {
		return nil, err
	}
	return Live(r), nil
}

// Live are credentials of which each connection is made with what the files hold then.
func Live(r *pki.Reloader) credentials.TransportCredentials {
	return live{credentials.NewTLS(r.ClientConfig("")), r}
}

// live makes each handshake anew. Everything else is as of the first.
type live struct {
	credentials.TransportCredentials
	reloader *pki.Reloader
}

// ClientHandshake implements credentials.TransportCredentials.
func (l live) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(l.reloader.ClientConfig("")).ClientHandshake(ctx, authority, conn)
}

// Clone implements credentials.TransportCredentials.
func (l live) Clone() credentials.TransportCredentials {
	return live{l.TransportCredentials.Clone(), l.reloader}
}
