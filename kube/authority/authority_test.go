package authority_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/client/clienttest"
	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/kube/authority"
	"github.com/holdfast-db/holdfast/kube/token"
	"github.com/holdfast-db/holdfast/pki"
)

type fixture struct {
	t      *testing.T
	clock  *clocktest.Fake
	folder pki.Store
	tokens *token.Store
	a      *authority.Authority
	log    *strings.Builder
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{t: t, clock: clocktest.New(), log: &strings.Builder{}}
	f.folder = pki.Store{FS: vfstest.NewMem(), Clock: f.clock, Dir: "certs"}
	_, _, err := f.folder.CreateAuthority(pki.AuthorityRequest{CommonName: "cluster CA"})
	f.ok(err)
	cluster := clienttest.New(t, 1)
	cl, err := client.New(client.Config{Endpoints: cluster.Endpoints(), Dial: cluster.Dial, Logger: hclog.NewNullLogger()})
	f.ok(err)
	t.Cleanup(func() { cl.Close() })
	f.tokens = token.New(token.Config{Client: cl, Clock: f.clock})
	f.a, err = authority.New(authority.Config{
		FS: f.folder.FS, Clock: f.clock, Logger: hclog.New(&hclog.LoggerOptions{Output: f.log}), Dir: "certs", Tokens: f.tokens,
	})
	f.ok(err)
	return f
}

func (f *fixture) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) token() token.Token {
	f.t.Helper()
	made, _, err := f.tokens.Create(f.t.Context(), token.Request{})
	f.ok(err)
	return made
}

