package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
)

const (
	csrBlock = "CERTIFICATE REQUEST"
	keyBlock = "PRIVATE KEY"
)

// ParseCSR reads one PKCS #10 request in PEM and checks that who made it has the
// key.
func ParseCSR(data []byte) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != csrBlock && block.Type != "NEW "+csrBlock {
		return nil, fmt.Errorf("%w: %w: %s (is it a request, in PEM?)", ErrRequest, ErrNotPEM, csrBlock)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%w: more than one PEM block: give one request", ErrRequest)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: its signature is not that of its key: %w", ErrRequest, err)
	}
	if key, isRSA := csr.PublicKey.(*rsa.PublicKey); isRSA && (key.N.BitLen() < rsaKeyBits || key.N.BitLen() > rsaKeyBitsMax) {
		return nil, fmt.Errorf("%w: an RSA key has %d to %d bits, not %d", ErrRequest, rsaKeyBits, rsaKeyBitsMax, key.N.BitLen())
	}
	return csr, nil
}

// Hosts are the IP addresses and DNS names that a request asks for.
func Hosts(csr *x509.CertificateRequest) []string {
	var hosts []string
	for _, ip := range csr.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return append(hosts, csr.DNSNames...)
}

// KeyHash names a public key: the SHA-256 of its PKIX form, in hexadecimal. What
// is named by it is found again by whoever has the key, after a crash too.
func KeyHash(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrRequest, err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

func newCSR(name pkix.Name, ips []net.IP, names []string, key crypto.Signer) ([]byte, error) {
	template := &x509.CertificateRequest{Subject: name, IPAddresses: ips, DNSNames: names}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("sign request of %q: %w", name.CommonName, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: csrBlock, Bytes: der}), nil
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}
