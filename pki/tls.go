package pki

import (
	"crypto/tls"
	"fmt"
)

// ServerOptions is what a server asks of its clients.
type ServerOptions struct {
	// ClientAuth demands client certificates. A CA among the files does so too.
	ClientAuth   bool
	MinVersion   uint16   // 0 means TLS 1.2.
	MaxVersion   uint16   // 0 means the newest.
	CipherSuites []uint16 // For TLS 1.2; nil means those of the Go release.
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
		MinVersion:   max(o.MinVersion, tls.VersionTLS12),
		MaxVersion:   o.MaxVersion,
		CipherSuites: o.CipherSuites,
		// gRPC offers h2 alone; who offers both is a tool of people and gets HTTP/1.1 (internal/frontdoor).
		NextProtos: []string{"http/1.1", "h2"},
		// A resumed session would be a way around a CA that was taken away.
		SessionTicketsDisabled: true,
	}
	if f.CA != "" {
		base.ClientAuth = tls.RequireAndVerifyClientCert
	}
	config := base.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := r.look()
		c := base.Clone()
		c.Certificates = []tls.Certificate{*now.pair}
		c.ClientCAs = now.pool
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
		Time:       r.cfg.Clock.Wall,
		MinVersion: tls.VersionTLS12,
		ServerName: serverName,
		RootCAs:    r.look().pool, // Nil: those of the machine.
	}
	if r.cfg.Files.Cert != "" {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return r.Certificate(), nil
		}
	}
	return config
}
