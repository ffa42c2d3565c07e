package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// identities is how this member finds out who somebody is. Nothing of it is
// state: tokens and what was verified live in memory, and end with the process.
type identities struct {
	simple    *tokens    // Always: the log makes them, whatever this member gives out.
	jwt       *jwtTokens // Nil: this member gives out simple tokens.
	passwords *passwords
}

func newIdentities(cfg *Config) (*identities, error) {
	key := make([]byte, 32)
	if _, err := io.ReadFull(cfg.Rand, key); err != nil {
		return nil, fmt.Errorf("draw a key: %w", err)
	}
	id := &identities{simple: newTokens(cfg.Clock, cfg.AuthTokenTTL), passwords: newPasswords(cfg.BcryptCost, key)}
	kind, options, err := parseAuthToken(cfg.AuthToken)
	if err != nil {
		return nil, err
	}
	if kind == tokenJWT {
		if id.jwt, err = newJWT(cfg, options); err != nil {
			return nil, fmt.Errorf("--auth-token: %w", err)
		}
	}
	return id, nil
}

// identify finds out who calls, and which revision of users and roles its token
// is good for; 0 is any. Nobody is no error: some calls are for everybody.
func (c *core) identify(ctx context.Context) (user string, revision uint64, err error) {
	if token, ok := tokenOf(ctx); ok {
		return c.userOfToken(ctx, token)
	}
	if c.cfg.ClientTLS.ClientCertAuth {
		return commonName(ctx), 0, nil
	}
	return "", 0, nil
}

// tokenOf is the token that came with a call.
func tokenOf(ctx context.Context) (string, bool) {
	for _, key := range []string{"token", "authorization"} {
		if v := metadata.ValueFromIncomingContext(ctx, key); len(v) > 0 {
			return strings.TrimPrefix(v[0], "Bearer "), true
		}
	}
	return "", false
}

func (c *core) userOfToken(ctx context.Context, token string) (user string, revision uint64, err error) {
	if c.who.jwt != nil {
		return c.who.jwt.user(token)
	}
	if user, ok := c.who.simple.user(token); ok {
		return user, 0, nil
	}
	// The entry that made it may be on its way to this member. It was committed
	// before anybody had the token, so what is not here after this is none.
	if index, ok := indexOf(token); !ok || index <= c.replica.Store().Applied().Position.Index {
		return "", 0, errInvalidToken
	}
	if err := c.linearize(ctx); err != nil {
		return "", 0, err
	}
	if user, ok := c.who.simple.user(token); ok {
		return user, 0, nil
	}
	return "", 0, errInvalidToken
}

func indexOf(token string) (ident.Index, bool) {
	_, number, ok := strings.Cut(token, ".")
	if !ok {
		return 0, false
	}
	index, err := strconv.ParseUint(number, 10, 64)
	return ident.Index(index), err == nil
}

// commonName is the subject of the certificate that the client has shown. What
// comes through a gateway shows the gateway's.
func commonName(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || len(metadata.ValueFromIncomingContext(ctx, "grpcgateway-accept")) > 0 {
		return ""
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return ""
	}
	for _, chain := range info.State.VerifiedChains {
		if len(chain) > 0 {
			return chain[0].Subject.CommonName
		}
	}
	return ""
}

func (c *Config) checkAuth() error {
	_, _, err := parseAuthToken(c.AuthToken)
	if c.AuthTokenTTL < 0 {
		err = errors.Join(err, fmt.Errorf("--auth-token-ttl[%v] is negative: give a number of seconds", c.AuthTokenTTL))
	}
	if c.BcryptCost < bcrypt.MinCost || c.BcryptCost > bcrypt.MaxCost {
		err = errors.Join(err, fmt.Errorf("--bcrypt-cost is %d: use %d to %d", c.BcryptCost, bcrypt.MinCost, bcrypt.MaxCost))
	}
	return err
}
