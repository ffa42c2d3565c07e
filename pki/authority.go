package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"strings"
	"time"
)

// Request says what a certificate shall hold.
type Request struct {
	Profile       Profile
	CommonName    string        // Of a client certificate: the user it logs in.
	Organizations []string      // Optional.
	Hosts         []string      // IP addresses and DNS names the holder is dialed by.
	Validity      time.Duration // 0 means 5 years, or as long as the authority if that ends first.
	Key           KeyType
}

// AuthorityRequest says what a new authority shall be.
type AuthorityRequest struct {
	CommonName string
	Validity   time.Duration // 0 means 5 years.
	Key        KeyType
}

// Pair is a certificate and its private key in PEM.
type Pair struct {
	Cert, Key []byte
	NotAfter  time.Time
}

// Authority signs certificates.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
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
		Subject:               pkix.Name{CommonName: req.CommonName},
		NotBefore:             now.Add(-backdating),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // It signs members and users, not other authorities.
	}
	pair, err := sign(template, template, key, key)
	if err != nil {
		return nil, nil, err
	}
	a, err := parseAuthority(pair.Cert, pair.Key)
	return a, pair, err
}

// Issue makes a key and signs a certificate for it.
func (a *Authority) Issue(req Request, now time.Time) (*Pair, error) {
	template, err := req.template(now)
	if err != nil {
		return nil, err
	}
	if end := a.cert.NotAfter; template.NotAfter.After(end) {
		if req.Validity != 0 && template.NotAfter.Sub(end) > validitySlack {
			return nil, fmt.Errorf("%w: valid until %s, but the authority only until %s: ask for less or renew the authority",
				ErrRequest, day(template.NotAfter), day(end))
		}
		template.NotAfter = end
	}
	key, err := req.Key.generate()
	if err != nil {
		return nil, err
	}
	if _, isRSA := key.(*rsa.PrivateKey); isRSA {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	return sign(template, a.cert, key, a.key)
}

func (r Request) template(now time.Time) (*x509.Certificate, error) {
	usages, err := r.Profile.usages()
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(r.CommonName) == "" {
		return nil, fmt.Errorf("%w: a %s certificate needs a common name", ErrRequest, r.Profile)
	}
	validity, err := validityOf(r.Validity)
	if err != nil {
		return nil, err
	}
	if r.Profile.named() && len(r.Hosts) == 0 {
		return nil, fmt.Errorf("%w: a %s certificate needs the IP addresses and names it is dialed by", ErrRequest, r.Profile)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: r.CommonName, Organization: r.Organizations},
		NotBefore:             now.Add(-backdating),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usages,
		BasicConstraintsValid: true,
	}
	for _, host := range r.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if err := checkName(host); err != nil {
			return nil, err
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return template, nil
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

func sign(template, parent *x509.Certificate, key, parentKey crypto.Signer) (*Pair, error) {
	cert, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %q: %w", template.Subject.CommonName, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &Pair{
		Cert:     pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: cert}),
		Key:      pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		NotAfter: template.NotAfter,
	}, nil
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
