package join_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/client/clienttest"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/authority"
	"github.com/holdfast-db/holdfast/kube/join"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/kube/token"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

var _ state.Authority = (*authority.Authority)(nil)

// service answers the two calls with a real authority.
type service struct {
	kubepb.UnimplementedClusterStateServer
	authority *authority.Authority
}

func (s *service) Bootstrap(ctx context.Context, r *kubepb.BootstrapRequest) (*kubepb.SignResponse, error) {
	return answer(s.authority.Bootstrap(ctx, r.GetToken(), r.GetNode(), r.GetCsr()))
}

func (s *service) SignRequest(ctx context.Context, r *kubepb.SignRequestRequest) (*kubepb.SignResponse, error) {
	p, _ := peer.FromContext(ctx)
	shown := p.AuthInfo.(credentials.TLSInfo).State.VerifiedChains
	if len(shown) == 0 {
		return nil, status.Error(codes.Unauthenticated, "no certificate")
	}
	return answer(s.authority.Sign(ctx, shown[0][0].Subject, r.GetCsr(), r.GetProfile()))
}

func answer(cert, roots []byte, err error) (*kubepb.SignResponse, error) {
	if err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	return &kubepb.SignResponse{Certificate: cert, Authority: roots}, nil
}

type fixture struct {
	folder  pki.Store
	address string
	tokens  *token.Store
	ca      *pki.Authority
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{folder: pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: t.TempDir()}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	f.ca, _, err = f.folder.CreateAuthority(pki.AuthorityRequest{CommonName: "cluster CA"})
	must(err)
	_, err = f.folder.Issue(f.ca, "apiserver", pki.Request{Profile: pki.Kubernetes, CommonName: pki.APIServerUser, Hosts: []string{"127.0.0.1"}})
	must(err)
	cluster := clienttest.New(t, 1)
	cl, err := client.New(client.Config{Endpoints: cluster.Endpoints(), Dial: cluster.Dial, Logger: hclog.NewNullLogger()})
	must(err)
	t.Cleanup(func() { cl.Close() })
	f.tokens = token.New(token.Config{Client: cl, Clock: clock.Real()})
	signs, err := authority.New(authority.Config{FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), Dir: f.folder.Dir, Tokens: f.tokens})
	must(err)
	reloader, err := pki.NewReloader(pki.Config{FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), Files: f.folder.Files("apiserver")})
	must(err)
	config, err := reloader.ServerConfig(pki.ServerOptions{ClientAuth: true, Optional: true, ShowAuthority: true})
	must(err)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	kubepb.RegisterClusterStateServer(server, &service{authority: signs})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	f.address = l.Addr().String()
	return f
}

func (f *fixture) node(t *testing.T, dir string, made *token.Token, before ...string) *join.Node {
	t.Helper()
	n, err := join.New(join.Config{
		FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), Dir: dir, Node: "n1", Servers: append(before, f.address), Token: made, Spread: func() float64 { return 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAMachineBecomesANodeAndStaysOneThroughARotationOfTheAuthority(t *testing.T) {
	f := newFixture(t)
	made, _, err := f.tokens.Create(t.Context(), token.Request{Authority: f.ca.Hash()})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := f.node(t, dir, &made).Rotator().Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := f.node(t, dir, nil) // A restart, without the token.
	steps := []func() error{
		func() error { return nil },
		func() error {
			_, err := f.folder.BeginRotation(pki.AuthorityRequest{CommonName: "next CA"})
			return err
		},
		func() error { _, err := f.folder.StepRotation(pki.RotationSign); return err },
	}
	for i, step := range steps {
		before := n.Rotator().Certificate().Leaf
		if err := step(); err != nil {
			t.Fatal(err)
		}
		if err := n.Rotator().Renew(t.Context()); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if after := n.Rotator().Certificate().Leaf; after.SerialNumber.Cmp(before.SerialNumber) == 0 {
			t.Errorf("step %d: the certificate is the old one", i)
		}
	}
	if issuer := n.Rotator().Certificate().Leaf.Issuer.CommonName; issuer != "next CA" {
		t.Errorf("signed by %s", issuer)
	}
}

func TestANodeThatHearsOfARotationRenewsAtOnce(t *testing.T) {
	f := newFixture(t)
	made, _, err := f.tokens.Create(t.Context(), token.Request{Authority: f.ca.Hash()})
	if err != nil {
		t.Fatal(err)
	}
	n := f.node(t, t.TempDir(), &made)
	if err := n.Rotator().Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := n.Rotator().Certificate()
	roots, err := f.folder.Trusted()
	if err != nil {
		t.Fatal(err)
	}
	n.Heard(&kubepb.HeartbeatResponse{})
	n.Heard(&kubepb.HeartbeatResponse{Authority: roots})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Rotator().Run(ctx) }()
	defer func() { cancel(); <-ended }()
	if _, err := f.folder.BeginRotation(pki.AuthorityRequest{CommonName: "next CA"}); err != nil {
		t.Fatal(err)
	}
	if roots, err = f.folder.Trusted(); err != nil {
		t.Fatal(err)
	}
	if n.Rotator().Certificate() != first {
		t.Error("renewed before anything was heard")
	}
	n.Heard(&kubepb.HeartbeatResponse{Authority: roots})
	limit := time.After(time.Minute)
	for n.Rotator().Certificate() == first {
		select {
		case <-limit:
			t.Fatal("not renewed")
		default:
			runtime.Gosched()
		}
	}
}

func TestTheNextServerIsAskedWhereOneDoesNotAnswer(t *testing.T) {
	f, other := newFixture(t), newFixture(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // Nobody answers there.
	made, _, err := f.tokens.Create(t.Context(), token.Request{Authority: f.ca.Hash()})
	if err != nil {
		t.Fatal(err)
	}
	n := f.node(t, t.TempDir(), &made, l.Addr().String(), other.address)
	for _, what := range []string{"the first", "the next"} {
		if err := n.Rotator().Renew(t.Context()); err != nil {
			t.Errorf("%s certificate: %v", what, err)
		}
	}
	if _, err := join.New(join.Config{FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), Dir: t.TempDir(), Node: "n1", Servers: []string{f.address, "nowhere"}}); !errors.Is(err, pki.ErrRequest) {
		t.Errorf("a server that is no address: %v", err)
	}
}

func TestAMachineWithoutAGoodTokenIsRefusedForGood(t *testing.T) {
	f, other := newFixture(t), newFixture(t)
	used, _, err := f.tokens.Create(t.Context(), token.Request{Authority: f.ca.Hash()})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.node(t, t.TempDir(), &used).Rotator().Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, made := range map[string]*token.Token{"used": &used, "none": nil} {
		if err := f.node(t, t.TempDir(), made).Rotator().Ready(t.Context()); !errors.Is(err, pki.ErrNotAllowed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	fresh, _, err := f.tokens.Create(t.Context(), token.Request{Authority: f.ca.Hash()})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.node(t, t.TempDir(), &fresh).Rotator().Renew(t.Context()); err == nil {
		t.Error("the token was shown to another cluster")
	}
	if all, err := f.tokens.List(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("%d tokens, %v", len(all), err)
	}
}
