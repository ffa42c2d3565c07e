package state_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/proto/codec"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// issuer makes certificates for a test.
type issuer struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t testing.TB) *issuer {
	i := &issuer{t: t}
	c := i.issue(pkix.Name{CommonName: "root"})
	i.cert, i.key = c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)
	return i
}

func (i *issuer) issue(subject pkix.Name) tls.Certificate {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	c := &x509.Certificate{
		SerialNumber: serial, Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IsCA: i.cert == nil, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	parent, by := i.cert, i.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		i.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		i.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// serve has a cluster's service listen, and returns how to connect as somebody.
func serve(t testing.TB, cluster *kubetest.Cluster) func(certificates ...tls.Certificate) *grpc.ClientConn {
	ca, l := newIssuer(t), listen(t)
	ca.serve(cluster.Service, l)
	return func(certificates ...tls.Certificate) *grpc.ClientConn {
		conn, err := ca.dial(l.Addr().String(), certificates...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	return listenAt(t, "127.0.0.1:0")
}

func listenAt(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (i *issuer) roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(i.cert)
	return roots
}

func (i *issuer) serve(s *state.Service, l net.Listener) *grpc.Server {
	g := state.NewServer(s, credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{i.issue(pkix.Name{CommonName: "server"})}, ClientCAs: i.roots(), ClientAuth: tls.VerifyClientCertIfGiven,
	}))
	go g.Serve(l)
	i.t.Cleanup(g.Stop)
	return g
}

// dial connects as somebody. Certificates without a key are to be issued.
func (i *issuer) dial(address string, certificates ...tls.Certificate) (*grpc.ClientConn, error) {
	for n := range certificates {
		if certificates[n].PrivateKey == nil {
			certificates[n] = i.issue(certificates[n].Leaf.Subject)
		}
	}
	return grpc.NewClient(address,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: i.roots(), ServerName: "localhost", Certificates: certificates})),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec.New())))
}

func subject(name string, groups ...string) tls.Certificate {
	return tls.Certificate{Leaf: &x509.Certificate{Subject: pkix.Name{CommonName: name, Organization: groups}}}
}

func TestOverTheNetworkTheCertificateSaysWhoCalls(t *testing.T) {
	cluster := twoNodes(t)
	connect := serve(t, cluster)
	ann := objects.New(connect(subject("ann", "admin")), "holdfastctl")
	if _, err := objects.Get[*corev1.Secret](t.Context(), ann, "default", "secret-a"); err != nil {
		t.Error(err)
	}
	viewer := objects.New(connect(subject("vic", "view")), "holdfastctl")
	if _, err := objects.Get[*corev1.Secret](t.Context(), viewer, "default", "secret-a"); !errors.Is(err, objects.ErrDenied) {
		t.Errorf("view reads a secret: %v", err)
	}
	editor := objects.New(connect(subject("ed", "edit:shop")), "holdfastctl")
	if _, err := objects.Create(t.Context(), editor, podOf("p", "1")); !errors.Is(err, objects.ErrDenied) {
		t.Errorf("an editor of another namespace makes a pod: %v", err)
	}
	node := objects.New(connect(subject("system:node:node-a", auth.NodesGroup)), "kubelet")
	if _, err := objects.Get[*corev1.Secret](t.Context(), node, "default", "secret-a"); err != nil {
		t.Error(err)
	}
	pretender := objects.New(connect(subject("system:node:node-a")), "kubelet") // A user called like a node.
	if _, err := objects.Get[*corev1.Secret](t.Context(), pretender, "default", "secret-a"); !errors.Is(err, objects.ErrDenied) {
		t.Errorf("a user called like a node: %v", err)
	}
	nobody := kubepb.NewClusterStateClient(connect())
	if _, err := nobody.List(t.Context(), &kubepb.ListRequest{Kind: "Pod"}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a certificate: %v", err)
	}
	if _, err := nobody.Bootstrap(t.Context(), &kubepb.BootstrapRequest{Token: "a", Node: "n", Csr: []byte("c")}); status.Code(err) != codes.Unimplemented {
		t.Errorf("bootstrap where nobody signs: %v", err)
	}
}

func TestAWatchOverTheNetworkTellsTheSame(t *testing.T) {
	cluster, c := admin(t)
	create(t, c, podOf("before", "1"))
	remote := objects.New(serve(t, cluster)(subject("ann", "admin")), "test")
	i := objects.NewInformer[*corev1.Pod](remote, objects.ListOptions{}, hclog.NewNullLogger())
	told := make(chan string, 10)
	i.OnChange(func(old, new *corev1.Pod) {
		if new == nil {
			told <- "deleted " + old.Name
		} else {
			told <- new.Name + "@" + new.ResourceVersion
		}
	})
	go i.Run(t.Context())
	if err := i.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := create(t, c, podOf("p", "1"))
	if err := objects.Delete[*corev1.Pod](t.Context(), c, "default", "p"); err != nil {
		t.Fatal(err)
	}
	<-told
	if got := <-told; got != "p@"+p.ResourceVersion {
		t.Errorf("told %s, made at %s", got, p.ResourceVersion)
	}
	if got := <-told; got != "deleted p" {
		t.Errorf("told %s", got)
	}
	// JSON, for people: the resource version is in it.
	m, err := remote.RPC().Get(t.Context(), &kubepb.GetRequest{Object: &kubepb.Ref{Kind: "Pod", Namespace: "default", Name: "before"}, Encoding: kubepb.Encoding_JSON})
	if err != nil || !jsonHas(m.Raw, "resourceVersion") {
		t.Errorf("%s, %v", m.GetRaw(), err)
	}
}
