package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// RotationStep is how far an authority has given way to the next. ca.pem holds
// who is trusted, the one that signs first; ca-key.pem is the key of that one.
// Between two steps every holder takes the new ca.pem, after the second also a
// new certificate. Each step can be taken back.
type RotationStep int

// The steps.
const (
	RotationNone  RotationStep = iota // ca.pem: old.
	RotationTrust                     // ca.pem: old, next. The old one signs.
	RotationSign                      // ca.pem: next, old. The next one signs.
	RotationDone                      // ca.pem: next.
)

func (r RotationStep) String() string {
	return [...]string{"not rotating", "both are trusted, the old authority signs", "both are trusted, the new authority signs", "finished, only the new authority is trusted"}[r]
}

// Rotation is what a folder says of its authorities.
type Rotation struct {
	Step      RotationStep
	Old, Next *x509.Certificate // Nil while there was no rotation.
}

// Rotation reads the step from the files. A crash while one was taken leaves the
// step before: take it again.
func (s Store) Rotation() (Rotation, error) {
	trusted, err := s.readCerts(authorityName)
	if err != nil {
		return Rotation{}, err
	}
	old, err := s.readCerts(oldName)
	next, err2 := s.readCerts(nextName)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err2, fs.ErrNotExist) {
		if len(trusted) > 1 {
			return Rotation{}, fmt.Errorf("%s: %w: it trusts %d authorities, and no rotation says why: leave the one that signs", s.Files("").CA, ErrFiles, len(trusted))
		}
		return Rotation{}, nil // Not begun, or a crash came before it was.
	}
	if err := errors.Join(err, err2); err != nil {
		return Rotation{}, err
	}
	r := Rotation{Old: old[0], Next: next[0]}
	for r.Step = RotationNone; r.Step <= RotationDone; r.Step++ {
		if slices.EqualFunc(trusted, r.trusted(r.Step), (*x509.Certificate).Equal) {
			return r, nil
		}
	}
	return r, fmt.Errorf("%s: %w: it holds neither the authority of ca-old.pem nor that of ca-next.pem: was it changed by hand? Rename those two to begin anew", s.Files("").CA, ErrFiles)
}

// trusted are the authorities of a step, the one that signs first.
func (r Rotation) trusted(step RotationStep) []*x509.Certificate {
	switch step {
	case RotationNone:
		return []*x509.Certificate{r.Old}
	case RotationTrust:
		return []*x509.Certificate{r.Old, r.Next}
	case RotationSign:
		return []*x509.Certificate{r.Next, r.Old}
	default:
		return []*x509.Certificate{r.Next}
	}
}

// BeginRotation makes the next authority, ca-next.pem, unless one is there from a
// rotation taken back, and trusts both. Files of a finished rotation go aside.
func (s Store) BeginRotation(req AuthorityRequest) (Rotation, error) {
	r, err := s.Rotation()
	if err != nil {
		return r, err
	}
	if r.Step == RotationTrust || r.Step == RotationSign {
		return r, fmt.Errorf("%w: a rotation is under way (%s): finish it or take it back", ErrRequest, r.Step)
	}
	if _, err := s.Authority(); err != nil {
		return r, err // Without its key nobody could go on with the old one.
	}
	if r.Step == RotationDone {
		if err := s.moveAside(nextName, oldName); err != nil {
			return r, err
		}
	}
	if err := s.copyPair(authorityName, oldName); err != nil {
		return r, err
	}
	if whole, err := s.hasPair(nextName); err != nil {
		return r, err
	} else if !whole {
		_, pair, err := newAuthority(req, s.Clock.Wall())
		if err != nil {
			return r, err
		}
		next := s
		next.Requests = false
		if _, err := next.write(nextName, pair); err != nil {
			return r, err
		}
	}
	return s.StepRotation(RotationTrust)
}

// StepRotation takes the step after the present one, or the one before. A step
// that was cut short is taken again from its beginning.
func (s Store) StepRotation(to RotationStep) (Rotation, error) {
	r, err := s.Rotation()
	if err != nil {
		return r, err
	}
	if r.Next == nil {
		return r, fmt.Errorf("%w: no rotation is under way: begin one", ErrRequest)
	}
	if to < RotationNone || to > RotationDone || to-r.Step > 1 || r.Step-to > 1 {
		return r, fmt.Errorf("%w: the rotation is at: %s; steps go one at a time, since holders need each ca.pem before the next", ErrRequest, r.Step)
	}
	from := oldName
	if to >= RotationSign {
		from = nextName
	}
	_, keyFile := s.names(from)
	key, err := readFile(s.FS, keyFile)
	if err != nil {
		return r, err
	}
	var trusted bytes.Buffer
	for _, cert := range r.trusted(to) {
		trusted.Write(pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: cert.Raw}))
	}
	certFile, ownKeyFile := s.names(authorityName)
	if _, err := parsePair(trusted.Bytes(), key, certFile, keyFile, s.Clock.Wall()); err != nil {
		return r, err
	}
	if err := vfs.ReplaceFile(s.FS, ownKeyFile, key); err != nil {
		return r, err
	}
	if err := vfs.ReplaceFile(s.FS, certFile, trusted.Bytes()); err != nil {
		return r, err
	}
	r.Step = to
	return r, nil
}

// copyPair puts the key first: without its certificate the copy does not count.
func (s Store) copyPair(from, to string) error {
	fromCert, fromKey := s.names(from)
	toCert, toKey := s.names(to)
	for _, f := range [][2]string{{fromKey, toKey}, {fromCert, toCert}} {
		data, err := readFile(s.FS, f[0])
		if err != nil {
			return err
		}
		if there, err := readFile(s.FS, f[1]); err == nil && bytes.Equal(there, data) {
			continue
		}
		if err := s.keepAside(&Written{}, f[1]); err != nil {
			return err
		}
		if err := vfs.ReplaceFile(s.FS, f[1], data); err != nil {
			return err
		}
	}
	return nil
}

// moveAside makes each durable before the next is touched: ca-next.pem must never
// be left behind alone, as the authority that is already there.
func (s Store) moveAside(names ...string) error {
	stamp := s.Clock.Wall().UTC().Format(asideStamp)
	for _, name := range names {
		cert, key := s.names(name)
		for _, file := range []string{cert, key} {
			if err := s.FS.Rename(file, file+".old-"+stamp); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := s.FS.SyncDir(s.Dir); err != nil {
			return err
		}
	}
	return nil
}

func (s Store) readCerts(name string) ([]*x509.Certificate, error) {
	file, _ := s.names(name)
	data, err := readFile(s.FS, file)
	if err != nil {
		return nil, err
	}
	return parseCerts(data, file)
}
