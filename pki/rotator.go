package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// RotatorConfig is what a Rotator stands on.
type RotatorConfig struct {
	FS     vfs.FS
	Clock  clock.Clock
	Logger hclog.Logger
	Dir    string // Made when missing.
	Name   string // Of the files.

	Subject pkix.Name
	Hosts   []string // Of a serving certificate.
	Key     KeyType

	// Sign asks for a certificate. The request's name follows from its key: who asks
	// again after a crash asks the same. trusted are the authorities, in PEM.
	Sign func(ctx context.Context, name string, csr []byte) (cert, trusted []byte, err error)

	// Spread is chance from 0 to 1, so that nodes made in one minute do not all
	// renew in one.
	Spread func() float64
}

// Rotator gets a certificate and renews it, for as long as it runs. Its files:
//
//	NAME.pem           certificate and key in one, replaced at once
//	NAME-ca.pem        the authorities that are trusted
//	NAME-pending.pem   a key that waits for its certificate, and the request
//
// A key is made here and stays here. One that waits is kept until its certificate
// is there: after a crash the same request is made again, and whoever signed it
// already may answer the same.
//
// A Reloader of Files serves what is here, and notices each renewal.
type Rotator struct {
	cfg   RotatorConfig
	pair  atomic.Pointer[tls.Certificate]
	roots atomic.Pointer[[]byte] // PEM.
	hurry chan struct{}
}

// NewRotator reads what is there. That there is nothing yet is no error, see Ready.
func NewRotator(cfg RotatorConfig) (*Rotator, error) {
	if err := checkFileName(cfg.Name); err != nil {
		return nil, err
	}
	if err := vfs.MakeFolder(cfg.FS, cfg.Dir); err != nil {
		return nil, err
	}
	r := &Rotator{cfg: cfg, hurry: make(chan struct{}, 1)}
	f := r.Files()
	data, err := readFile(cfg.FS, f.Cert)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	roots, err := readFile(cfg.FS, f.CA)
	if err != nil {
		return nil, err
	}
	pair, err := parsePair(data, data, f.Cert, f.Cert, cfg.Clock.Wall())
	if errors.Is(err, ErrExpired) {
		cfg.Logger.Warn("certificate has expired, asking for the first one again", "file", f.Cert)
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	if err := r.fits(pair.Leaf); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Cert, err)
	}
	r.pair.Store(pair)
	r.roots.Store(&roots)
	return r, nil
}

// Files are for a Reloader, once there is a certificate.
func (r *Rotator) Files() Files {
	pair := r.file("")
	return Files{Cert: pair, Key: pair, CA: r.file("-ca")}
}

func (r *Rotator) file(suffix string) string {
	return filepath.Join(r.cfg.Dir, r.cfg.Name+suffix+".pem")
}

// Certificate is the present one, nil before the first.
func (r *Rotator) Certificate() *tls.Certificate { return r.pair.Load() }

// Trust tells which authorities the cluster trusts now. Where they are others than
// came with the certificate a rotation is under way, and it is renewed at once.
func (r *Rotator) Trust(roots []byte) {
	if now := r.roots.Load(); now == nil || bytes.Equal(*now, roots) {
		return
	}
	select {
	case r.hurry <- struct{}{}:
	default: // It is told already.
	}
}

// Ready gets the first certificate unless there is one. It asks until it is given
// one or refused for good.
func (r *Rotator) Ready(ctx context.Context) error {
	for pause := rotateRetryMin; r.pair.Load() == nil; pause = min(2*pause, rotateRetryMax) {
		err := r.Renew(ctx)
		if err == nil {
			return nil
		}
		if final := refusal(err); final {
			return err
		}
		r.cfg.Logger.Warn("no certificate yet, asking again", "in", pause.String(), "error", err)
		if err := r.wait(ctx, pause); err != nil {
			return err
		}
	}
	return nil
}

// refusal tells of errors that do not go away by asking again.
func refusal(err error) bool {
	return errors.Is(err, ErrNotAllowed) || errors.Is(err, ErrRequest)
}

// Run renews at 70 to 90 percent of each certificate's life, and when Trust says so.
func (r *Rotator) Run(ctx context.Context) error {
	for {
		if err := r.Ready(ctx); err != nil {
			return err
		}
		if err := r.wait(ctx, r.untilDue()); err != nil {
			return err
		}
		for pause := rotateRetryMin; ; pause = min(2*pause, rotateRetryMax) {
			err := r.Renew(ctx)
			if err == nil {
				break
			}
			r.cfg.Logger.Warn("certificate was not renewed, asking again", "in", pause.String(), "not-after", day(r.pair.Load().Leaf.NotAfter), "error", err)
			if err := r.wait(ctx, pause); err != nil {
				return err
			}
		}
	}
}

