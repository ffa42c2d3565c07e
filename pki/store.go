package pki

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

const (
	authorityName = "ca"
	oldName       = "ca-old"  // The authority before a rotation, and
	nextName      = "ca-next" // the one after.
	asideStamp    = "20060102T150405.000000000Z"
)

var reservedNames = map[string]bool{authorityName: true, oldName: true, nextName: true}

// Store is a folder of PEM files.
type Store struct {
	FS    vfs.FS
	Clock clock.Clock
	Dir   string // Made when missing.

	// Replace lets files that exist be replaced; the old ones are kept beside
	// the new. Without it they are an error.
	Replace bool

	Requests bool // Write NAME.csr too, as cfssl does.
}

// Written tells what became of the files.
type Written struct {
	Cert, Key, CSR string
	Aside          []string // Copies of what was there before.
	Pair           *Pair
	Kept           bool // A Set found the pair in place and left it.
}

// CreateAuthority makes ca.pem and ca-key.pem.
func (s Store) CreateAuthority(req AuthorityRequest) (*Authority, *Written, error) {
	if err := s.vacant(authorityName); err != nil {
		return nil, nil, err
	}
	a, pair, err := newAuthority(req, s.Clock.Wall())
	if err != nil {
		return nil, nil, err
	}
	w, err := s.write(authorityName, pair)
	return a, w, err
}

// Authority reads ca.pem and ca-key.pem.
func (s Store) Authority() (*Authority, error) {
	certFile, keyFile := s.names(authorityName)
	certPEM, err := readFile(s.FS, certFile)
	if err != nil {
		return nil, err
	}
	keyPEM, err := readFile(s.FS, keyFile)
	if err != nil {
		return nil, err
	}
	if _, err := parsePair(certPEM, keyPEM, certFile, keyFile, s.Clock.Wall()); err != nil {
		return nil, err
	}
	a, err := parseAuthority(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certFile, err)
	}
	return a, nil
}

// Trusted reads ca.pem, with or without its key: the authorities in PEM.
func (s Store) Trusted() ([]byte, error) {
	file, _ := s.names(authorityName)
	data, err := readFile(s.FS, file)
	if err != nil {
		return nil, err
	}
	_, err = parseCerts(data, file)
	return data, err
}

// Issue makes NAME.pem and NAME-key.pem. An empty name is the profile's.
func (s Store) Issue(a *Authority, name string, req Request) (*Written, error) {
	if name == "" {
		name = string(req.Profile)
	}
	if err := checkFileName(name); err != nil {
		return nil, err
	}
	if err := s.vacant(name); err != nil {
		return nil, err
	}
	pair, err := a.Issue(req, s.Clock.Wall())
	if err != nil {
		return nil, err
	}
	return s.write(name, pair)
}

// Sign makes NAME.pem for a request whose key stays with who made it.
func (s Store) Sign(a *Authority, name string, csr []byte, req Request) (*Written, error) {
	if err := checkFileName(name); err != nil {
		return nil, err
	}
	if err := s.vacant(name); err != nil {
		return nil, err
	}
	cert, notAfter, err := a.Sign(csr, req, s.Clock.Wall())
	if err != nil {
		return nil, err
	}
	w := &Written{Pair: &Pair{Cert: cert, NotAfter: notAfter}}
	w.Cert, _ = s.names(name)
	if err := s.keepAside(w, w.Cert); err != nil {
		return nil, err
	}
	return w, vfs.ReplaceFile(s.FS, w.Cert, cert)
}

func checkFileName(name string) error {
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") || reservedNames[name] {
		return fmt.Errorf("%w: %q cannot name a pair of files", ErrRequest, name)
	}
	return nil
}

// Files returns the names that a pair has in this folder, for a Reloader.
func (s Store) Files(name string) Files {
	cert, key := s.names(name)
	ca, _ := s.names(authorityName)
	return Files{Cert: cert, Key: key, CA: ca}
}

func (s Store) names(name string) (cert, key string) {
	return filepath.Join(s.Dir, name+".pem"), filepath.Join(s.Dir, name+"-key.pem")
}

func (s Store) vacant(name string) error {
	if s.Replace {
		return nil
	}
	cert, key := s.names(name)
	for _, file := range []string{cert, key} {
		exists, err := vfs.Exists(s.FS, file)
		if err != nil {
			return err
		}
		if exists {
			return fmt.Errorf("%s: %w: ask for replacing it, the old one is then kept aside", file, ErrExists)
		}
	}
	return nil
}

// write puts the key before the certificate: whoever reads in between finds a
// pair that does not match and keeps what it has.
func (s Store) write(name string, pair *Pair) (*Written, error) {
	if err := s.FS.MkdirAll(s.Dir); err != nil {
		return nil, err
	}
	if err := s.FS.SyncDir(filepath.Dir(s.Dir)); err != nil {
		return nil, err
	}
	w := &Written{Pair: pair}
	w.Cert, w.Key = s.names(name)
	for _, file := range []string{w.Cert, w.Key} {
		if err := s.keepAside(w, file); err != nil {
			return nil, err
		}
	}
	if s.Requests {
		w.CSR = filepath.Join(s.Dir, name+".csr")
		if err := vfs.ReplaceFile(s.FS, w.CSR, pair.CSR); err != nil {
			return nil, err
		}
	}
	if err := vfs.ReplaceFile(s.FS, w.Key, pair.Key); err != nil {
		return nil, err
	}
	if err := vfs.ReplaceFile(s.FS, w.Cert, pair.Cert); err != nil {
		return nil, err
	}
	return w, nil
}

// keepAside copies rather than renames, so that there is never a moment
// without a file.
func (s Store) keepAside(w *Written, file string) error {
	exists, err := vfs.Exists(s.FS, file)
	if err != nil || !exists {
		return err
	}
	old, err := readFile(s.FS, file)
	if err != nil {
		return err
	}
	aside := file + ".old-" + s.Clock.Wall().UTC().Format(asideStamp)
	if err := vfs.ReplaceFile(s.FS, aside, old); err != nil {
		return err
	}
	w.Aside = append(w.Aside, aside)
	return nil
}

func readFile(fs vfs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir || info.Size > fileBytesMax {
		return nil, fmt.Errorf("%s: %w: it is a folder or has over %d bytes", name, ErrNotPEM, fileBytesMax)
	}
	return vfs.ReadFile(fs, name)
}
