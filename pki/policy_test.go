package pki_test

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/pki"
)

// revoke writes a list of revoked certificates of the authority.
func (f *fixture) revoke(form string, certs ...*pki.Written) {
	f.t.Helper()
	files := f.store.Files("ca")
	pair, err := tls.X509KeyPair(f.read(files.Cert), f.read(files.Key))
	f.ok(err)
	ca, err := x509.ParseCertificate(pair.Certificate[0])
	f.ok(err)
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: f.clock.Wall(), NextUpdate: f.clock.Wall().Add(time.Hour)}
	for _, w := range certs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: parse(f.t, w.Pair).SerialNumber, RevocationTime: f.clock.Wall(),
		})
	}
	ca.KeyUsage |= x509.KeyUsageCRLSign
	der, err := x509.CreateRevocationList(rand.Reader, list, ca, pair.PrivateKey.(crypto.Signer))
	f.ok(err)
	if form == "PEM" {
		der = pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	}
	f.ok(vfs.ReplaceFile(f.store.FS, "certs/crl", der))
}

func (f *fixture) read(name string) []byte {
	f.t.Helper()
	b, err := vfs.ReadFile(f.store.FS, name)
	f.ok(err)
	return b
}

func TestARevokedCertificateIsRefusedByBothSidesAndWithoutARestart(t *testing.T) {
	for _, form := range []string{"PEM", "DER"} {
		f := newFixture(t, pki.ECDSA)
		s, c := f.issue(server), f.issue(client)
		f.revoke(form)
		files := f.store.Files("server")
		files.CRL = "certs/crl"
		config, err := f.mustReload(files).ServerConfig(pki.ServerOptions{ClientAuth: true})
		f.ok(err)
		clientFiles := f.store.Files("client")
		dialed := f.mustReload(clientFiles)
		if _, err := shake(t, config, dialed.ClientConfig("localhost")); err != nil {
			t.Fatalf("%s: %v", form, err)
		}
		f.revoke(form, c)
		f.clock.Advance(time.Second)
		if _, err := shake(t, config, dialed.ClientConfig("localhost")); err == nil {
			t.Errorf("%s: a revoked client was let in", form)
		}
		f.revoke(form, s)
		f.clock.Advance(time.Second)
		if _, err := shake(t, config, dialed.ClientConfig("localhost")); err != nil {
			t.Errorf("%s: the server's own certificate is no matter to it: %v", form, err)
		}
		clientFiles.CRL = "certs/crl"
		if _, err := shake(t, config, f.mustReload(clientFiles).ClientConfig("localhost")); !errors.Is(err, pki.ErrRevoked) {
			t.Errorf("%s: a revoked server was dialed: %v", form, err)
		}
	}
}

func TestAListThatCannotBeReadIsNamedAndDoesNotReplaceTheOneBefore(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	f.issue(server)
	c := f.issue(client)
	f.revoke("PEM", c)
	files := f.store.Files("server")
	files.CRL = "certs/crl"
	config, err := f.mustReload(files).ServerConfig(pki.ServerOptions{ClientAuth: true})
	f.ok(err)
	f.ok(vfs.ReplaceFile(f.store.FS, "certs/crl", []byte("nonsense")))
	f.clock.Advance(time.Second)
	if _, err := shake(t, config, f.mustReload(f.store.Files("client")).ClientConfig("localhost")); err == nil {
		t.Error("with a broken list a revoked client was let in")
	}
	if !strings.Contains(f.log.String(), "certs/crl") {
		t.Errorf("the log does not name the file: %s", f.log)
	}
	if _, err := f.reloader(files); err == nil || !strings.Contains(err.Error(), "certs/crl: not a list of revoked certificates") {
		t.Errorf("at the start: %v", err)
	}
}

