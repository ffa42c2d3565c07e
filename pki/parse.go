package pki

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	certBlock       = "CERTIFICATE"
	revocationBlock = "X509 CRL"
)

// parsePair checks that a certificate and a key belong together and that the
// certificate is good now.
func parsePair(certPEM, keyPEM []byte, certFile, keyFile string, now time.Time) (*tls.Certificate, error) {
	certs, err := parseCerts(certPEM, certFile)
	if err != nil {
		return nil, err
	}
	if !hasKeyBlock(keyPEM) {
		return nil, fmt.Errorf("%s: %w: PRIVATE KEY (is it the key file, in PEM?)", keyFile, ErrNotPEM)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		if strings.Contains(err.Error(), "does not match") {
			return nil, fmt.Errorf("%s, %s: %w: put the files of one pair together again", certFile, keyFile, ErrKeyMismatch)
		}
		return nil, fmt.Errorf("%s, %s: %w", certFile, keyFile, err)
	}
	pair.Leaf = certs[0]
	return &pair, checkDates(certs[0], certFile, now)
}

func checkDates(cert *x509.Certificate, file string, now time.Time) error {
	switch {
	case now.After(cert.NotAfter):
		return fmt.Errorf("%s: %w on %s: issue a new one", file, ErrExpired, day(cert.NotAfter))
	case now.Before(cert.NotBefore):
		return fmt.Errorf("%s: %w, but from %s on: check this machine's clock", file, ErrNotYetValid, day(cert.NotBefore))
	default:
		return nil
	}
}

// parseCerts reads all certificates of a PEM file, at least one.
func parseCerts(data []byte, file string) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != certBlock {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", file, len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s: %w: %s (is it a certificate file, in PEM?)", file, ErrNotPEM, certBlock)
	}
	return certs, nil
}

// parseKey reads the first private key of a file.
func parseKey(data []byte, file string) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, fmt.Errorf("%s: %w: %s (is it a key file, in PEM?)", file, ErrNotPEM, keyBlock)
		}
		if block.Type != keyBlock {
			continue
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("%s: its key cannot sign", file)
		}
		return signer, nil
	}
}

func hasKeyBlock(data []byte) bool {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return false
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return true
		}
	}
}

// parsePool reads the authorities that are trusted.
func parsePool(data []byte, file string) (*x509.CertPool, [][]byte, error) {
	certs, err := parseCerts(data, file)
	if err != nil {
		return nil, nil, err
	}
	pool, ders := x509.NewCertPool(), make([][]byte, len(certs))
	for i, cert := range certs {
		pool.AddCert(cert)
		ders[i] = cert.Raw
	}
	return pool, ders, nil
}

func parseAuthority(certPEM, keyPEM []byte) (*Authority, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("the authority's key cannot sign")
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, err
	}
	if !cert.IsCA {
		return nil, fmt.Errorf("%w: %q", ErrNotAuthority, cert.Subject.CommonName)
	}
	return &Authority{cert: cert, key: key, roots: certPEM}, nil
}

// parseRevoked reads the lists of a file, in PEM or DER, into serial numbers.
func parseRevoked(data []byte, file string) (map[string]bool, error) {
	var lists [][]byte
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == revocationBlock {
			lists = append(lists, block.Bytes)
		}
	}
	if lists == nil {
		lists = [][]byte{data}
	}
	revoked := map[string]bool{}
	for _, der := range lists {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("%s: not a list of revoked certificates, in PEM or DER: %w", file, err)
		}
		for _, c := range list.RevokedCertificateEntries {
			revoked[c.SerialNumber.String()] = true
		}
	}
	return revoked, nil
}
