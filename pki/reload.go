package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Files names the PEM files of one side of TLS connections.
type Files struct {
	Cert string // Own certificate, with intermediates if any. Needed by servers.
	Key  string // Its private key.
	CA   string // Who is trusted on the other side.
	CRL  string // Certificates of the other side that are good no more.
}

// Config is what a Reloader stands on.
type Config struct {
	FS     vfs.FS
	Clock  clock.Clock
	Logger hclog.Logger
	Files  Files
	Policy Policy
}

// Reloader holds the contents of Files and looks for new ones when a
// connection is made, at most once a second.
type Reloader struct {
	cfg     Config
	current atomic.Pointer[loaded]

	checking sync.Mutex // Held while files are read; others go on with what is loaded.
	checked  time.Duration
	warned   time.Duration // When it was looked last whether the certificate ends soon.
	refused  string        // The last complaint, so that each is logged once.
}

// loaded is one state of the files. Never changed.
type loaded struct {
	raw  [4][]byte // Cert, key, CA, CRL.
	pair *tls.Certificate
	pool *x509.CertPool
	// The certificates of pool in DER.
	authorities [][]byte
	revoked     map[string]bool // By serial number, as etcd: whose list it is does not matter.
}

// NewReloader reads the files once. What is wrong with them is an error that
// names the file and the mend.
func NewReloader(cfg Config) (*Reloader, error) {
	f := cfg.Files
	if (f.Cert == "") != (f.Key == "") {
		return nil, fmt.Errorf("%w: certificate %q and key %q are needed together", ErrFiles, f.Cert, f.Key)
	}
	r := &Reloader{cfg: cfg, checked: cfg.Clock.Mono()}
	now, err := r.load()
	if err != nil {
		return nil, err
	}
	r.take(now)
	return r, nil
}

// AwaitReloader is NewReloader for a server that starts, maybe while its files are
// being replaced: certificate and key are two, and between them they do not belong
// together.
func AwaitReloader(cfg Config) (r *Reloader, err error) {
	for range pairLooks {
		if r, err = NewReloader(cfg); !errors.Is(err, ErrKeyMismatch) {
			return r, err
		}
		<-cfg.Clock.After(pairPause)
	}
	return nil, err
}

// Certificate returns the certificate as of now, nil when there is none.
func (r *Reloader) Certificate() *tls.Certificate { return r.look().pair }

// look returns what is loaded, after a check of the files if one is due.
func (r *Reloader) look() *loaded {
	if !r.checking.TryLock() {
		return r.current.Load()
	}
	defer r.checking.Unlock()
	now := r.cfg.Clock.Mono()
	if now-r.checked < reloadInterval {
		return r.current.Load()
	}
	r.checked = now
	fresh, err := r.load()
	if err != nil {
		if text := err.Error(); text != r.refused {
			r.refused = text
			r.cfg.Logger.Warn("TLS files are not usable, going on with those read before", "error", err)
		}
		return r.current.Load()
	}
	r.refused = ""
	switch old := r.current.Load(); {
	case !old.same(fresh):
		r.take(fresh)
		r.cfg.Logger.Info("TLS files were read again", "cert", r.cfg.Files.Cert, "ca", r.cfg.Files.CA)
	case now-r.warned >= expiryInterval:
		r.warnOfExpiry(old)
	}
	return r.current.Load()
}

func (l *loaded) same(other *loaded) bool {
	for i := range l.raw {
		if !bytes.Equal(l.raw[i], other.raw[i]) {
			return false
		}
	}
	return true
}

func (r *Reloader) load() (*loaded, error) {
	f := r.cfg.Files
	l := &loaded{}
	for i, name := range []string{f.Cert, f.Key, f.CA, f.CRL} {
		if name == "" {
			continue
		}
		data, err := readFile(r.cfg.FS, name)
		if err != nil {
			return nil, err
		}
		l.raw[i] = data
	}
	var err error
	if f.Cert != "" {
		if l.pair, err = parsePair(l.raw[0], l.raw[1], f.Cert, f.Key, r.cfg.Clock.Wall()); err != nil {
			return nil, err
		}
	}
	if f.CA != "" {
		if l.pool, l.authorities, err = parsePool(l.raw[2], f.CA); err != nil {
			return nil, err
		}
	}
	if f.CRL != "" {
		if l.revoked, err = parseRevoked(l.raw[3], f.CRL); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// take makes l current and warns of what will or could hurt later.
func (r *Reloader) take(l *loaded) {
	r.current.Store(l)
	if l.pair == nil {
		return
	}
	r.warnOfExpiry(l)
	f := r.cfg.Files
	if info, err := r.cfg.FS.Stat(f.Key); err == nil && info.Mode&0o077 != 0 {
		r.cfg.Logger.Warn("private key can be read by others, take their permission away", "file", f.Key, "mode", info.Mode.String())
	}
}

// warnOfExpiry is called again and again: a process may have started years before.
func (r *Reloader) warnOfExpiry(l *loaded) {
	r.warned = r.cfg.Clock.Mono()
	if l.pair != nil && l.pair.Leaf.NotAfter.Sub(r.cfg.Clock.Wall()) < expirySoon {
		r.cfg.Logger.Warn("certificate expires soon, issue a new one", "file", r.cfg.Files.Cert, "not-after", day(l.pair.Leaf.NotAfter))
	}
}
