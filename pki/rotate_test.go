package pki_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/pki"
)

// trusts tells whether ca.pem as it is now accepts a certificate.
func (f *fixture) trusts(cert *x509.Certificate) bool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(f.read("certs/ca.pem"))
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: f.clock.Wall(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

var next = pki.AuthorityRequest{CommonName: "next CA"}

func TestAnAuthorityGivesWayInThreeStepsThatGoBack(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	old := parse(t, f.issue(client).Pair)
	first := f.read("certs/ca.pem")
	_, err := f.store.StepRotation(pki.RotationSign)
	if !errors.Is(err, pki.ErrRequest) {
		t.Errorf("a step without a beginning: %v", err)
	}
	_, err = f.store.BeginRotation(next)
	f.ok(err)
	if _, err := f.store.BeginRotation(next); !errors.Is(err, pki.ErrRequest) {
		t.Errorf("begun twice: %v", err)
	}
	if _, err := f.store.StepRotation(pki.RotationDone); !errors.Is(err, pki.ErrRequest) {
		t.Errorf("a step was left out: %v", err)
	}
	for _, c := range []struct {
		step             pki.RotationStep
		signer           string
		trustOld, trustN bool
	}{
		{pki.RotationTrust, "test CA", true, true},
		{pki.RotationNone, "test CA", true, false},
		{pki.RotationTrust, "test CA", true, true},
		{pki.RotationSign, "next CA", true, true},
		{pki.RotationTrust, "test CA", true, true},
		{pki.RotationSign, "next CA", true, true},
		{pki.RotationDone, "next CA", false, true},
		{pki.RotationSign, "next CA", true, true},
		{pki.RotationDone, "next CA", false, true},
	} {
		_, err := f.store.StepRotation(c.step)
		f.ok(err)
		a, err := f.store.Authority()
		f.ok(err)
		f.store.Replace = true
		w, err := f.store.Issue(a, "x", client)
		f.ok(err)
		if got := parse(t, w.Pair).Issuer.CommonName; got != c.signer || !f.trusts(parse(t, w.Pair)) {
			t.Errorf("%s: signed by %s", c.step, got)
		}
		nextCert := parse(t, &pki.Pair{Cert: f.read("certs/ca-next.pem")})
		if f.trusts(old) != c.trustOld || f.trusts(nextCert) != c.trustN {
			t.Errorf("%s: trusts the old authority %v, the next %v", c.step, f.trusts(old), f.trusts(nextCert))
		}
	}
	a, err := f.store.Authority()
	f.ok(err)
	w, err := f.store.Renew(a, "client")
	f.ok(err)
	renewed := parse(t, w.Pair)
	if !f.trusts(renewed) || renewed.Subject.String() != old.Subject.String() || renewed.NotAfter.Before(old.NotAfter.Add(-time.Minute)) {
		t.Errorf("renewed: %s until %s", renewed.Subject, renewed.NotAfter)
	}
	_, err = f.store.BeginRotation(pki.AuthorityRequest{CommonName: "third CA"})
	f.ok(err)
	names, err := f.store.FS.List(f.store.Dir)
	f.ok(err)
	if !slices.ContainsFunc(names, func(n string) bool {
		return strings.HasPrefix(n, "ca-old.pem.old-") && bytes.Equal(f.read("certs/"+n), first)
	}) {
		t.Errorf("the first authority was not kept: %q", names)
	}
}

func TestARotationCutShortAnywhereIsTakenAgain(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	mem := f.store.FS.(*vfstest.Mem)
	failed := errors.New("cut short")
	steps := []func() error{
		func() error { _, err := f.store.BeginRotation(next); return err },
		func() error { _, err := f.store.StepRotation(pki.RotationSign); return err },
		func() error { _, err := f.store.StepRotation(pki.RotationDone); return err },
		func() error { _, err := f.store.BeginRotation(next); return err },
	}
	wants := []pki.RotationStep{pki.RotationTrust, pki.RotationSign, pki.RotationDone, pki.RotationTrust}
	for i, step := range steps {
		cuts := 0
		for at := 0; ; at++ {
			left := at
			mem.Inject(func(op vfstest.Op) error {
				if left--; left < 0 && op.Changes() {
					return failed
				}
				return nil
			})
			err := step()
			mem.Inject(nil)
			r, readErr := f.store.Rotation()
			f.ok(readErr)
			if err == nil {
				break
			}
			if r.Step == wants[i] { // Done, but for the last sync.
				cuts++
				break
			}
			cuts++
		}
		r, err := f.store.Rotation()
		f.ok(err)
		if _, err := f.store.Authority(); r.Step != wants[i] || err != nil || cuts < 4 {
			t.Fatalf("step %d, cut %d times, is at: %s, %v", i, cuts, r.Step, err)
		}
	}
	if bytes.Equal(f.read("certs/ca-old.pem"), f.read("certs/ca-next.pem")) {
		t.Error("the second rotation has no new authority")
	}
}

// signer signs for rotators, and remembers what it was asked.
type signer struct {
	f     *fixture
	names []string
	lose  bool // Signs, but the answer is lost.
	life  time.Duration
}

func (s *signer) sign(_ context.Context, name string, csr []byte) (cert, roots []byte, err error) {
	s.names = append(s.names, name)
	ca, err := s.f.store.Authority()
	if err != nil {
		return nil, nil, err
	}
	subject := pki.NodeSubject("n1")
	cert, _, err = ca.Sign(csr, pki.Request{Profile: pki.Client, CommonName: subject.CommonName, Organizations: subject.Organization, Validity: s.life}, s.f.clock.Wall())
	if s.lose {
		err = errors.New("connection lost")
	}
	return cert, ca.Roots(), err
}

func (f *fixture) rotator(s *signer) *pki.Rotator {
	f.t.Helper()
	r, err := pki.NewRotator(pki.RotatorConfig{
		FS: f.store.FS, Clock: f.clock, Logger: hclog.NewNullLogger(), Dir: "node", Name: "kubelet",
		Subject: pki.NodeSubject("n1"), Sign: s.sign, Spread: func() float64 { return 0.5 },
	})
	f.ok(err)
	return r
}

func TestARequestIsMadeAgainAfterARestartUntilItIsSigned(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	s := &signer{f: f, lose: true, life: 1000 * time.Hour}
	if err := f.rotator(s).Renew(t.Context()); err == nil {
		t.Fatal("the answer was lost")
	}
	s.lose = false
	r := f.rotator(s)
	f.ok(r.Ready(t.Context()))
	if len(s.names) != 2 || s.names[0] != s.names[1] {
		t.Errorf("requests are %q: the same key asks under the same name", s.names)
	}
	if exists, _ := vfs.Exists(f.store.FS, "node/kubelet-pending.pem"); exists {
		t.Error("the key that waited is still there")
	}
	if again := f.rotator(s); again.Certificate() == nil || !bytes.Equal(again.Certificate().Certificate[0], r.Certificate().Certificate[0]) {
		t.Error("the certificate was not found again")
	}
	f.ok(r.Renew(t.Context()))
	if s.names[2] == s.names[1] {
		t.Error("a renewal takes a new key")
	}
}

func TestACertificateIsRenewedLateInItsLifeAndServedWithoutARestart(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	f.issue(server)
	s := &signer{f: f, life: 1000 * time.Hour}
	r := f.rotator(s)
	f.ok(r.Ready(t.Context()))
	first := r.Certificate().Leaf
	shown := f.mustReload(r.Files())
	serving, err := f.mustReload(f.store.Files("server")).ServerConfig(pki.ServerOptions{ClientAuth: true})
	f.ok(err)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- r.Run(ctx) }()
	for range 850 {
		if r.Certificate().Leaf.SerialNumber.Cmp(first.SerialNumber) != 0 {
			break
		}
		f.clock.AwaitWaiters(1)
		f.clock.Advance(time.Hour)
	}
	f.clock.AwaitWaiters(1)
	cancel()
	<-done
	second := r.Certificate().Leaf
	share := float64(second.NotBefore.Sub(first.NotBefore)) / float64(first.NotAfter.Sub(first.NotBefore))
	if share < 0.7 || share > 0.9 {
		t.Errorf("renewed at %.2f of the life", share)
	}
	_, err = shake(t, serving, shown.ClientConfig("localhost"))
	f.ok(err)
	if got := shown.Certificate().Leaf.SerialNumber; got.Cmp(second.SerialNumber) != 0 {
		t.Error("the old certificate is shown")
	}
}

