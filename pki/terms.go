package pki

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Profile is the name of what a certificate may be used for.
type Profile string

// The profiles that need no configuration. A peer is both sides of a connection
// between members; a kubernetes certificate is both sides too, and may be one
// that nobody dials.
const (
	Server     Profile = "server"
	Peer       Profile = "peer"
	Client     Profile = "client"
	Kubernetes Profile = "kubernetes"
)

// Terms is what a profile makes of a request.
type Terms struct {
	KeyUsage    x509.KeyUsage
	ExtKeyUsage []x509.ExtKeyUsage
	Validity    time.Duration // 0: that of the request, or 5 years.
	Backdate    time.Duration // 0: five minutes.

	// Dialed: others reach the holder by a name that must be in the certificate.
	Dialed bool

	// IsCA makes an authority of the holder, with Intermediates more below it;
	// -1: any number.
	IsCA          bool
	Intermediates int

	// Where others learn of revocations, and who signed.
	OCSP, CRL, Issuers []string

	own bool // Built-in: an RSA key may also do what it must in TLS 1.2.
}

// builtin are the terms of a profile without configuration.
func (p Profile) builtin() (Terms, bool) {
	t := Terms{KeyUsage: x509.KeyUsageDigitalSignature, own: true}
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	switch p {
	case Server:
		t.ExtKeyUsage, t.Dialed = both[:1], true
	case Peer:
		t.ExtKeyUsage, t.Dialed = both, true
	case Client:
		t.ExtKeyUsage = both[1:]
	case Kubernetes:
		t.ExtKeyUsage = both
	default:
		return t, false
	}
	return t, true
}

// usageFor takes a configuration by its word.
func (t Terms) usageFor(public crypto.PublicKey) x509.KeyUsage {
	if _, isRSA := public.(*rsa.PublicKey); isRSA && t.own {
		return t.KeyUsage | x509.KeyUsageKeyEncipherment
	}
	return t.KeyUsage
}

// Signing is what profiles mean. Its zero value knows those without
// configuration.
type Signing struct {
	Default  *Terms // For requests without profile. Nil: such a one is an error.
	Profiles map[Profile]Terms
}

// Terms returns those of a profile: of the configuration, else built-in.
func (s Signing) Terms(p Profile) (Terms, error) {
	if p == "" && s.Default != nil {
		return *s.Default, nil
	}
	if t, ok := s.Profiles[p]; ok {
		return t, nil
	}
	if t, ok := p.builtin(); ok {
		return t, nil
	}
	return Terms{}, fmt.Errorf("%w: profile %q is none of %s", ErrRequest, string(p), strings.Join(s.names(), ", "))
}

func (s Signing) names() []string {
	names := []string{string(Server), string(Peer), string(Client), string(Kubernetes)}
	for _, p := range slices.Sorted(maps.Keys(s.Profiles)) {
		if !slices.Contains(names, string(p)) {
			names = append(names, string(p))
		}
	}
	return names
}
