package client_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/test/bufconn"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/leak"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// selfSigned is a certificate for a name, good for both sides of a connection.
func selfSigned(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

type statusOnly struct {
	pb.UnimplementedMaintenanceServer
}

func (statusOnly) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return &pb.StatusResponse{Version: "secret"}, nil
}

func TestBothSidesShowCertificatesForTheEndpointsName(t *testing.T) {
	leak.Check(t)
	cert, pool := selfSigned(t, "member.example")
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	})))
	pb.RegisterMaintenanceServer(server, statusOnly{})
	served := make(chan error)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		server.Stop()
		<-served
	}()

	for _, c := range []struct {
		endpoint string
		tls      *tls.Config
		fails    string
	}{
		{endpoint: "https://member.example:1", tls: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}},
		{endpoint: "member.example:1", tls: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}},
		{
			endpoint: "https://other.example:1", tls: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}},
			fails: "not other.example",
		},
		{endpoint: "https://member.example:1", tls: &tls.Config{Certificates: []tls.Certificate{cert}}, fails: "unknown authority"},
		{endpoint: "https://member.example:1", tls: &tls.Config{RootCAs: pool}, fails: "latest balancer error"},
	} {
		ctx, cancel := context.WithCancel(within(t))
		defer cancel()
		var dials atomic.Int64
		cl, err := client.New(client.Config{
			Endpoints: []string{c.endpoint}, TLS: c.tls, Logger: hclog.NewNullLogger(),
			Dial: func(ctx context.Context, _ string) (net.Conn, error) {
				if dials.Add(1) == 3 { // Two attempts have failed, and the call knows why.
					cancel()
				}
				return listener.DialContext(ctx)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		s, err := cl.Status(ctx)
		switch {
		case c.fails == "" && (err != nil || s.Version != "secret"):
			t.Errorf("%s: %v, %v", c.endpoint, s, err)
		case c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)):
			t.Errorf("%s: got %v, want an error with %q", c.endpoint, err, c.fails)
		}
		if err := cl.Close(); err != nil {
			t.Error(err)
		}
	}
}
