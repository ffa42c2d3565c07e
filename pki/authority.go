package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Request says what a certificate shall hold.
type Request struct {
	Profile       Profile
	Terms         *Terms        // What the profile means. Nil: built-in.
	CommonName    string        // Of a client certificate: the user it logs in.
	Organizations []string      // Of a client certificate: the groups of that user.
	Names         pkix.Name     // Further parts of the subject. Its own common name is ignored.
	Hosts         []string      // IP addresses and DNS names the holder is dialed by.
	Validity      time.Duration // 0 means that of the terms, else 5 years, or as long as the authority if that ends first.
	Key           KeyType
}

// AuthorityRequest says what a new authority shall be.
type AuthorityRequest struct {
	CommonName string
	Names      pkix.Name     // Further parts of the subject.
	Validity   time.Duration // 0 means 5 years.
	Key        KeyType

	// Intermediates is how many authorities may stand between it and a
	// certificate: usually none, it signs members and users. -1: any number.
	Intermediates int
}

// Pair is a certificate and its private key in PEM, and the request that led to
// them, as other tools want it.
type Pair struct {
	Cert, Key, CSR []byte
	NotAfter       time.Time
}

// Authority signs certificates.
type Authority struct {
	cert  *x509.Certificate
	key   crypto.Signer
	roots []byte // PEM: all that are trusted, itself first.
}

// newAuthority makes a self-signed authority.
func newAuthority(req AuthorityRequest, now time.Time) (*Authority, *Pair, error) {
	if strings.TrimSpace(req.CommonName) == "" {
		return nil, nil, fmt.Errorf("%w: an authority needs a common name", ErrRequest)
	}
	validity, err := validityOf(req.Validity)
	if err != nil {
		return nil, nil, err
	}
	key, err := req.Key.generate()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		Subject:               subject(req.Names, req.CommonName, nil),
		NotBefore:             now.Add(-backdating),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            req.Intermediates,
		MaxPathLenZero:        req.Intermediates == 0,
	}
	pair, err := signPair(template, template, key, key)
	if err != nil {
		return nil, nil, err
	}
	a, err := parseAuthority(pair.Cert, pair.Key)
	return a, pair, err
}

// Roots are the certificates to be trusted, in PEM: this authority's, and during
// a rotation another.
func (a *Authority) Roots() []byte { return bytes.Clone(a.roots) }

// Hash is what a join token knows the authority by.
func (a *Authority) Hash() [sha256.Size]byte { return sha256.Sum256(a.cert.Raw) }

// NotAfter is when it ends, and everything that it signed.
func (a *Authority) NotAfter() time.Time { return a.cert.NotAfter }

// Issue makes a key and signs a certificate for it.
func (a *Authority) Issue(req Request, now time.Time) (*Pair, error) {
	template, terms, err := a.template(req, now)
	if err != nil {
		return nil, err
	}
	key, err := req.Key.generate()
	if err != nil {
		return nil, err
	}
	template.KeyUsage = terms.usageFor(key.Public())
	return signPair(template, a.cert, key, a.key)
}

// Sign signs a certificate for the key of a PKCS #10 request in PEM, and for
// nothing else of it: who calls says what the certificate holds.
func (a *Authority) Sign(csr []byte, req Request, now time.Time) (cert []byte, notAfter time.Time, err error) {
	asked, err := ParseCSR(csr)
	if err != nil {
		return nil, time.Time{}, err
	}
	template, terms, err := a.template(req, now)
	if err != nil {
		return nil, time.Time{}, err
	}
	template.KeyUsage = terms.usageFor(asked.PublicKey)
	cert, err = sign(template, a.cert, asked.PublicKey, a.key)
	return cert, template.NotAfter, err
}

