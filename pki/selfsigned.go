package pki

import (
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"time"
)

// SelfSigned makes sure that NAME.pem and NAME-key.pem are a certificate without
// authority, good for both sides of a connection to these hosts. One that is
// there and good for a while yet stays; another is made anew, the old one kept
// aside.
func (s Store) SelfSigned(name string, hosts []string, validity time.Duration) (Files, error) {
	files := s.Files(name)
	files.CA = ""
	good, err := s.goodPair(files)
	if good || err != nil {
		return files, err
	}
	now := s.Clock.Wall()
	template, _, err := Request{Profile: Peer, CommonName: "holdfast", Hosts: hosts, Validity: validity}.template(now)
	if err != nil {
		return files, err
	}
	template.Subject = pkix.Name{Organization: []string{"holdfast"}} // No name: a member is no user.
	key, err := KeyType("").generate()
	if err != nil {
		return files, err
	}
	pair, err := signPair(template, template, key, key)
	if err != nil {
		return files, err
	}
	_, err = s.write(name, pair)
	return files, err
}

// goodPair tells whether there is a pair that will not expire soon. What is
// there and no pair is not ours to replace.
func (s Store) goodPair(files Files) (bool, error) {
	cert, err := readFile(s.FS, files.Cert)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	key, err := readFile(s.FS, files.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	pair, err := parsePair(cert, key, files.Cert, files.Key, s.Clock.Wall())
	switch {
	case errors.Is(err, ErrExpired), errors.Is(err, ErrNotYetValid), errors.Is(err, ErrKeyMismatch):
		return false, nil
	case err != nil:
		return false, err
	}
	return pair.Leaf.NotAfter.Sub(s.Clock.Wall()) > expirySoon, nil
}