func TestOnlyAllowedNamesAndHostsAreLetIn(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	f.issue(server)
	f.issue(client)
	hosted := client
	hosted.Hosts = []string{"app.example", "10.1.2.3"}
	_, err := f.store.Issue(f.ca, "hosted", hosted)
	f.ok(err)
	for name, c := range map[string]struct {
		policy pki.Policy
		who    string
		good   bool
	}{
		"name":           {pki.Policy{AllowedNames: []string{"other", client.CommonName}}, "client", true},
		"another name":   {pki.Policy{AllowedNames: []string{"other"}}, "client", false},
		"part of a name": {pki.Policy{AllowedNames: []string{client.CommonName[:2]}}, "client", false},
		"host":           {pki.Policy{AllowedHosts: []string{"x", "app.example"}}, "hosted", true},
		"address":        {pki.Policy{AllowedHosts: []string{"10.1.2.3"}}, "hosted", true},
		"another host":   {pki.Policy{AllowedHosts: []string{"example"}}, "hosted", false},
		"no host":        {pki.Policy{AllowedHosts: []string{"app.example"}}, "client", false},
	} {
		config, err := f.mustPolicy(f.store.Files("server"), c.policy).ServerConfig(pki.ServerOptions{ClientAuth: true})
		f.ok(err)
		if _, err := shake(t, config, f.mustReload(f.store.Files(c.who)).ClientConfig("localhost")); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVersionsAndSuitesAreReadByName(t *testing.T) {
	for name, want := range map[string]uint16{"": 0, "TLS1.2": tls.VersionTLS12, "TLS1.3": tls.VersionTLS13} {
		if got, err := pki.ParseVersion(name); err != nil || got != want {
			t.Errorf("%q: %x, %v", name, got, err)
		}
	}
	if _, err := pki.ParseVersion("TLS1.1"); err == nil || !strings.Contains(err.Error(), "TLS1.2 or TLS1.3") {
		t.Error(err)
	}
	ids, err := pki.ParseCipherSuites([]string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_RSA_WITH_AES_128_CBC_SHA"})
	if err != nil || len(ids) != 3 || ids[1] != tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 {
		t.Errorf("%x, %v", ids, err)
	}
	if _, err := pki.ParseCipherSuites([]string{"TLS_ROT13"}); err == nil || !strings.Contains(err.Error(), "TLS_ROT13") {
		t.Error(err)
	}
}

func TestACertificateWithoutAuthorityIsMadeOnceAndAnewBeforeItEnds(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	store := f.store
	store.Dir, store.Replace = "auto", true
	year := 365 * 24 * time.Hour
	files, err := store.SelfSigned("cert", []string{"localhost", "127.0.0.1"}, year)
	f.ok(err)
	first := f.read(files.Cert)
	config, err := f.mustReload(files).ServerConfig(pki.ServerOptions{})
	f.ok(err)
	if _, err := shake(t, config, f.mustReload(pki.Files{CA: files.Cert}).ClientConfig("127.0.0.1")); err != nil {
		t.Errorf("who trusts the file: %v", err)
	}
	if _, err := shake(t, config, f.mustReload(pki.Files{CA: "certs/ca.pem"}).ClientConfig("127.0.0.1")); err == nil {
		t.Error("who does not trust it was satisfied")
	}
	if _, err := shake(t, config, f.mustPolicy(pki.Files{}, pki.Policy{Blind: true}).ClientConfig("127.0.0.1")); err != nil {
		t.Errorf("who does not look: %v", err)
	}
	_, err = store.SelfSigned("cert", []string{"localhost"}, year)
	f.ok(err)
	if string(f.read(files.Cert)) != string(first) {
		t.Error("a good certificate was replaced")
	}
	f.clock.Advance(year - 24*time.Hour)
	_, err = store.SelfSigned("cert", []string{"localhost"}, year)
	f.ok(err)
	if string(f.read(files.Cert)) == string(first) {
		t.Error("a certificate that ends tomorrow was kept")
	}
	f.ok(vfs.ReplaceFile(store.FS, files.Cert, []byte("precious")))
	if _, err := store.SelfSigned("cert", []string{"localhost"}, year); err == nil || string(f.read(files.Cert)) != "precious" {
		t.Errorf("a file that is no certificate was replaced: %v", err)
	}
}
