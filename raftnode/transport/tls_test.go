package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/leak"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert, key, pool}
}

// config is a member's TLS for both directions.
func (a *authority) config(t testing.TB, hosts ...string) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: hosts[0]}, DNSNames: hosts, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		RootCAs:      a.pool, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}
}

func always(c *tls.Config) func() *tls.Config { return func() *tls.Config { return c } }

func TestPeersSpeakMutualTLS(t *testing.T) {
	leak.Check(t)
	ca, other := newAuthority(t), newAuthority(t)
	net := newNetwork()
	start := func(id ident.MemberID, conf *tls.Config) *node {
		n := newNode(t, net, id, "https", conf, func(cfg *Config) { cfg.TLS = always(conf) })
		n.transport.Start(n)
		return n
	}
	a := start(1, ca.config(t, "m1"))
	b := start(2, ca.config(t, "m2"))
	a.transport.SetPeers(peersOf("https", 1, 2))
	b.transport.SetPeers(peersOf("https", 1, 2))
	a.awaitLink(2)
	a.transport.Send(2, raftFrame(heartbeat(1, 2)))
	receive(t, "heartbeat", b.frames)

	stranger := start(3, other.config(t, "m3"))
	if _, err := FetchRoster(t.Context(), RosterConfig{TLS: stranger.transport.cfg.TLS, Dial: net.dial}, "https://"+address(1)); err == nil {
		t.Error("a stranger's certificate was accepted")
	}
	if _, err := FetchRoster(t.Context(), RosterConfig{TLS: always(ca.config(t, "x")), Dial: net.dial}, "https://"+address(1)); err != nil {
		t.Error(err)
	}
	if _, err := FetchRoster(t.Context(), RosterConfig{Dial: net.dial}, "https://"+address(1)); !errors.Is(err, ErrUnreachable) {
		t.Errorf("https without certificates: %v", err)
	}
}

func TestPlainHTTPIsServedOnTheSamePort(t *testing.T) {
	leak.Check(t)
	ca := newAuthority(t)
	for _, scheme := range []string{"http", "https"} {
		memory := newNetwork()
		var server *tls.Config
		if scheme == "https" {
			server = ca.config(t, "m1")
		}
		a := newNode(t, memory, 1, scheme, server, func(cfg *Config) {
			cfg.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path, " ", r.Proto) })
		})
		transport := &http.Transport{
			DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return memory.dial(ctx, addr) },
			TLSClientConfig:   ca.config(t, "operator"),
			ForceAttemptHTTP2: true, // As curl does.
		}
		u := url.URL{Scheme: scheme, Host: address(1), Path: "/version"}
		resp, err := (&http.Client{Transport: transport}).Get(u.String())
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		transport.CloseIdleConnections()
		if want := map[string]string{"http": "/version HTTP/1.1", "https": "/version HTTP/2.0"}[scheme]; string(body) != want {
			t.Errorf("%s: %q", scheme, body)
		}
		clientTLS := ca.config(t, "x")
		if r, err := FetchRoster(t.Context(), RosterConfig{TLS: always(clientTLS), Dial: memory.dial}, scheme+"://"+address(1)); err != nil || r.Answerer != 1 {
			t.Errorf("%s: roster %+v, %v", scheme, r, err)
		}
		a.transport.Close()
	}
}
