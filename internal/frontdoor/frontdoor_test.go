package frontdoor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/leak"
)

// secure is a configuration with a certificate that nobody checks.
func secure(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.Clone(), nil }
	return c
}

// open is a door on a port of loopback.
func open(t *testing.T, looking int, p Port) (*Door, string) {
	t.Helper()
	leak.Check(t)
	d := New(Config{Name: "test", Logger: hclog.NewNullLogger(), Clock: clock.Real(), Looking: looking, Timeout: time.Minute})
	t.Cleanup(func() { d.Close() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.Listener = l
	d.Listen(p)
	return d, l.Addr().String()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// A class of etcd's advisories: who holds handshakes open keeps others out.
func TestASilentConnectionHoldsNoSlot(t *testing.T) {
	d, address := open(t, 2, Port{TLS: secure(t)})
	for range 5 { // More than may be looked at; their time is not over before the test is.
		dial(t, address)
	}
	shaken := make(chan error, 1)
	go func() {
		conn := tls.Client(dial(t, address), &tls.Config{InsecureSkipVerify: true})
		shaken <- conn.Handshake()
	}()
	conn, err := d.HTTP().Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
}

func TestAPortMayTakeTLSAndCleartext(t *testing.T) {
	for name, c := range map[string]struct {
		port      Port
		protocols []string // Nil: cleartext.
		begin     string   // What is sent.
		want      Kind     // "": the connection is closed.
	}{
		"both, TLS":             {Port{TLS: secure(t), Cleartext: true}, []string{"http/1.1"}, "GET / HTTP/1.1", HTTP},
		"both, TLS, gRPC":       {Port{TLS: secure(t), Cleartext: true}, []string{"h2"}, "PRI * HTTP/2.0", GRPC},
		"TLS, HTTP/2 or 1.1":    {Port{TLS: secure(t)}, []string{"h2", "http/1.1"}, "PRI * HTTP/2.0", HTTP},
		"both, cleartext":       {Port{TLS: secure(t), Cleartext: true}, nil, "GET / HTTP/1.1", HTTP},
		"both, cleartext, gRPC": {Port{TLS: secure(t), Cleartext: true}, nil, "PRI * HTTP/2.0", GRPC},
		"TLS, cleartext":        {Port{TLS: secure(t)}, nil, "GET / HTTP/1.1", ""},
		"cleartext":             {Port{}, nil, "GET / HTTP/1.1", HTTP},
		"gRPC alone":            {Port{Only: GRPC}, nil, "GET / HTTP/1.1", ""},
		"gRPC alone, gRPC":      {Port{Only: GRPC}, nil, "PRI * HTTP/2.0", GRPC},
		"HTTP alone":            {Port{Only: HTTP}, nil, "GET / HTTP/1.1", HTTP},
		"HTTP alone, gRPC":      {Port{Only: HTTP}, nil, "PRI * HTTP/2.0", ""},
		"HTTP alone, TLS, h2":   {Port{Only: HTTP, TLS: secure(t)}, []string{"h2"}, "PRI * HTTP/2.0", HTTP},
		"gRPC alone, TLS, both": {Port{Only: GRPC, TLS: secure(t)}, []string{"h2", "http/1.1"}, "PRI * HTTP/2.0", GRPC},
		"gRPC alone, TLS":       {Port{Only: GRPC, TLS: secure(t)}, []string{"http/1.1"}, "GET / HTTP/1.1", ""},
	} {
		d, address := open(t, 8, c.port)
		got := make(chan Kind, 2)
		read := func(l net.Listener, kind Kind) {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			text := make([]byte, len(c.begin))
			if _, err := io.ReadFull(conn, text); err != nil || string(text) != c.begin {
				t.Errorf("%s: read %q, %v", name, text, err)
			}
			got <- kind
		}
		go read(d.GRPC(), GRPC)
		go read(d.HTTP(), HTTP)
		conn := dial(t, address)
		if c.protocols != nil {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: c.protocols})
		}
		_, _ = conn.Write([]byte(c.begin)) // Refused handshakes fail here or below.
		if c.want != "" {
			if kind := <-got; kind != c.want {
				t.Errorf("%s: taken for %s, want %s", name, kind, c.want)
			}
		} else if n, err := io.Copy(io.Discard, conn); n > 16 { // An alert at most.
			t.Errorf("%s: read %d bytes, %v", name, n, err)
		}
		d.Close()
	}
}
