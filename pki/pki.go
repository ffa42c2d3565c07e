// Package pki makes the certificates of a cluster and serves them over TLS.
//
// A Store is a folder of PEM files with the names people know: ca.pem and
// ca-key.pem, server.pem and server-key.pem, peer.pem, client.pem and so on. It
// is used by the commands that set a cluster up. A Reloader reads such files
// for a running server or client and notices when they change, so that
// rotation needs no restart. The two meet only in the files.
//
// Always true: a file is written whole or not at all, mode 0600, and what it
// replaces is kept beside it. A Reloader never takes files it could not serve:
// it goes on with those it had and says why. A key leaves this package only
// into its file.
//
// What a certificate is good for is said by Terms: those of a built-in Profile,
// or those that a signing configuration of cfssl gives a name. Names, hosts and
// keys may come from cfssl's CSR files.
//
// A crash while a pair is replaced can leave a new key beside the old
// certificate. Both old files are kept aside then, and running members do not
// take the half.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"strconv"
	"strings"
)

// KeyType is the kind of a private key and, after a dash, its size: "ecdsa",
// "ecdsa-384", "rsa-4096", "ed25519". Zero is ECDSA on P-256.
type KeyType string

// The key types, of the usual size.
const (
	ECDSA   KeyType = "ecdsa" // P-256.
	RSA     KeyType = "rsa"   // 2048 bits, for clients that know nothing else.
	Ed25519 KeyType = "ed25519"
)

// spec is the algorithm and the size, where there are several.
func (k KeyType) spec() (algorithm KeyType, size int, err error) {
	name, text, sized := strings.Cut(string(k), "-")
	if size, err = strconv.Atoi(text); sized && err != nil {
		return "", 0, fmt.Errorf("%w: key type %q: %q is no size: say for example rsa-4096", ErrRequest, string(k), text)
	}
	switch algorithm = KeyType(name); algorithm {
	case ECDSA, "":
		algorithm = ECDSA
		if !sized {
			size = 256
		}
		if curves[size] == nil {
			return "", 0, fmt.Errorf("%w: an ECDSA key has 256, 384 or 521 bits, not %d", ErrRequest, size)
		}
	case RSA:
		if !sized {
			size = rsaKeyBits
		}
		if size < rsaKeyBits || size > rsaKeyBitsMax {
			return "", 0, fmt.Errorf("%w: an RSA key has %d to %d bits, not %d", ErrRequest, rsaKeyBits, rsaKeyBitsMax, size)
		}
	case Ed25519:
		if sized {
			return "", 0, fmt.Errorf("%w: an ed25519 key has one size: leave it out", ErrRequest)
		}
	default:
		return "", 0, fmt.Errorf("%w: key type %q is none of ecdsa, rsa, ed25519", ErrRequest, string(k))
	}
	return algorithm, size, nil
}

var curves = map[int]elliptic.Curve{256: elliptic.P256(), 384: elliptic.P384(), 521: elliptic.P521()}

func (k KeyType) check() error {
	_, _, err := k.spec()
	return err
}

func (k KeyType) generate() (crypto.Signer, error) {
	algorithm, size, err := k.spec()
	if err != nil {
		return nil, err
	}
	switch algorithm {
	case RSA:
		return rsa.GenerateKey(rand.Reader, size)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return ecdsa.GenerateKey(curves[size], rand.Reader)
}
