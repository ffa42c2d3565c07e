package pki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Expiry is when one certificate ends.
type Expiry struct {
	Where   string // The file, or the endpoint that showed it.
	Subject string
	IsCA    bool
	Begins  time.Time
	Ends    time.Time
}

// ExpiryOf tells of one certificate.
func ExpiryOf(cert *x509.Certificate, where string) Expiry {
	return Expiry{Where: where, Subject: cert.Subject.String(), IsCA: cert.IsCA, Begins: cert.NotBefore, Ends: cert.NotAfter}
}

// Soon tells whether it ends within 30 days, or has ended.
func (e Expiry) Soon(now time.Time) bool { return e.Ends.Sub(now) < expirySoon }

// Expiries lists every certificate of the files *.pem and *.crt in a folder, by
// name. Files that hold something else are left out; those that hold a certificate
// nobody can read are an error.
func Expiries(fsys vfs.FS, dir string) ([]Expiry, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	var all []Expiry
	for _, name := range names {
		if ext := filepath.Ext(name); ext != ".pem" && ext != ".crt" {
			continue
		}
		file := filepath.Join(dir, name)
		data, err := readFile(fsys, file)
		if err != nil {
			return nil, err
		}
		certs, err := parseCerts(data, file)
		if errors.Is(err, ErrNotPEM) && hasBlock(data) {
			continue // A key.
		}
		if err != nil {
			return nil, err
		}
		for _, cert := range certs {
			all = append(all, ExpiryOf(cert, file))
		}
	}
	return all, nil
}

func hasBlock(data []byte) bool {
	block, _ := pem.Decode(data)
	return block != nil
}

// Pairs are the names of the pairs in the folder, without authorities.
func (s Store) Pairs() ([]string, error) {
	files, err := s.FS.List(s.Dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, file := range files {
		name, isCert := strings.CutSuffix(file, ".pem")
		if !isCert || reservedNames[name] || strings.HasSuffix(name, "-key") {
			continue
		}
		if whole, err := s.hasPair(name); err != nil {
			return nil, err
		} else if whole {
			names = append(names, name)
		}
	}
	return names, nil
}

// Renew replaces a pair by one that holds the same and lives as long, with a new
// key of the same kind.
func (s Store) Renew(a *Authority, name string) (*Written, error) {
	if err := checkFileName(name); err != nil {
		return nil, err
	}
	certs, err := s.readCerts(name)
	if err != nil {
		return nil, err
	}
	old, now := certs[0], s.Clock.Wall()
	key, err := keyTypeOf(old)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	terms := Terms{
		KeyUsage: old.KeyUsage, ExtKeyUsage: old.ExtKeyUsage, IsCA: old.IsCA, Intermediates: old.MaxPathLen,
		OCSP: old.OCSPServer, CRL: old.CRLDistributionPoints, Issuers: old.IssuingCertificateURL,
	}
	req := Request{
		Terms: &terms, CommonName: old.Subject.CommonName, Names: old.Subject, Key: key,
		Hosts: hostsOf(old), Validity: min(old.NotAfter.Sub(old.NotBefore)-backdating, a.cert.NotAfter.Sub(now)),
	}
	s.Replace = true
	csr := filepath.Join(s.Dir, name+".csr")
	if s.Requests, err = vfs.Exists(s.FS, csr); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return s.Issue(a, name, req)
}

func hostsOf(cert *x509.Certificate) []string {
	return Hosts(&x509.CertificateRequest{IPAddresses: cert.IPAddresses, DNSNames: cert.DNSNames})
}

func keyTypeOf(cert *x509.Certificate) (KeyType, error) {
	k := Ed25519
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		k = KeyType(fmt.Sprintf("%s-%d", ECDSA, key.Curve.Params().BitSize))
	case *rsa.PublicKey:
		k = KeyType(fmt.Sprintf("%s-%d", RSA, key.N.BitLen()))
	case ed25519.PublicKey:
	default:
		return "", fmt.Errorf("%w: a key of kind %s cannot be made here", ErrRequest, cert.PublicKeyAlgorithm)
	}
	return k, k.check()
}
