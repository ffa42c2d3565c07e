package server_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/proto/codec"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/server"
)

// logIn is a client of a user.
func (g *guarded) logIn(user, password string) *client.Client {
	g.t.Helper()
	c, err := client.New(client.Config{Endpoints: g.ClientURLs(), User: user, Password: password, Logger: hclog.NewNullLogger()})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	return c
}

func TestAClientFetchesAnotherTokenWhenItsOwnIsVoid(t *testing.T) {
	g := newGuarded(t, 1, nil)
	alice, boss := g.logIn("alice", "wonder"), g.logIn("root", "secret")
	w := alice.Watch(t.Context(), client.Watch{Range: client.Between("a", "b"), Created: true})
	if _, ok := <-w.Reports(); !ok {
		t.Fatal(w.Err())
	}
	lease, err := alice.Grant(t.Context(), 100, 0)
	if err != nil {
		t.Fatal(err)
	}
	k := alice.KeepAlive(t.Context(), lease.ID)
	if _, ok := <-k.Renewals(); !ok {
		t.Fatal(k.Err())
	}
	k.Stop()
	for i := range 2 { // All tokens end with this.
		succeed(t)(boss.AuthDisable(t.Context()))
		succeed(t)(boss.AuthEnable(t.Context()))
		if i > 0 { // Whichever call is the first.
			succeed(t)(alice.GetStream(t.Context(), client.Get{Range: client.One("a1")}, func([]*mvccpb.KeyValue) error { return nil }))
		}
		succeed(t)(alice.Put(t.Context(), client.Put{Key: "a1"}))
		if r, ok := <-w.Reports(); !ok || string(r.Events[0].Kv.Key) != "a1" {
			t.Fatal(r, w.Err())
		}
		succeed(t)(alice.KeepAliveOnce(t.Context(), lease.ID))
	}
	succeed(t)(boss.UserPassword(t.Context(), "alice", "other"))
	if _, err := alice.Get(t.Context(), client.Get{Range: client.One("a1")}); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "invalid user ID or password") {
		t.Errorf("with a password that is not right any more: %v", err)
	}
	if _, err := g.logIn("mallory", "guess").Put(t.Context(), client.Put{Key: "a1"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("without permission: %v", err)
	}
	w2 := g.logIn("mallory", "guess").Watch(t.Context(), client.Watch{Range: client.One("a1")})
	if _, ok := <-w2.Reports(); ok || w2.Err() != client.ErrPermissionDenied {
		t.Errorf("a watch without permission: %v", w2.Err())
	}
}

// withCertificates is a cluster that wants client certificates.
func withCertificates(t *testing.T) (*guarded, func(name string, meta ...string) (*grpc.ClientConn, context.Context), func(name string) *tls.Config) {
	store := pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: t.TempDir()}
	ca, caFiles, err := store.CreateAuthority(pki.AuthorityRequest{CommonName: "ca"})
	if err != nil {
		t.Fatal(err)
	}
	issue := func(name string, r pki.Request) *pki.Written {
		w, err := store.Issue(ca, name, r)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	own := issue("server", pki.Request{Profile: pki.Server, CommonName: "m0", Hosts: []string{"127.0.0.1"}})
	g := newGuarded(t, 1, func(_ int, c *server.Config) {
		c.ClientTLS = server.TLS{CertFile: own.Cert, KeyFile: own.Key, CAFile: caFiles.Cert, ClientCertAuth: true}
		c.ListenClientURLs[0] = strings.Replace(c.ListenClientURLs[0], "http://", "https://", 1)
		c.AdvertiseClientURLs = c.ListenClientURLs
	})
	issued := 0
	shows := func(name string) *tls.Config {
		issued++
		files := issue(fmt.Sprint("client-", issued), pki.Request{Profile: pki.Client, CommonName: name})
		r, err := pki.NewReloader(pki.Config{FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), Files: pki.Files{Cert: files.Cert, Key: files.Key, CA: caFiles.Cert}})
		if err != nil {
			t.Fatal(err)
		}
		return r.ClientConfig("")
	}
	return g, func(name string, meta ...string) (*grpc.ClientConn, context.Context) {
		conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(g.ClientURLs()[0], "https://"),
			grpc.WithTransportCredentials(credentials.NewTLS(shows(name))), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec.New())))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn, metadata.AppendToOutgoingContext(t.Context(), meta...)
	}, shows
}

// JSON does not act as the user of a certificate, and does not pretend to.
func TestJSONIsRefusedToWhomeverACertificateNames(t *testing.T) {
	g, _, shows := withCertificates(t)
	token, _ := metadata.FromOutgoingContext(g.as("root", "secret"))
	transport := &http.Transport{TLSClientConfig: shows("alice")}
	defer transport.CloseIdleConnections()
	for path, want := range map[string]int{"/v3/kv/range": http.StatusBadRequest, "/version": http.StatusOK} {
		method := http.MethodPost
		if want == http.StatusOK { // Pages are nobody's business.
			method = http.MethodGet
		}
		req, err := http.NewRequestWithContext(t.Context(), method, g.ClientURLs()[0]+path, strings.NewReader(`{"key":"YTE="}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", token["token"][0])
		res, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err := errors.Join(err, res.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != want {
			t.Errorf("%s with a certificate: %s %s", path, res.Status, body)
		}
	}
}

func TestTheNameInACertificateIsTheUser(t *testing.T) {
	g, as, _ := withCertificates(t)
	boss := g.as("root", "secret")
	token, _ := metadata.FromOutgoingContext(boss)
	for _, c := range []struct {
		name string
		meta []string
		key  string
		want codes.Code
	}{
		{"alice", nil, "a1", codes.OK}, {"alice", nil, "secret", codes.PermissionDenied}, {"stranger", nil, "a1", codes.PermissionDenied},
		{"alice", []string{"token", token["token"][0]}, "secret", codes.OK},                     // A token goes before the certificate.
		{"alice", []string{"authorization", "Bearer " + token["token"][0]}, "secret", codes.OK}, // In the other place, too.
		{"alice", []string{"token", "x"}, "a1", codes.Unauthenticated},
		{"alice", []string{"grpcgateway-accept", "*/*"}, "a1", codes.InvalidArgument}, // The certificate of a gateway is nobody's.
	} {
		conn, ctx := as(c.name, c.meta...)
		_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte(c.key)})
		if status.Code(err) != c.want {
			t.Errorf("%s %q reads %s: %v, want %v", c.name, c.meta, c.key, err, c.want)
		}
	}
}

func TestOneWhoIsSlowToShakeHandsHoldsUpNobody(t *testing.T) {
	g, as, _ := withCertificates(t)
	for range 40 { // One after the other they would take 200 s: five are what the door gives a handshake.
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.ClientURLs()[0], "https://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte{0x16, 3, 1, 2, 0}); err != nil { // The head of a first flight that never comes.
			t.Fatal(err)
		}
	}
	conn, ctx := as("alice")
	ctx, cancel := context.WithTimeout(ctx, readyMax)
	defer cancel()
	if _, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("a1")}); err != nil {
		t.Error(err)
	}
}