// untilDue is the time left until the certificate is to be renewed.
func (r *Rotator) untilDue() time.Duration {
	leaf := r.pair.Load().Leaf
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	share := rotateFirst + (rotateLast-rotateFirst)*r.cfg.Spread()
	return leaf.NotBefore.Add(time.Duration(float64(life) * share)).Sub(r.cfg.Clock.Wall())
}

// wait returns at once for a time that has passed. The time of day may jump
// meanwhile: it is looked at again each hour.
func (r *Rotator) wait(ctx context.Context, d time.Duration) error {
	end := r.cfg.Clock.Wall().Add(d)
	for left := d; left > 0; left = end.Sub(r.cfg.Clock.Wall()) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.hurry:
			return nil
		case <-r.cfg.Clock.After(min(left, rotateLook)):
		}
	}
	return ctx.Err()
}

// Renew asks for one certificate and puts it in place.
func (r *Rotator) Renew(ctx context.Context) error {
	key, csr, err := r.pending()
	if err != nil {
		return err
	}
	name, err := KeyHash(key.Public())
	if err != nil {
		return err
	}
	cert, roots, err := r.cfg.Sign(ctx, "node-csr-"+name[:32], csr)
	if err != nil {
		return err
	}
	return r.install(cert, roots, key)
}

// install checks what was signed before anything is replaced. Authorities go
// first: between the two files the old certificate and more trust are fine.
func (r *Rotator) install(cert, roots []byte, key crypto.Signer) error {
	f := r.Files()
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	whole := append(bytes.TrimSpace(bytes.Clone(cert)), '\n')
	whole = append(whole, keyPEM...)
	pair, err := parsePair(whole, whole, f.Cert, f.Cert, r.cfg.Clock.Wall())
	if err != nil {
		return fmt.Errorf("what was signed is of no use: %w", err)
	}
	if err := r.fits(pair.Leaf); err != nil {
		return fmt.Errorf("what was signed is of no use: %w", err)
	}
	pool, _, err := parsePool(roots, f.CA)
	if err != nil {
		return err
	}
	between := x509.NewCertPool()
	between.AppendCertsFromPEM(cert)
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: between, CurrentTime: r.cfg.Clock.Wall(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return fmt.Errorf("what was signed is of no use: %w", err)
	}
	if err := vfs.ReplaceFile(r.cfg.FS, f.CA, roots); err != nil {
		return err
	}
	if err := vfs.ReplaceFile(r.cfg.FS, f.Cert, whole); err != nil {
		return err
	}
	r.pair.Store(pair)
	r.roots.Store(&roots)
	r.cfg.Logger.Info("certificate in place", "file", f.Cert, "not-after", day(pair.Leaf.NotAfter))
	if err := r.cfg.FS.Remove(r.file("-pending")); err != nil {
		return err
	}
	return r.cfg.FS.SyncDir(r.cfg.Dir)
}

func (r *Rotator) fits(leaf *x509.Certificate) error {
	if !sameSubject(leaf.Subject, r.cfg.Subject) {
		return fmt.Errorf("%w: it is for %s, not for %s: rename it, to get one anew", ErrFiles, describe(leaf.Subject), describe(r.cfg.Subject))
	}
	for _, host := range r.cfg.Hosts {
		if err := leaf.VerifyHostname(host); err != nil {
			return fmt.Errorf("%w: %w: rename it, to get one anew", ErrFiles, err)
		}
	}
	return nil
}

// pending returns the key that waits, or makes one and keeps it. A key whose
// certificate is in place already was left by a crash, and is used up.
func (r *Rotator) pending() (crypto.Signer, []byte, error) {
	file := r.file("-pending")
	var ips []net.IP
	ips, names, err := splitHosts(r.cfg.Hosts)
	if err != nil {
		return nil, nil, err
	}
	data, err := readFile(r.cfg.FS, file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if err == nil {
		key, err := parseKey(data, file)
		if err != nil {
			return nil, nil, err
		}
		if !r.usedUp(key) {
			csr, err := newCSR(r.cfg.Subject, ips, names, key)
			return key, csr, err
		}
	}
	key, err := r.cfg.Key.generate()
	if err != nil {
		return nil, nil, err
	}
	csr, err := newCSR(r.cfg.Subject, ips, names, key)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, nil, err
	}
	return key, csr, vfs.ReplaceFile(r.cfg.FS, file, append(keyPEM, csr...))
}

func (r *Rotator) usedUp(key crypto.Signer) bool {
	pair := r.pair.Load()
	if pair == nil {
		return false
	}
	public, ok := pair.Leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key.Public())
}
