package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/pki"
)

// certificates secure one kind of connection; nil means cleartext.
type certificates struct {
	accept *tls.Config
	dial   func() *tls.Config // For one connection: files may have changed since the last.
}

func (c *certificates) dialing() func() *tls.Config {
	if c == nil {
		return nil
	}
	return c.dial
}

// autoFolder holds the certificates of TLS.Auto, in the data directory, where
// etcd keeps them.
const autoFolder = "fixtures"

// certificates reads the files for connections of a kind, accepted on urls.
func (s *Server) certificates(t TLS, kind string, urls []string) (*certificates, error) {
	policy, err := s.cfg.tlsPolicy(t)
	if err != nil {
		return nil, err
	}
	files := pki.Files{Cert: t.CertFile, Key: t.KeyFile, CA: t.CAFile, CRL: t.CRLFile}
	switch {
	case t.CertFile != "" && t.Auto:
		s.log.Warn("a certificate is given: none is made", "for", kind)
	case t.CertFile == "" && !t.Auto:
		return nil, nil
	case t.CertFile == "":
		store := pki.Store{FS: s.cfg.FS, Clock: s.cfg.Clock, Dir: filepath.Join(s.dir.Path(), autoFolder, kind), Replace: true}
		made, err := store.SelfSigned("cert", hostsOf(urls), time.Duration(s.cfg.SelfSignedYears)*365*24*time.Hour)
		if err != nil {
			return nil, err
		}
		s.log.Warn("using a certificate without authority: whoever dials must not check it, or trust this file", "for", kind, "file", made.Cert)
		files.Cert, files.Key, policy.Blind = made.Cert, made.Key, t.CAFile == ""
	}
	own, err := s.reloader(files, policy)
	if err != nil {
		return nil, err
	}
	c := &certificates{}
	if c.accept, err = own.ServerConfig(pki.ServerOptions{ClientAuth: t.ClientCertAuth}); err != nil {
		return nil, err
	}
	shown := own
	if t.ClientCertFile != "" {
		files.Cert, files.Key = t.ClientCertFile, t.ClientKeyFile
		if shown, err = s.reloader(files, policy); err != nil {
			return nil, err
		}
	}
	s.shown = append(s.shown, own, shown)
	c.dial = func() *tls.Config { return shown.ClientConfig("") }
	return c, nil
}

func (s *Server) reloader(files pki.Files, policy pki.Policy) (*pki.Reloader, error) {
	return pki.AwaitReloader(pki.Config{FS: s.cfg.FS, Clock: s.cfg.Clock, Logger: s.log, Files: files, Policy: policy})
}

// hostsOf are the hosts of URLs, for a certificate.
func hostsOf(urls []string) []string {
	hosts := []string{"localhost"}
	for _, raw := range urls {
		if u, err := url.Parse(raw); err == nil && !isUnix(u) && u.Hostname() != "" && !slices.Contains(hosts, u.Hostname()) {
			hosts = append(hosts, u.Hostname())
		}
	}
	return hosts
}

func (c Config) clientURLs() []string {
	return slices.Concat(c.ListenClientURLs, c.ListenClientHTTPURLs, c.AdvertiseClientURLs)
}

func (c Config) peerURLs() []string { return slices.Concat(c.ListenPeerURLs, c.AdvertisePeerURLs) }

// tlsPolicy is what the settings say of connections of a kind.
func (c Config) tlsPolicy(t TLS) (pki.Policy, error) {
	p := pki.Policy{AllowedNames: t.AllowedNames, AllowedHosts: t.AllowedHosts}
	var err error
	if p.MinVersion, err = pki.ParseVersion(c.TLSMinVersion); err != nil {
		return p, fmt.Errorf("--tls-min-version: %w", err)
	}
	if p.MaxVersion, err = pki.ParseVersion(c.TLSMaxVersion); err != nil {
		return p, fmt.Errorf("--tls-max-version: %w", err)
	}
	if p.CipherSuites, err = pki.ParseCipherSuites(c.CipherSuites); err != nil {
		return p, fmt.Errorf("--cipher-suites: %w", err)
	}
	switch {
	case p.MaxVersion != 0 && p.MinVersion > p.MaxVersion:
		return p, fmt.Errorf("--tls-min-version %s is newer than --tls-max-version %s: no connection could be made", c.TLSMinVersion, c.TLSMaxVersion)
	case p.MinVersion == tls.VersionTLS13 && len(p.CipherSuites) > 0:
		return p, errors.New("--cipher-suites are of TLS 1.2, and --tls-min-version is TLS1.3: leave one of them out")
	}
	return p, nil
}

// checkTLS reports what is wrong with the settings of TLS.
func (c Config) checkTLS() error {
	_, err := c.tlsPolicy(TLS{})
	if c.SelfSignedYears < 0 {
		err = errors.Join(err, fmt.Errorf("--self-signed-cert-validity is %d years: use 1 or more", c.SelfSignedYears))
	}
	listening := slices.Concat(c.ListenClientURLs, c.ListenClientHTTPURLs, c.ListenMetricsURLs)
	return errors.Join(err, c.ClientTLS.check(listening, "", "client-"), c.PeerTLS.check(c.ListenPeerURLs, "peer-", "peer-"))
}

func (t TLS) check(urls []string, prefix, whose string) error {
	if (t.CertFile == "") != (t.KeyFile == "") {
		return fmt.Errorf("--%scert-file and --%skey-file go together: give both or none", prefix, prefix)
	}
	if len(t.AllowedNames) > 0 && len(t.AllowedHosts) > 0 {
		return fmt.Errorf("--%scert-allowed-cn and --%scert-allowed-hostname exclude each other: give one of them", whose, whose)
	}
	if rule := t.aboutOthers(whose); rule != "" && t.CAFile == "" {
		return fmt.Errorf("--%s looks at certificates of the other side, which nobody verifies without --%strusted-ca-file: give that too", rule, prefix)
	}
	for _, u := range urls {
		if scheme, _, _ := strings.Cut(u, "://"); isSecure(u) && t.CertFile == "" && !t.Auto {
			return fmt.Errorf("%s wants TLS: give --%scert-file and --%skey-file, or --%sauto-tls, or use %s://", u, prefix, prefix, prefix, strings.TrimSuffix(scheme, "s"))
		}
	}
	return nil
}

// aboutOthers names a flag that is given and looks at the other side's
// certificate; "" when there is none.
func (t TLS) aboutOthers(whose string) string {
	switch {
	case t.CRLFile != "":
		return whose + "crl-file"
	case len(t.AllowedNames) > 0:
		return whose + "cert-allowed-cn"
	case len(t.AllowedHosts) > 0:
		return whose + "cert-allowed-hostname"
	}
	return ""
}
