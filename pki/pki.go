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
// it goes on with those it had and says why.
//
// A crash while a pair is replaced can leave a new key beside the old
// certificate. Both old files are kept aside then, and running members do not
// take the half.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
)

// Profile is what a certificate may be used for.
type Profile string

// The profiles. A peer is both sides of a connection between members.
const (
	Server Profile = "server"
	Peer   Profile = "peer"
	Client Profile = "client"
)

func (p Profile) usages() ([]x509.ExtKeyUsage, error) {
	switch p {
	case Server:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, nil
	case Peer:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, nil
	case Client:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, nil
	default:
		return nil, fmt.Errorf("%w: profile %q is none of server, peer, client", ErrRequest, string(p))
	}
}

// named reports whether others dial the holder by a name that must be in the
// certificate.
func (p Profile) named() bool { return p == Server || p == Peer }

// KeyType is the kind of private key. Zero is ECDSA on P-256.
type KeyType string

// The key types.
const (
	ECDSA KeyType = "ecdsa" // P-256.
	RSA   KeyType = "rsa"   // 2048 bits, for clients that know nothing else.
)

func (k KeyType) generate() (crypto.Signer, error) {
	switch k {
	case ECDSA, "":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RSA:
		return rsa.GenerateKey(rand.Reader, rsaKeyBits)
	default:
		return nil, fmt.Errorf("%w: key type %q is none of ecdsa, rsa", ErrRequest, string(k))
	}
}
