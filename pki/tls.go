package pki

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// ServerOptions is what a server asks of its clients.
type ServerOptions struct {
	// ClientAuth demands client certificates. A CA among the files does so too.
	ClientAuth bool

	// Optional lets in who shows no certificate: one who has none yet asks for his
	// first. One that is shown is checked all the same.
	Optional bool

	// ShowAuthority sends the trusted authorities along, so that who knows only the
	// hash of one can check the certificate (see Pinned).
	ShowAuthority bool
}

// Policy narrows which connections are good, on both sides.
type Policy struct {
	MinVersion   uint16   // 0 means TLS 1.2.
	MaxVersion   uint16   // 0 means the newest.
	CipherSuites []uint16 // For TLS 1.2; nil means those of the Go release.

	// AllowedNames are the common names that certificates of the other side may
	// have, AllowedHosts the hosts one of which they must be for. Empty: any.
	AllowedNames []string
	AllowedHosts []string

	// Blind does not check who is dialed: where each side made its own certificate
	// there is no authority. It keeps listeners out, not impostors.
	Blind bool
}

// ServerConfig returns a configuration for listening. Each handshake uses the
// files as they are then.
func (r *Reloader) ServerConfig(o ServerOptions) (*tls.Config, error) {
	f := r.cfg.Files
	if f.Cert == "" {
		return nil, fmt.Errorf("%w: a server needs a certificate and a key", ErrFiles)
	}
	if o.ClientAuth && f.CA == "" {
		return nil, fmt.Errorf("%w: client certificates are demanded, but no CA file says whose are trusted", ErrFiles)
	}
	base := &tls.Config{
		Time:         r.cfg.Clock.Wall,
		MinVersion:   max(r.cfg.Policy.MinVersion, tls.VersionTLS12),
		MaxVersion:   r.cfg.Policy.MaxVersion,
		CipherSuites: r.cfg.Policy.CipherSuites,
		// For a port of HTTP alone; where gRPC comes too, internal/frontdoor says what is offered.
		NextProtos: []string{"http/1.1", "h2"},
		// A resumed session would be a way around a CA that was taken away.
		SessionTicketsDisabled: true,
	}
	if f.CA != "" {
		base.ClientAuth = tls.RequireAndVerifyClientCert
		if o.Optional {
			base.ClientAuth = tls.VerifyClientCertIfGiven
		}
	}
	config := base.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := r.look()
		c := base.Clone()
		c.Certificates = []tls.Certificate{*now.pair}
		if o.ShowAuthority {
			c.Certificates[0].Certificate = slices.Concat(now.pair.Certificate, now.authorities)
		}
		c.ClientCAs = now.pool
		c.VerifyConnection = func(cs tls.ConnectionState) error { return r.admit(now, cs) }
		return c, nil
	}
	// Some callers want to see a certificate before they listen at all.
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return r.Certificate(), nil }
	return config, nil
}

// ClientConfig returns a configuration for dialing. serverName may be empty:
// then the name that is dialed counts. The own certificate is always the
// newest; trusted authorities are those of this call, so call it for each
// connection.
func (r *Reloader) ClientConfig(serverName string) *tls.Config {
	config := &tls.Config{
		Time:               r.cfg.Clock.Wall,
		MinVersion:         max(r.cfg.Policy.MinVersion, tls.VersionTLS12),
		MaxVersion:         r.cfg.Policy.MaxVersion,
		CipherSuites:       r.cfg.Policy.CipherSuites,
		ServerName:         serverName,
		RootCAs:            r.look().pool, // Nil: those of the machine.
		InsecureSkipVerify: r.cfg.Policy.Blind,
		VerifyConnection:   func(cs tls.ConnectionState) error { return r.admit(r.look(), cs) },
	}
	if r.cfg.Files.Cert != "" {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return r.Certificate(), nil
		}
	}
	return config
}

// Pinned returns a configuration for dialing a server of whose authority only the
// SHA-256 of its certificate is known. The server must send that certificate, and
// its own must be signed by it, now, for a server of this name: nothing is sent to
// it before.
func Pinned(serverName string, authority [sha256.Size]byte, clk clock.Clock) *tls.Config {
	return &tls.Config{
		Time:               clk.Wall,
		MinVersion:         tls.VersionTLS12,
		ServerName:         serverName,
		InsecureSkipVerify: true, // VerifyConnection does it: there is no pool before the certificates are seen.
		VerifyConnection: func(cs tls.ConnectionState) error {
			certs := cs.PeerCertificates
			i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return sha256.Sum256(c.Raw) == authority })
			if i < 1 || !certs[i].IsCA {
				return fmt.Errorf("%w: the server shows no authority with the hash %x: is it another cluster, or was the authority rotated since the token was made?", ErrNotAllowed, authority[:6])
			}
			roots, between := x509.NewCertPool(), x509.NewCertPool()
			roots.AddCert(certs[i])
			for _, c := range certs[1:] {
				between.AddCert(c)
			}
			_, err := certs[0].Verify(x509.VerifyOptions{
				Roots: roots, Intermediates: between, DNSName: serverName, CurrentTime: clk.Wall(),
				KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			})
			return err
		},
	}
}

// admit refuses a certificate of the other side that was verified but is
// revoked, or not among those that the policy allows.
func (r *Reloader) admit(now *loaded, cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return nil // Nobody asked for one.
	}
	for _, cert := range cs.PeerCertificates {
		if now.revoked[cert.SerialNumber.String()] {
			return fmt.Errorf("certificate of %q, serial %x, is in %s: %w", cert.Subject.CommonName, cert.SerialNumber, r.cfg.Files.CRL, ErrRevoked)
		}
	}
	leaf, p := cs.PeerCertificates[0], r.cfg.Policy
	if len(p.AllowedNames) > 0 && !slices.Contains(p.AllowedNames, leaf.Subject.CommonName) {
		return fmt.Errorf("certificate of %q: its common name is not among those allowed: %w", leaf.Subject.CommonName, ErrNotAllowed)
	}
	if len(p.AllowedHosts) > 0 && !slices.ContainsFunc(p.AllowedHosts, func(h string) bool { return leaf.VerifyHostname(h) == nil }) {
		return fmt.Errorf("certificate of %q: it is for none of the hosts allowed: %w", leaf.Subject.CommonName, ErrNotAllowed)
	}
	return nil
}

// ParseVersion reads TLS1.2 or TLS1.3; "" is 0.
func ParseVersion(s string) (uint16, error) {
	switch s {
	case "":
		return 0, nil
	case "TLS1.2":
		return tls.VersionTLS12, nil
	case "TLS1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("there is no TLS version %q: use TLS1.2 or TLS1.3", s)
}

// ParseCipherSuites reads names of cipher suites of TLS 1.2. Weak ones are taken
// too: whoever names one has a client that knows nothing else.
func ParseCipherSuites(names []string) ([]uint16, error) {
	known := append(tls.CipherSuites(), tls.InsecureCipherSuites()...)
	var ids []uint16
	for _, name := range names {
		i := slices.IndexFunc(known, func(c *tls.CipherSuite) bool { return c.Name == name || c.Name == name+"_SHA256" })
		if i < 0 {
			return nil, fmt.Errorf("there is no cipher suite %q: use names such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", name)
		}
		ids = append(ids, known[i].ID)
	}
	return ids, nil
}
