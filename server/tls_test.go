package server_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// authority is a folder with a certificate for members and two for clients.
type authority struct {
	t     *testing.T
	store pki.Store
	ca    *pki.Authority
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, store: pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: t.TempDir()}}
	var err error
	if a.ca, _, err = a.store.CreateAuthority(pki.AuthorityRequest{CommonName: "test"}); err != nil {
		t.Fatal(err)
	}
	a.issue("peer", pki.Request{Profile: pki.Peer, CommonName: "member", Hosts: []string{"127.0.0.1", "localhost"}})
	for _, who := range []string{"alice", "bob"} {
		a.issue(who, pki.Request{Profile: pki.Client, CommonName: who})
	}
	return a
}

func (a *authority) issue(name string, req pki.Request) {
	a.t.Helper()
	if _, err := a.store.Issue(a.ca, name, req); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) file(name string) string { return filepath.Join(a.store.Dir, name) }

func (a *authority) pair(name string) tls.Certificate {
	a.t.Helper()
	f := a.store.Files(name)
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

// revoke writes the list of the authority.
func (a *authority) revoke(names ...string) {
	a.t.Helper()
	ca := a.pair("ca")
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, name := range names {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: a.pair(name).Leaf.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, ca.Leaf, ca.PrivateKey.(crypto.Signer))
	if err == nil {
		err = vfs.ReplaceFile(vfs.OS(), a.file("crl"), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) tls() server.TLS {
	f := a.store.Files("peer")
	return server.TLS{CertFile: f.Cert, KeyFile: f.Key, CAFile: f.CA, ClientCertAuth: true, CRLFile: a.file("crl")}
}

// reaches tells whether who gets past the TLS of an address: under TLS 1.3 a
// refusal shows with the first read.
func (a *authority) reaches(who, address string) error {
	a.t.Helper()
	pool := x509.NewCertPool()
	text, err := os.ReadFile(a.store.Files("ca").Cert)
	if err != nil || !pool.AppendCertsFromPEM(text) {
		a.t.Fatal(err)
	}
	h := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{a.pair(who)}}}}
	r, err := h.Get("https://" + address + "/version")
	if err == nil {
		r.Body.Close()
	}
	return err
}

func host(raw string) string {
	u, _ := url.Parse(raw)
	return u.Host
}

func secured(raw string) string { return strings.Replace(raw, "http://", "https://", 1) }

// A class of etcd's advisories: the list was skipped on one listener.
func TestARevokedCertificateIsRefusedOnEveryListener(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	a := newAuthority(t)
	a.revoke("alice")
	c := servertest.New(t, 1, func(_ int, c *server.Config) {
		c.ClientTLS, c.PeerTLS = a.tls(), a.tls()
		c.ListenPeerURLs[0], c.ListenClientURLs[0] = secured(c.ListenPeerURLs[0]), secured(c.ListenClientURLs[0])
		c.InitialCluster = secured(c.InitialCluster)
		c.ListenClientHTTPURLs = []string{"https://" + servertest.Hold(t)}
		c.ListenMetricsURLs = []string{"https://" + servertest.Hold(t)}
	})
	cfg := c.Members[0].Config
	listeners := map[string]string{
		"peer": host(cfg.ListenPeerURLs[0]), "client HTTP": host(cfg.ListenClientHTTPURLs[0]), "metrics": host(cfg.ListenMetricsURLs[0]),
	}
	for name, address := range listeners {
		if err := a.reaches("bob", address); err != nil {
			t.Errorf("%s: bob: %v", name, err)
		}
		if a.reaches("alice", address) == nil {
			t.Errorf("%s: alice was let in", name)
		}
	}
	for who, good := range map[string]bool{"alice": false, "bob": true} {
		if err := a.put(who, cfg.ListenClientURLs[0]); (err == nil) != good {
			t.Errorf("client gRPC: %s: %v", who, err)
		}
	}
	a.revoke("alice", "bob") // No restart.
	listeners["client gRPC"] = ""
	for name, address := range listeners {
		for deadline := time.Now().Add(time.Minute); ; {
			err := error(nil)
			if address == "" {
				err = a.put("bob", cfg.ListenClientURLs[0])
			} else {
				err = a.reaches("bob", address)
			}
			if err != nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: bob is still let in", name)
			}
		}
	}
}

func (a *authority) put(who, endpoint string) error {
	a.t.Helper()
	return a.putWith(a.clientConfig(who), endpoint)
}

func (a *authority) clientConfig(who string) *tls.Config {
	a.t.Helper()
	r, err := pki.NewReloader(pki.Config{FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), Files: a.store.Files(who)})
	if err != nil {
		a.t.Fatal(err)
	}
	return r.ClientConfig("")
}

func (a *authority) plainPut(endpoint string) error { return a.putWith(nil, endpoint) }

