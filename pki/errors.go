package pki

import "errors"

// What can be wrong with a request or a file. The text around them names the
// file and the mend.
var (
	ErrRequest      = errors.New("bad certificate request")
	ErrExists       = errors.New("file exists")
	ErrNotPEM       = errors.New("no such PEM block")
	ErrNotAuthority = errors.New("not a certificate authority")
	ErrKeyMismatch  = errors.New("private key does not belong to the certificate")
	ErrExpired      = errors.New("certificate has expired")
	ErrNotYetValid  = errors.New("certificate is not valid yet")
	ErrRevoked      = errors.New("certificate has been revoked")
	ErrNotAllowed   = errors.New("certificate is not allowed here")
	ErrFiles        = errors.New("incomplete TLS files")
)
