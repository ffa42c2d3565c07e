package token

import "errors"

// What can be wrong with a token. None of these texts holds a secret.
var (
	ErrFormat  = errors.New("not a join token")
	ErrUnknown = errors.New("no such token")
	ErrExpired = errors.New("token has expired")
	ErrUsed    = errors.New("token has been used")
	ErrNode    = errors.New("token is for another node")
	ErrRequest = errors.New("bad request for a token")
)
