package pki_test

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	iofs "io/fs"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/pki"
)

// fixture is a folder of certificates in memory.
type fixture struct {
	t     *testing.T
	clock *clocktest.Fake
	store pki.Store
	ca    *pki.Authority
	log   *strings.Builder
}

func newFixture(t *testing.T, key pki.KeyType) *fixture {
	f := &fixture{t: t, clock: clocktest.New(), log: &strings.Builder{}}
	f.store = pki.Store{FS: vfstest.NewMem(), Clock: f.clock, Dir: "certs"}
	ca, _, err := f.store.CreateAuthority(pki.AuthorityRequest{CommonName: "test CA", Key: key})
	f.ok(err)
	f.ca = ca
	return f
}

func (f *fixture) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) issue(req pki.Request) *pki.Written {
	f.t.Helper()
	w, err := f.store.Issue(f.ca, "", req)
	f.ok(err)
	return w
}

func (f *fixture) reloader(files pki.Files) (*pki.Reloader, error) {
	logger := hclog.New(&hclog.LoggerOptions{Output: f.log})
	return pki.NewReloader(pki.Config{FS: f.store.FS, Clock: f.clock, Logger: logger, Files: files})
}

func (f *fixture) mustReload(files pki.Files) *pki.Reloader {
	f.t.Helper()
	r, err := f.reloader(files)
	f.ok(err)
	return r
}

func (f *fixture) mustPolicy(files pki.Files, p pki.Policy) *pki.Reloader {
	f.t.Helper()
	r, err := pki.NewReloader(pki.Config{FS: f.store.FS, Clock: f.clock, Logger: hclog.New(&hclog.LoggerOptions{Output: f.log}), Files: files, Policy: p})
	f.ok(err)
	return r
}

func parse(t *testing.T, pair *pki.Pair) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(pair.Cert)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

var (
	server = pki.Request{Profile: pki.Server, CommonName: "server", Hosts: []string{"127.0.0.1", "::1", "localhost", "*.store.example"}}
	peer   = pki.Request{Profile: pki.Peer, CommonName: "peer", Hosts: []string{"10.0.0.1"}}
	client = pki.Request{Profile: pki.Client, CommonName: "alice", Organizations: []string{"ops"}}
)

func TestEachProfileIsGoodForItsUseAndNoOther(t *testing.T) {
	for _, key := range []pki.KeyType{pki.ECDSA, pki.RSA} {
		f := newFixture(t, key)
		roots := x509.NewCertPool()
		caPEM, err := vfs.ReadFile(f.store.FS, "certs/ca.pem")
		f.ok(err)
		roots.AppendCertsFromPEM(caPEM)
		for _, c := range []struct {
			req            pki.Request
			server, client bool
		}{{server, true, false}, {peer, true, true}, {client, false, true}} {
			c.req.Key = key
			cert := parse(t, f.issue(c.req).Pair)
			good := func(use x509.ExtKeyUsage) bool {
				_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: f.clock.Wall(), KeyUsages: []x509.ExtKeyUsage{use}})
				return err == nil
			}
			if good(x509.ExtKeyUsageServerAuth) != c.server || good(x509.ExtKeyUsageClientAuth) != c.client {
				t.Errorf("%s %s: server %v, client %v", key, c.req.Profile, good(x509.ExtKeyUsageServerAuth), good(x509.ExtKeyUsageClientAuth))
			}
			switch cert.PublicKey.(type) {
			case *ecdsa.PublicKey:
				if key != pki.ECDSA {
					t.Error("an ECDSA key was made")
				}
			case *rsa.PublicKey:
				if key != pki.RSA {
					t.Error("an RSA key was made")
				}
			}
			if years := cert.NotAfter.Sub(f.clock.Wall()); years != 43800*time.Hour {
				t.Errorf("%s is valid for %v", c.req.Profile, years)
			}
		}
		cert := parse(t, &pki.Pair{Cert: must(vfs.ReadFile(f.store.FS, "certs/server.pem"))})
		if !slices.Equal(cert.DNSNames, []string{"localhost", "*.store.example"}) || len(cert.IPAddresses) != 2 {
			t.Errorf("names are %v %v", cert.DNSNames, cert.IPAddresses)
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestBadRequestsAreRefusedWithTheirReason(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	for _, c := range []struct {
		name string
		edit func(r *pki.Request)
		want string
	}{
		{"", func(r *pki.Request) { r.Profile = "admin" }, `profile "admin"`},
		{"", func(r *pki.Request) { r.Key = "dsa" }, `key type "dsa"`},
		{"", func(r *pki.Request) { r.CommonName = " " }, "needs a common name"},
		{"", func(r *pki.Request) { r.Hosts = nil }, "needs the IP addresses"},
		{"", func(r *pki.Request) { r.Hosts = []string{"https://a:2379"} }, "without scheme and port"},
		{"", func(r *pki.Request) { r.Hosts = []string{"a..b"} }, `host "a..b"`},
		{"", func(r *pki.Request) { r.Hosts = []string{""} }, `host ""`},
		{"", func(r *pki.Request) { r.Validity = -1 }, "negative"},
		{"", func(r *pki.Request) { r.Validity = 90000 * time.Hour }, "renew the authority"},
		{"../x", func(*pki.Request) {}, "cannot name"},
		{"ca", func(*pki.Request) {}, "cannot name"},
	} {
		req := server
		c.edit(&req)
		if _, err := f.store.Issue(f.ca, c.name, req); !errors.Is(err, pki.ErrRequest) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q, got %v", c.want, err)
		}
	}
	if _, _, err := (pki.Store{FS: f.store.FS, Clock: f.clock, Dir: "other"}).CreateAuthority(pki.AuthorityRequest{}); !errors.Is(err, pki.ErrRequest) {
		t.Errorf("authority without a name: %v", err)
	}
}