func (f *fixture) csr(subject pkix.Name, edit func(*x509.CertificateRequest)) []byte {
	f.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	f.ok(err)
	template := &x509.CertificateRequest{Subject: subject}
	if edit != nil {
		edit(template)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	f.ok(err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func (f *fixture) verified(cert, roots []byte, use x509.ExtKeyUsage) *x509.Certificate {
	f.t.Helper()
	block, _ := pem.Decode(cert)
	c, err := x509.ParseCertificate(block.Bytes)
	f.ok(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	_, err = c.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: f.clock.Wall(), KeyUsages: []x509.ExtKeyUsage{use}})
	f.ok(err)
	return c
}

func TestAJoinTokenGetsANodeItsFirstCertificate(t *testing.T) {
	f := newFixture(t)
	made, csr := f.token(), f.csr(pki.NodeSubject("n1"), nil)
	for range 2 { // The second time as after an answer that was lost.
		cert, roots, err := f.a.Bootstrap(t.Context(), made.Proof(), "n1", csr)
		f.ok(err)
		c := f.verified(cert, roots, x509.ExtKeyUsageClientAuth)
		if node, ok := pki.NodeOf(c.Subject); node != "n1" || !ok {
			t.Errorf("the certificate is for %s", c.Subject)
		}
		if life := c.NotAfter.Sub(f.clock.Wall()); life != 365*24*time.Hour {
			t.Errorf("it lives for %v", life)
		}
	}
	if _, _, err := f.a.Bootstrap(t.Context(), made.Proof(), "n2", f.csr(pki.NodeSubject("n2"), nil)); !errors.Is(err, token.ErrUsed) {
		t.Errorf("the token let a second node in: %v", err)
	}
	if strings.Contains(f.log.String(), made.Proof()) || !strings.Contains(f.log.String(), "system:node:n1") {
		t.Errorf("log: %s", f.log)
	}
}

func TestARefusedRequestDoesNotUseUpTheToken(t *testing.T) {
	f := newFixture(t)
	made := f.token()
	for name, csr := range map[string][]byte{
		"another node": f.csr(pki.NodeSubject("n2"), nil),
		"another user": f.csr(pki.UserSubject("admin", pki.AdminsGroup), nil),
		"more groups":  f.csr(pkix.Name{CommonName: "system:node:n1", Organization: []string{pki.NodesGroup, pki.AdminsGroup}}, nil),
		"hosts":        f.csr(pki.NodeSubject("n1"), func(c *x509.CertificateRequest) { c.DNSNames = []string{"n1"} }),
		"not a CSR":    []byte("x"),
	} {
		if _, _, err := f.a.Bootstrap(t.Context(), made.Proof(), "n1", csr); !errors.Is(err, authority.ErrDenied) && !errors.Is(err, pki.ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := f.a.Bootstrap(t.Context(), made.Proof(), "n1", f.csr(pki.NodeSubject("n1"), nil)); err != nil {
		t.Error(err)
	}
}

func TestEachGetsCertificatesForItselfOnly(t *testing.T) {
	f := newFixture(t)
	n1, scheduler := pki.NodeSubject("n1"), pki.UserSubject(pki.SchedulerUser)
	hosts := func(names string, ips ...string) func(*x509.CertificateRequest) {
		return func(c *x509.CertificateRequest) {
			c.DNSNames = strings.Fields(names)
			for _, ip := range ips {
				c.IPAddresses = append(c.IPAddresses, net.ParseIP(ip))
			}
		}
	}
	for name, c := range map[string]struct {
		caller  pkix.Name
		csr     []byte
		profile string
		good    bool
	}{
		"a node's next":              {n1, f.csr(n1, nil), "", true},
		"a node's serving":           {n1, f.csr(n1, hosts("n1")), "serving", true},
		"the scheduler's next":       {scheduler, f.csr(scheduler, nil), "client", true},
		"another node's":             {n1, f.csr(pki.NodeSubject("n2"), nil), "client", false},
		"an address":                 {n1, f.csr(n1, hosts("n1", "10.0.0.1")), "serving", false},
		"another node's name":        {n1, f.csr(n1, hosts("n2")), "serving", false},
		"everything":                 {n1, f.csr(n1, hosts("*")), "serving", false},
		"serving without hosts":      {n1, f.csr(n1, nil), "serving", false},
		"client with hosts":          {n1, f.csr(n1, hosts("n1")), "client", false},
		"serving, but no node":       {scheduler, f.csr(scheduler, hosts("n1")), "serving", false},
		"a URI":                      {n1, f.csr(n1, func(c *x509.CertificateRequest) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "x"}} }), "client", false},
		"another profile":            {n1, f.csr(n1, nil), "peer", false},
		"nobody":                     {pkix.Name{}, f.csr(pkix.Name{}, nil), "client", false},
		"a user named like a node":   {pki.UserSubject("system:node:n1"), f.csr(pki.UserSubject("system:node:n1"), hosts("n1")), "serving", false},
		"a user who adds his group ": {pki.UserSubject("bob"), f.csr(pki.UserSubject("bob", pki.AdminsGroup), nil), "client", false},
	} {
		cert, roots, err := f.a.Sign(t.Context(), c.caller, c.csr, c.profile)
		if (err == nil) != c.good || err != nil && !errors.Is(err, authority.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		use := x509.ExtKeyUsageClientAuth
		if c.profile == "serving" {
			use = x509.ExtKeyUsageServerAuth
		}
		f.verified(cert, roots, use)
	}
}

func TestARotationOfTheAuthorityNeedsNoRestart(t *testing.T) {
	f := newFixture(t)
	n1 := pki.NodeSubject("n1")
	before, _, err := f.a.Sign(t.Context(), n1, f.csr(n1, nil), "")
	f.ok(err)
	_, err = f.folder.BeginRotation(pki.AuthorityRequest{CommonName: "next CA"})
	f.ok(err)
	_, err = f.folder.StepRotation(pki.RotationSign)
	f.ok(err)
	after, roots, err := f.a.Sign(t.Context(), n1, f.csr(n1, nil), "")
	f.ok(err)
	f.verified(before, roots, x509.ExtKeyUsageClientAuth)
	if c := f.verified(after, roots, x509.ExtKeyUsageClientAuth); c.Issuer.CommonName != "next CA" {
		t.Errorf("signed by %s", c.Issuer)
	}
}

func TestWithoutItsKeyAClusterRefusesAndKeepsTheToken(t *testing.T) {
	f := newFixture(t)
	f.ok(f.folder.FS.Rename("certs/ca-key.pem", "safe.pem"))
	made, csr := f.token(), f.csr(pki.NodeSubject("n1"), nil)
	if _, _, err := f.a.Bootstrap(t.Context(), made.Proof(), "n1", csr); !errors.Is(err, authority.ErrNoKey) || !strings.Contains(err.Error(), "certs sign") {
		t.Errorf("without the key: %v", err)
	}
	f.ok(f.folder.FS.Rename("safe.pem", "certs/ca-key.pem"))
	if _, _, err := f.a.Bootstrap(t.Context(), made.Proof(), "n1", csr); err != nil {
		t.Error(err)
	}
	f.clock.Advance(5*365*24*time.Hour - time.Minute)
	if _, _, err := f.a.Sign(t.Context(), pki.NodeSubject("n1"), csr, ""); !errors.Is(err, pki.ErrExpired) {
		t.Errorf("with an authority that ends: %v", err)
	}
}