func TestATokenHolderSpeaksToTheRightClusterOnly(t *testing.T) {
	f, other := newFixture(t, pki.ECDSA), newFixture(t, pki.ECDSA)
	f.issue(server)
	other.issue(server)
	serves := func(f *fixture, o pki.ServerOptions) *tls.Config {
		c, err := f.mustReload(f.store.Files("server")).ServerConfig(o)
		f.ok(err)
		return c
	}
	joining := pki.ServerOptions{ClientAuth: true, Optional: true, ShowAuthority: true}
	hash := f.ca.Hash()
	if block, _ := pem.Decode(f.read("certs/ca.pem")); sha256.Sum256(block.Bytes) != hash {
		t.Error("the hash is not that of the certificate")
	}
	if _, err := shake(t, serves(f, joining), pki.Pinned("localhost", hash, f.clock)); err != nil {
		t.Error(err)
	}
	if _, err := shake(t, serves(f, joining), pki.Pinned("127.0.0.1", hash, f.clock)); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct{ server, client *tls.Config }{
		"another cluster":     {serves(other, joining), pki.Pinned("localhost", hash, f.clock)},
		"another name":        {serves(f, joining), pki.Pinned("10.9.9.9", hash, f.clock)},
		"no authority shown":  {serves(f, pki.ServerOptions{Optional: true}), pki.Pinned("localhost", hash, f.clock)},
		"no optional clients": {serves(f, pki.ServerOptions{ShowAuthority: true}), pki.Pinned("localhost", hash, f.clock)},
	} {
		if _, err := shake(t, c.server, c.client); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// Shows our authority beside a certificate that it did not sign.
	pair := *other.mustReload(other.store.Files("server")).Certificate()
	block, _ := pem.Decode(f.read("certs/ca.pem"))
	pair.Certificate = append(slices.Clone(pair.Certificate), block.Bytes)
	impostor := &tls.Config{Certificates: []tls.Certificate{pair}, Time: f.clock.Wall, MinVersion: tls.VersionTLS12}
	if _, err := shake(t, impostor, pki.Pinned("localhost", hash, f.clock)); err == nil {
		t.Error("an impostor was accepted")
	}
}

func TestACertificateOfTheWrongProfileIsRefusedByTLS(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	f.issue(server)
	terms, err := exampleSigning(t).Terms("client")
	f.ok(err)
	_, err = f.store.Issue(f.ca, "wrong", pki.Request{Profile: "client", Terms: &terms, CommonName: "x", Hosts: []string{"localhost"}, Validity: time.Hour})
	f.ok(err)
	for _, c := range []struct {
		server, client string
		good           bool
	}{{"server", "wrong", true}, {"wrong", "wrong", false}, {"server", "server", false}} {
		serving, err := f.mustReload(f.store.Files(c.server)).ServerConfig(pki.ServerOptions{ClientAuth: true})
		f.ok(err)
		if _, err := shake(t, serving, f.mustReload(f.store.Files(c.client)).ClientConfig("localhost")); (err == nil) != c.good {
			t.Errorf("server shows %s, client %s: %v", c.server, c.client, err)
		}
	}
}

func TestASubjectIsANodeOnlyWithItsGroup(t *testing.T) {
	if node, ok := pki.NodeOf(pki.NodeSubject("n1")); node != "n1" || !ok {
		t.Error(node, ok)
	}
	if _, ok := pki.NodeOf(pki.UserSubject("system:node:n1", "people")); ok {
		t.Error("a user called like a node is one")
	}
	if err := pki.CheckSubject(pki.NodeSubject("n2"), pki.NodeSubject("n1")); !errors.Is(err, pki.ErrNotAllowed) {
		t.Error(err)
	}
	for _, bad := range []string{"", "A", "a_b", "*.a", "a/b", "a:b", strings.Repeat("a", 254)} {
		if pki.CheckNodeName(bad) == nil {
			t.Errorf("node name %q", bad)
		}
	}
}
