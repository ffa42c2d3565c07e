// Package authority signs certificates for those in a cluster: a node's first,
// against a join token, and everybody's next.
//
// It is called by the service that knows who asks; what a certificate holds
// follows from who that is, and a request that says otherwise is refused. The
// certificates live a year and are renewed by their holders (pki.Rotator).
//
// The authority is ca.pem and ca-key.pem of a folder. Both are read for each
// signature, so that a rotation of the authority needs no restart; ca.pem is also
// what everybody shall trust, two authorities during a rotation. Without
// ca-key.pem the key is outside of the cluster: then nothing is signed, and the
// refusal says how to do it by hand.
//
// Always true: a token is redeemed before anything is signed for it, and after
// everything else about the request was checked.
package authority

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/token"
	"github.com/holdfast-db/holdfast/pki"
)

// Errors of requests; those of tokens are in package token.
var (
	ErrDenied = errors.New("request for a certificate is denied")
	ErrNoKey  = errors.New("the key of the authority is outside of this cluster")
)

// Profiles of requests.
const (
	Client  = "client"
	Serving = "serving"
)

const (
	validity  = 365 * 24 * time.Hour // Renewed at 70 to 90 percent: a forgotten cluster has months.
	signedMin = time.Hour            // An authority with less left signs nothing: its holders could not renew in time.
)

// Config is what an Authority stands on.
type Config struct {
	FS     vfs.FS
	Clock  clock.Clock
	Logger hclog.Logger
	Dir    string // Of ca.pem and, if the cluster is to sign, ca-key.pem.
	Tokens *token.Store
}

// Authority signs for a cluster. It keeps no state of its own.
type Authority struct{ cfg Config }

// New checks that the files can be read. That there is no key is no error.
func New(cfg Config) (*Authority, error) {
	a := &Authority{cfg}
	if _, err := a.Roots(); err != nil {
		return nil, err
	}
	if _, err := a.signer(); err != nil && !errors.Is(err, ErrNoKey) {
		return nil, err
	}
	return a, nil
}

// Roots are the authorities to be trusted now, in PEM.
func (a *Authority) Roots() ([]byte, error) { return a.store().Trusted() }

func (a *Authority) store() pki.Store {
	return pki.Store{FS: a.cfg.FS, Clock: a.cfg.Clock, Dir: a.cfg.Dir}
}

func (a *Authority) signer() (*pki.Authority, error) {
	signer, err := a.store().Authority()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: sign the request where ca-key.pem is, with 'holdfastctl certs sign'", ErrNoKey)
	}
	return signer, err
}

// Bootstrap signs the first certificate of a node against ID.SECRET of a join
// token. The answer can be asked for again with the same request.
func (a *Authority) Bootstrap(ctx context.Context, proof, node string, csr []byte) (cert, roots []byte, err error) {
	if err := pki.CheckNodeName(node); err != nil {
		return nil, nil, err
	}
	subject := pki.NodeSubject(node)
	asked, err := check(subject, csr, Client)
	if err != nil {
		return nil, nil, err
	}
	signer, err := a.signer()
	if err != nil {
		return nil, nil, err // Before the token is used up for nothing.
	}
	key, err := pki.KeyHash(asked.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	if err := a.cfg.Tokens.Redeem(ctx, proof, node, key); err != nil {
		return nil, nil, err
	}
	return a.sign(signer, subject, asked, csr, Client, validity)
}

// Sign signs the next certificate of a caller, whose subject was verified.
func (a *Authority) Sign(_ context.Context, subject pkix.Name, csr []byte, profile string) (cert, roots []byte, err error) {
	return a.SignFor(subject, csr, profile, validity)
}

// SignFor is Sign of a certificate that lives for a while, and not longer than others.
func (a *Authority) SignFor(subject pkix.Name, csr []byte, profile string, life time.Duration) (cert, roots []byte, err error) {
	if profile == "" {
		profile = Client
	}
	asked, err := check(subject, csr, profile)
	if err != nil {
		return nil, nil, err
	}
	signer, err := a.signer()
	if err != nil {
		return nil, nil, err
	}
	return a.sign(signer, subject, asked, csr, profile, min(life, validity))
}

// check compares a request with who asks.
func check(caller pkix.Name, csr []byte, profile string) (*x509.CertificateRequest, error) {
	asked, err := pki.ParseCSR(csr)
	if err != nil {
		return nil, err
	}
	if caller.CommonName == "" {
		return nil, fmt.Errorf("%w: who asks has no name", ErrDenied)
	}
	if err := pki.CheckSubject(asked.Subject, caller); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDenied, err)
	}
	if len(asked.EmailAddresses)+len(asked.URIs) > 0 {
		return nil, fmt.Errorf("%w: addresses of mail and URIs are not signed: leave them out", ErrDenied)
	}
	hosts := pki.Hosts(asked)
	switch profile {
	case Client:
		if len(hosts) > 0 {
			return nil, fmt.Errorf("%w: a client certificate has no hosts, but %q are asked for: use the profile %q", ErrDenied, hosts, Serving)
		}
		return asked, nil
	case Serving:
		return asked, checkHosts(caller, hosts)
	default:
		return nil, fmt.Errorf("%w: profile %q is none of %s, %s", ErrDenied, profile, Client, Serving)
	}
}

// checkHosts lets a node serve under its own name only. The addresses that its object
// tells are what it says of itself: they may be those of the API.
func checkHosts(caller pkix.Name, hosts []string) error {
	node, isNode := pki.NodeOf(caller)
	if !isNode {
		return fmt.Errorf("%w: %q is no node, and only nodes get serving certificates here", ErrDenied, caller.CommonName)
	}
	if len(hosts) == 0 {
		return fmt.Errorf("%w: a serving certificate needs hosts", ErrDenied)
	}
	for _, host := range hosts {
		if host != node {
			return fmt.Errorf("%w: %q is not the name of node %s", ErrDenied, host, node)
		}
	}
	return nil
}

func (a *Authority) sign(signer *pki.Authority, subject pkix.Name, asked *x509.CertificateRequest, csr []byte, profile string, life time.Duration) (cert, roots []byte, err error) {
	now := a.cfg.Clock.Wall()
	left := signer.NotAfter().Sub(now)
	if left < signedMin {
		return nil, nil, fmt.Errorf("the authority ends at %s: rotate it with 'holdfastctl certs rotate-ca': %w", signer.NotAfter().UTC().Format(time.RFC3339), pki.ErrExpired)
	}
	req := pki.Request{
		Profile: pki.Client, CommonName: subject.CommonName, Organizations: subject.Organization,
		Hosts: pki.Hosts(asked), Validity: min(life, left),
	}
	if profile == Serving {
		req.Profile = pki.Server
	}
	cert, notAfter, err := signer.Sign(csr, req, now)
	if err != nil {
		return nil, nil, err
	}
	a.cfg.Logger.Info("certificate signed", "name", subject.CommonName, "profile", profile, "not-after", notAfter.UTC().Format(time.RFC3339))
	return cert, signer.Roots(), nil
}