// putWith fails at once where nobody takes the connection.
func (a *authority) putWith(secure *tls.Config, endpoint string) error {
	a.t.Helper()
	c, err := client.New(client.Config{Endpoints: []string{endpoint}, TLS: secure, Logger: hclog.NewNullLogger(), FailFast: true})
	if err != nil {
		a.t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(a.t.Context(), readyMax)
	defer cancel()
	_, err = c.Put(ctx, client.Put{Key: "k", Value: []byte("v")})
	return err
}

func TestCleartextAndTLSShareAPort(t *testing.T) {
	a := newAuthority(t)
	a.revoke()
	c := servertest.New(t, 1, func(_ int, c *server.Config) {
		c.ClientTLS = a.tls()
		c.ListenClientURLs = append(c.ListenClientURLs, secured(c.ListenClientURLs[0]))
	})
	urls := c.Members[0].Config.ListenClientURLs
	if err := a.put("bob", urls[1]); err != nil {
		t.Errorf("TLS: %v", err)
	}
	r, err := http.Get(urls[0] + "/version")
	if err != nil {
		t.Fatalf("cleartext: %v", err)
	}
	r.Body.Close()
	if err := a.reaches("bob", host(urls[0])); err != nil {
		t.Errorf("HTTP over TLS: %v", err)
	}
}

func TestMembersMakeTheirOwnCertificates(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	c := servertest.New(t, 3, func(_ int, c *server.Config) {
		c.ClientTLS.Auto, c.PeerTLS.Auto = true, true
		c.ListenPeerURLs[0], c.ListenClientURLs[0] = secured(c.ListenPeerURLs[0]), secured(c.ListenClientURLs[0])
		c.InitialCluster = strings.ReplaceAll(c.InitialCluster, "http://", "https://")
	})
	mustPut(t, dial(t, c.Members[0]), "k", "v")
	if got := mustGet(t, dial(t, c.Members[2]), "k"); got != "v" {
		t.Errorf("read %q", got)
	}
	made := filepath.Join(c.Members[0].Config.DataDir, "fixtures", "client", "cert.pem")
	r, err := pki.NewReloader(pki.Config{FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), Files: pki.Files{CA: made}})
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: r.ClientConfig("")}}
	resp, err := h.Get(c.Members[0].Config.ListenClientURLs[0] + "/version")
	if err != nil {
		t.Fatalf("who trusts the file: %v", err)
	}
	resp.Body.Close()
}

// A client that offers HTTP/1.1 beside HTTP/2 gets JSON, pages and gRPC over HTTP/2.
func TestWhoOffersBothVersionsOfHTTPGetsTheSecondForAll(t *testing.T) {
	a := newAuthority(t)
	a.revoke()
	c := servertest.New(t, 1, func(_ int, c *server.Config) {
		c.ClientTLS = a.tls()
		c.ListenClientURLs[0] = secured(c.ListenClientURLs[0])
	})
	secure := a.clientConfig("bob")
	transport := &http.Transport{TLSClientConfig: secure, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	call := func(path, body string) (line string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), readyMax)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Members[0].Config.ListenClientURLs[0]+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.ProtoMajor != 2 || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %s", path, res.Proto, res.Status)
		}
		if line, err = bufio.NewReader(res.Body).ReadString('\n'); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		return line
	}
	if line := call("/v3/kv/put", `{"key":"aw==","value":"dg=="}`); !strings.Contains(line, "revision") {
		t.Errorf("put: %s", line)
	}
	if line := call("/v3/watch", `{"create_request":{"key":"aw=="}}`); !strings.Contains(line, "created") { // And its stream goes on.
		t.Errorf("watch: %s", line)
	}
	both := secure.Clone()
	both.NextProtos = []string{"h2", "http/1.1"}
	if err := a.putWith(both, c.Members[0].Config.ListenClientURLs[0]); err != nil {
		t.Errorf("gRPC: %v", err)
	}
}

// busy is a clock that does something when first somebody waits.
type busy struct {
	clock.Clock
	once sync.Once
	do   func()
}

func (b *busy) After(d time.Duration) <-chan time.Time {
	b.once.Do(b.do)
	return b.Clock.After(d)
}

// Whoever replaces a certificate writes two files. Found by tests/linear, whose
// members are restarted at any moment.
func TestAMemberThatStartsBetweenCertificateAndKeyWaitsForTheKey(t *testing.T) {
	a := newAuthority(t)
	a.revoke()
	right := a.store.Files("peer").Key
	key, err := os.ReadFile(right)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(a.store.Files("bob").Key)
	if err == nil {
		err = os.WriteFile(right, other, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := servertest.New(t, 1, func(_ int, c *server.Config) {
		c.ClientTLS = a.tls()
		c.ListenClientURLs[0] = secured(c.ListenClientURLs[0])
		c.Clock = &busy{Clock: clock.Real(), do: func() {
			if err := os.WriteFile(right, key, 0o600); err != nil {
				t.Error(err)
			}
		}}
	})
	if err := a.put("bob", c.Members[0].Config.ListenClientURLs[0]); err != nil {
		t.Error(err)
	}
}
