// Package token keeps join tokens: what a machine shows to become a node.
//
// A token is holdfast.ID.SECRET.CAHASH. ID names it, SECRET proves it, CAHASH is
// the SHA-256 of the authority's certificate: who joins checks with it that the
// server is of the right cluster before it sends anything.
//
// The store holds a record for each at /holdfast/token/ID, with a hash of the
// secret: whoever reads the store can join nothing. The whole token exists once,
// as the answer of Create. A record ends with a lease of the store, so that none
// is left over.
//
// Always true: a redemption is one transaction on the revision of the record. Of
// several nodes that race for a token of one use, one wins. Who won may redeem
// again with the same node name and key, since the answer to the first may have
// been lost.
//
// The bytes are documented in docs/format/token.md.
package token

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strings"
)

const (
	prefix      = "holdfast"
	idBytes     = 5  // 8 characters.
	secretBytes = 20 // 32 characters: cannot be guessed, so a plain hash protects it.
)

// letters are of lower case and digits that nobody confuses.
var letters = base32.NewEncoding("abcdefghijkmnpqrstuvwxyz23456789").WithPadding(base32.NoPadding)

// Token is a join token. It prints its ID alone: Text is for the eyes of who
// asked for it.
type Token struct {
	ID        string
	Authority [sha256.Size]byte

	secret string
}

// Text is the whole token.
func (t Token) Text() string {
	return strings.Join([]string{prefix, t.ID, t.secret, hex.EncodeToString(t.Authority[:])}, ".")
}

// Proof is what a server is shown: ID.SECRET.
func (t Token) Proof() string { return t.ID + "." + t.secret }

// String implements fmt.Stringer, so that no log holds the secret.
func (t Token) String() string { return "join token " + t.ID }

// GoString is for %#v.
func (t Token) GoString() string { return t.String() }

// Parse reads a whole token.
func Parse(text string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(text), ".")
	if len(parts) != 4 || parts[0] != prefix {
		return Token{}, fmt.Errorf("%w: it reads holdfast.ID.SECRET.HASH, four parts with dots between; was all of it copied?", ErrFormat)
	}
	t := Token{ID: parts[1], secret: parts[2]}
	if err := t.check(); err != nil {
		return Token{}, err
	}
	hash, err := hex.DecodeString(parts[3])
	if err != nil || len(hash) != sha256.Size {
		return Token{}, fmt.Errorf("%w: its last part is no SHA-256 in hexadecimal; was all of it copied?", ErrFormat)
	}
	t.Authority = [sha256.Size]byte(hash)
	return t, nil
}

// parseProof reads ID.SECRET.
func parseProof(proof string) (Token, error) {
	id, secret, _ := strings.Cut(proof, ".")
	t := Token{ID: id, secret: secret}
	return t, t.check()
}

func (t Token) check() error {
	if err := checkID(t.ID); err != nil {
		return err
	}
	if b, err := letters.DecodeString(t.secret); err != nil || len(b) != secretBytes {
		return fmt.Errorf("%w: the secret of %s is not whole; was all of it copied?", ErrFormat, t.ID)
	}
	return nil
}

func checkID(id string) error {
	if b, err := letters.DecodeString(id); err != nil || len(b) != idBytes {
		return fmt.Errorf("%w: an ID has 8 letters and digits", ErrFormat)
	}
	return nil
}