// template is what would be signed, except for what depends on the key.
func (a *Authority) template(req Request, now time.Time) (*x509.Certificate, Terms, error) {
	template, terms, err := req.template(now)
	if err != nil {
		return nil, terms, err
	}
	if end := a.cert.NotAfter; template.NotAfter.After(end) {
		asked := req.Validity != 0 || terms.Validity != 0
		if asked && template.NotAfter.Sub(end) > validitySlack {
			return nil, terms, fmt.Errorf("%w: valid until %s, but the authority only until %s: ask for less or renew the authority",
				ErrRequest, day(template.NotAfter), day(end))
		}
		template.NotAfter = end
	}
	if terms.IsCA && a.cert.MaxPathLenZero {
		return nil, terms, fmt.Errorf("%w: %q signs no other authorities: the profile's ca_constraint cannot be kept", ErrRequest, a.cert.Subject.CommonName)
	}
	return template, terms, nil
}

func (r Request) template(now time.Time) (*x509.Certificate, Terms, error) {
	terms, err := r.terms()
	if err != nil {
		return nil, terms, err
	}
	if strings.TrimSpace(r.CommonName) == "" {
		return nil, terms, fmt.Errorf("%w: a %s certificate needs a common name", ErrRequest, r.Profile)
	}
	validity := r.Validity
	if validity == 0 {
		validity = terms.Validity
	}
	if validity, err = validityOf(validity); err != nil {
		return nil, terms, err
	}
	if terms.Dialed && len(r.Hosts) == 0 {
		return nil, terms, fmt.Errorf("%w: a %s certificate needs the IP addresses and names it is dialed by", ErrRequest, r.Profile)
	}
	backdate := backdating
	if terms.Backdate != 0 {
		backdate = terms.Backdate
	}
	template := &x509.Certificate{
		Subject:               subject(r.Names, r.CommonName, r.Organizations),
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(validity),
		KeyUsage:              terms.KeyUsage,
		ExtKeyUsage:           terms.ExtKeyUsage,
		BasicConstraintsValid: true,
		OCSPServer:            terms.OCSP,
		CRLDistributionPoints: terms.CRL,
		IssuingCertificateURL: terms.Issuers,
	}
	if terms.IsCA {
		template.IsCA, template.MaxPathLen, template.MaxPathLenZero = true, terms.Intermediates, terms.Intermediates == 0
	}
	template.IPAddresses, template.DNSNames, err = splitHosts(r.Hosts)
	return template, terms, err
}

func (r Request) terms() (Terms, error) {
	if r.Terms != nil {
		return *r.Terms, nil
	}
	return Signing{}.Terms(r.Profile)
}

func subject(names pkix.Name, commonName string, organizations []string) pkix.Name {
	names.CommonName = commonName
	names.Organization = append(slices.Clone(names.Organization), organizations...)
	return names
}

func splitHosts(hosts []string) (ips []net.IP, names []string, err error) {
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			ips = append(ips, ip)
		} else if err := checkName(host); err != nil {
			return nil, nil, err
		} else {
			names = append(names, host)
		}
	}
	return ips, names, nil
}

// checkName refuses what is often given by mistake: URLs and host:port, which
// would make a certificate that no client accepts.
func checkName(host string) error {
	for i, label := range strings.Split(strings.ToLower(host), ".") {
		wildcard := label == "*" && i == 0
		if !wildcard && (label == "" || len(label) > 63 || strings.Trim(label, nameBytes) != "" || strings.HasPrefix(label, "-")) {
			return fmt.Errorf("%w: host %q is neither an IP address nor a DNS name (give it without scheme and port)", ErrRequest, host)
		}
	}
	return nil
}

const nameBytes = "abcdefghijklmnopqrstuvwxyz0123456789-_"

func validityOf(d time.Duration) (time.Duration, error) {
	if d < 0 {
		return 0, fmt.Errorf("%w: validity %v is negative", ErrRequest, d)
	}
	if d == 0 {
		return validityDefault, nil
	}
	return d, nil
}

func signPair(template, parent *x509.Certificate, key, parentKey crypto.Signer) (*Pair, error) {
	cert, err := sign(template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	csr, err := newCSR(template.Subject, template.IPAddresses, template.DNSNames, key)
	return &Pair{Cert: cert, Key: keyPEM, CSR: csr, NotAfter: template.NotAfter}, err
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, parentKey crypto.Signer) ([]byte, error) {
	cert, err := x509.CreateCertificate(rand.Reader, template, parent, public, parentKey)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %q: %w", template.Subject.CommonName, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: cert}), nil
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
