package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-db/holdfast/tests/bench/process"
	"github.com/holdfast-db/holdfast/tests/bench/wire"
)

// How users say who they are.
const (
	byToken       = "jwt"
	byCertificate = "cn"
)

const (
	withUsers = "users"
	appUser   = "app"
	password  = "of the bench"
)

// withAndWithoutUsers is the same server twice, with the same flags: users are
// made in the second one.
func (b *bench) withAndWithoutUsers(by string, of process.Kind) ([]process.Kind, error) {
	dir := filepath.Join(b.dir, "keys")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if by == byToken {
		public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err := errors.Join(err, writeKey(file("jwt.key"), key), writePEM(file("jwt.pub"), "PUBLIC KEY", public)); err != nil {
			return nil, err
		}
		of.Flags = []string{"--auth-token", "jwt,sign-method=ES256,ttl=1h,priv-key=" + file("jwt.key") + ",pub-key=" + file("jwt.pub")}
	} else {
		pair, pool, err := certificates(file, key)
		if err != nil {
			return nil, err
		}
		of.Flags = []string{"--client-cert-auth", "--cert-file", file("cert.pem"), "--key-file", file("key.pem"), "--trusted-ca-file", file("cert.pem")}
		of.Both = true
		of.Dialer.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ServerName: "localhost", NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}
	}
	on := of
	of.Name, on.Name = "nobody", withUsers
	return []process.Kind{of, on}, nil
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return errors.Join(err, writePEM(path, "PRIVATE KEY", der))
}

// certificates makes one for both sides, which is its own authority and names the user.
func certificates(file func(string) string, key *ecdsa.PrivateKey) (tls.Certificate, *x509.CertPool, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: appUser},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 1, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err := errors.Join(err, writePEM(file("cert.pem"), "CERTIFICATE", der), writeKey(file("key.pem"), key)); err != nil {
		return tls.Certificate{}, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	pair, err := tls.LoadX509KeyPair(file("cert.pem"), file("key.pem"))
	return pair, pool, err
}

// open starts the servers, with users if the kind has some.
func (t *trial) open(ctx context.Context) error {
	if _, err := t.Start(); err != nil {
		return err
	}
	if t.Kind.Name != withUsers {
		return nil
	}
	name := map[string]any{"name": appUser, "password": password}
	for _, step := range []struct {
		path string
		body map[string]any
	}{
		{"user/add", map[string]any{"name": "root", "password": password}},
		{"user/grant", map[string]any{"user": "root", "role": "root"}},
		{"user/add", name},
		{"role/add", map[string]any{"name": appUser}},
		{"role/grant", map[string]any{"name": appUser, "perm": map[string]any{"permType": "READWRITE", "key": []byte{0}, "range_end": []byte{0}}}},
		{"user/grant", map[string]any{"user": appUser, "role": appUser}},
		{"enable", map[string]any{}},
	} {
		if _, err := t.json(ctx, step.path, step.body); err != nil {
			return err
		}
	}
	if t.Kind.Dialer.TLS != nil {
		return nil // Its certificate says who it is.
	}
	token, err := t.json(ctx, "authenticate", name)
	t.Kind.Dialer = wire.Dialer{Token: token}
	return err
}

// json makes a call to the first member that manages users.
func (t *trial) json(ctx context.Context, path string, body map[string]any) (token string, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+t.Addrs()[0]+"/v3/auth/"+path, bytes.NewReader(text))
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return "", errors.Join(err, fmt.Errorf("%s: %s %s", path, res.Status, said))
	}
	var answer struct{ Token string }
	err = json.Unmarshal(said, &answer)
	return answer.Token, err
}