func TestNothingIsOverwrittenUnasked(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	old := f.issue(client).Pair
	if _, err := f.store.Issue(f.ca, "", client); !errors.Is(err, pki.ErrExists) || !strings.Contains(err.Error(), "certs/client.pem") {
		t.Errorf("got %v", err)
	}
	if _, _, err := f.store.CreateAuthority(pki.AuthorityRequest{CommonName: "x"}); !errors.Is(err, pki.ErrExists) {
		t.Errorf("got %v", err)
	}
	f.store.Replace = true
	w := f.issue(client)
	if len(w.Aside) != 2 {
		t.Fatalf("kept aside: %q", w.Aside)
	}
	kept, err := vfs.ReadFile(f.store.FS, w.Aside[0])
	f.ok(err)
	if string(kept) != string(old.Cert) || w.Aside[0] != "certs/client.pem.old-20300101T000000.000000000Z" {
		t.Errorf("%s is not the old certificate", w.Aside[0])
	}
}

func TestFilesThatCannotServeAreRefusedByName(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	f.issue(server)
	f.issue(client)
	f.ok(vfs.ReplaceFile(f.store.FS, "certs/junk.pem", []byte("junk")))
	good := f.store.Files("server")
	for _, c := range []struct {
		name  string
		edit  func(files *pki.Files)
		later time.Duration
		is    error
		want  string
	}{
		{"missing", func(x *pki.Files) { x.Cert = "certs/none.pem" }, 0, iofs.ErrNotExist, "certs/none.pem"},
		{"junk certificate", func(x *pki.Files) { x.Cert = "certs/junk.pem" }, 0, pki.ErrNotPEM, "certs/junk.pem"},
		{"junk key", func(x *pki.Files) { x.Key = "certs/junk.pem" }, 0, pki.ErrNotPEM, "certs/junk.pem"},
		{"junk CA", func(x *pki.Files) { x.CA = "certs/junk.pem" }, 0, pki.ErrNotPEM, "certs/junk.pem"},
		{"folder", func(x *pki.Files) { x.CA = "certs" }, 0, pki.ErrNotPEM, "folder"},
		{"certificate as key", func(x *pki.Files) { x.Key = x.Cert }, 0, pki.ErrNotPEM, "key file"},
		{"another's key", func(x *pki.Files) { x.Key = "certs/client-key.pem" }, 0, pki.ErrKeyMismatch, "certs/client-key.pem"},
		{"only a certificate", func(x *pki.Files) { x.Key = "" }, 0, pki.ErrFiles, "together"},
		{"too old", func(*pki.Files) {}, 43801 * time.Hour, pki.ErrExpired, "certs/server.pem"},
		{"too young", func(*pki.Files) {}, -time.Hour, pki.ErrNotYetValid, "clock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := f.clock.Wall()
			defer f.clock.SetWall(now)
			f.clock.SetWall(now.Add(c.later))
			files := good
			c.edit(&files)
			if _, err := f.reloader(files); !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := f.store.Authority(); err != nil {
		t.Error(err)
	}
	f.clock.Advance(43801 * time.Hour)
	if _, err := f.store.Authority(); !errors.Is(err, pki.ErrExpired) {
		t.Errorf("expired authority: %v", err)
	}
}

func TestAServerCertificateIsNoAuthority(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	f.issue(server)
	f.ok(f.store.FS.Rename("certs/server.pem", "certs/ca.pem"))
	f.ok(f.store.FS.Rename("certs/server-key.pem", "certs/ca-key.pem"))
	if _, err := f.store.Authority(); !errors.Is(err, pki.ErrNotAuthority) || !strings.Contains(err.Error(), "certs/ca.pem") {
		t.Errorf("got %v", err)
	}
}

// shake connects the two sides and returns the server's certificate as the
// client saw it.
// connection is both ends of a connection on loopback.
func connection(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if b, err = net.Dial("tcp", l.Addr().String()); err == nil {
		a, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func shake(t *testing.T, serverConfig, clientConfig *tls.Config) (*x509.Certificate, error) {
	t.Helper()
	a, b := connection(t) // Not a net.Pipe: who refuses and who is refused may both be writing.
	defer a.Close()
	defer b.Close()
	served := make(chan error, 1)
	go func() {
		s := tls.Server(a, serverConfig)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		a.Close()
		served <- err
	}()
	c := tls.Client(b, clientConfig)
	_, err := c.Read(make([]byte, 1)) // Under TLS 1.3 a refusal shows only here.
	b.Close()
	if err := errors.Join(<-served, err); err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0], nil
}

func TestBothSidesProveThemselves(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	f.issue(server)
	f.issue(client)
	other := newFixture(t, pki.ECDSA)
	other.issue(client)
	config, err := f.mustReload(f.store.Files("server")).ServerConfig(pki.ServerOptions{ClientAuth: true})
	f.ok(err)
	for _, c := range []struct {
		name   string
		client *tls.Config
		good   bool
	}{
		{"right", f.mustReload(f.store.Files("client")).ClientConfig("127.0.0.1"), true},
		{"by name", f.mustReload(f.store.Files("client")).ClientConfig("a.store.example"), true},
		{"wrong name", f.mustReload(f.store.Files("client")).ClientConfig("10.0.0.1"), false},
		{"no client certificate", f.mustReload(pki.Files{CA: "certs/ca.pem"}).ClientConfig("localhost"), false},
		{"a server's certificate", f.mustReload(f.store.Files("server")).ClientConfig("localhost"), false},
		{"another authority", other.mustReload(other.store.Files("client")).ClientConfig("localhost"), false},
	} {
		if _, err := shake(t, config, c.client); (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestOptionsThatCannotBeKeptAreRefused(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	f.issue(server)
	files := f.store.Files("server")
	files.CA = ""
	r := f.mustReload(files)
	if _, err := r.ServerConfig(pki.ServerOptions{ClientAuth: true}); !errors.Is(err, pki.ErrFiles) {
		t.Errorf("client certificates without an authority: %v", err)
	}
	if _, err := f.mustReload(pki.Files{CA: "certs/ca.pem"}).ServerConfig(pki.ServerOptions{}); !errors.Is(err, pki.ErrFiles) {
		t.Errorf("a server without a certificate: %v", err)
	}
	config, err := f.mustPolicy(files, pki.Policy{MinVersion: tls.VersionTLS13}).ServerConfig(pki.ServerOptions{})
	f.ok(err)
	old := f.mustReload(pki.Files{CA: "certs/ca.pem"}).ClientConfig("localhost")
	if _, err := shake(t, config, old); err != nil {
		t.Errorf("without client certificates: %v", err)
	}
	old.MaxVersion = tls.VersionTLS12
	if _, err := shake(t, config, old); err == nil {
		t.Error("TLS 1.2 was taken")
	}
}

func TestCertificatesAreReloadedWithoutARestart(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	first := parse(t, f.issue(server).Pair)
	f.issue(client)
	f.store.Replace = true
	config, err := f.mustReload(f.store.Files("server")).ServerConfig(pki.ServerOptions{ClientAuth: true})
	f.ok(err)
	c := f.mustReload(f.store.Files("client"))
	want := func(step string, cert *x509.Certificate) {
		t.Helper()
		got, err := shake(t, config, c.ClientConfig("localhost"))
		if err != nil || !got.Equal(cert) {
			t.Fatalf("%s: %v, another certificate than expected", step, err)
		}
	}
	want("at first", first)

	second := parse(t, f.issue(server).Pair)
	want("within the second", first)
	f.clock.Advance(time.Second)
	want("after a second", second)

	// Half a pair, as between two writes: the old one goes on, and one line says why.
	key, err := vfs.ReadFile(f.store.FS, "certs/server-key.pem")
	f.ok(err)
	f.ok(vfs.ReplaceFile(f.store.FS, "certs/server-key.pem", must(vfs.ReadFile(f.store.FS, "certs/client-key.pem"))))
	for range 3 {
		f.clock.Advance(time.Second)
		want("half a pair", second)
	}
	if n := strings.Count(f.log.String(), "does not belong"); n != 1 {
		t.Errorf("%d lines of complaint in\n%s", n, f.log)
	}
	f.ok(vfs.ReplaceFile(f.store.FS, "certs/server-key.pem", key))

	// A new authority: clients of the old one are refused at once.
	oldClient := c.ClientConfig("localhost")
	ca, _, err := f.store.CreateAuthority(pki.AuthorityRequest{CommonName: "new CA"})
	f.ok(err)
	f.ca = ca
	third := parse(t, f.issue(server).Pair)
	oldCert := c.Certificate()
	oldClient.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return oldCert, nil }
	f.issue(client)
	f.clock.Advance(time.Second)
	if _, err := shake(t, config, oldClient); err == nil {
		t.Error("a client of the old authority was let in")
	}
	want("with the new authority", third)
}

func TestWarnsOfExpiryAndOfOpenKeys(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	req := client
	req.Validity = 29 * 24 * time.Hour
	f.issue(req)
	f.store.FS = openKeys{f.store.FS}
	f.mustReload(f.store.Files("client"))
	for _, want := range []string{"certificate expires soon", "certs/client.pem", "private key can be read by others", "-rw-r--r--"} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("no %q in\n%s", want, f.log)
		}
	}
}

// TestAProcessThatRunsForYearsIsWarnedOfExpiryInTime: once a day from thirty days before.
func TestAProcessThatRunsForYearsIsWarnedOfExpiryInTime(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	req := client
	req.Validity = 100 * 24 * time.Hour
	f.issue(req)
	r := f.mustReload(f.store.Files("client"))
	warnings := func() int { return strings.Count(f.log.String(), "certificate expires soon") }
	look := func(d time.Duration, want int) {
		t.Helper()
		f.clock.Advance(d)
		for range 3 { // However many connect.
			r.Certificate()
			f.clock.Advance(time.Minute)
		}
		if n := warnings(); n != want {
			t.Errorf("%d warnings, want %d:\n%s", n, want, f.log)
		}
	}
	look(60*24*time.Hour, 0)
	look(15*24*time.Hour, 1)
	look(time.Hour, 1)
	look(24*time.Hour, 2)
}

// openKeys is a file system where everybody may read.
type openKeys struct{ vfs.FS }

func (o openKeys) Stat(name string) (vfs.Info, error) {
	info, err := o.FS.Stat(name)
	info.Mode = 0o644
	return info, err
}

func TestACrashWhileIssuingLeavesTheOldPairAside(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	old := f.issue(client)
	mem := f.store.FS.(*vfstest.Mem)
	f.store.Replace = true
	mem.Inject(func(op vfstest.Op) error {
		crashed := mem.Crash(vfstest.Crash{})
		cert, key := must(vfs.ReadFile(crashed, old.Cert)), must(vfs.ReadFile(crashed, old.Key))
		if _, err := tls.X509KeyPair(cert, key); err == nil {
			return nil
		}
		names, err := crashed.List("certs")
		if err != nil || !slices.Contains(names, "client.pem.old-20300101T000000.000000000Z") || !slices.Contains(names, "client-key.pem.old-20300101T000000.000000000Z") {
			t.Errorf("crash before %v: half a pair, and only %q", op, names)
		}
		return nil
	})
	f.issue(client)
}
