package server

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Kinds of token that --auth-token begins with.
const (
	tokenSimple = "simple"
	tokenJWT    = "jwt"
)

// parseAuthToken reads KIND,option=value,… as etcd does.
func parseAuthToken(s string) (kind string, options map[string]string, err error) {
	parts := strings.Split(s, ",")
	options = map[string]string{}
	for _, part := range parts[1:] {
		name, value, ok := strings.Cut(part, "=")
		if !ok || strings.Contains(value, "=") {
			return "", nil, fmt.Errorf("--auth-token: %q is not option=value", part)
		}
		if _, twice := options[name]; twice {
			return "", nil, fmt.Errorf("--auth-token: option %q comes twice", name)
		}
		options[name] = value
	}
	if kind = parts[0]; kind != tokenSimple && kind != tokenJWT {
		return "", nil, fmt.Errorf("--auth-token: %q is no kind of token: use simple, or jwt,pub-key=FILE,priv-key=FILE,sign-method=METHOD,ttl=DURATION", kind)
	}
	return kind, options, nil
}

// jwtTokens makes and verifies signed tokens. Nothing is kept of them but what
// was verified, so that a signature is not computed at every request.
type jwtTokens struct {
	clock    clock.Clock
	ttl      time.Duration
	method   jwt.SigningMethod
	sign     any // Nil: this member can only verify.
	verify   any
	parser   *jwt.Parser
	verified atomic.Pointer[sync.Map] // Token to *jwtClaim. A hash of it would cost every request a microsecond.
	count    atomic.Int64
}

type jwtClaim struct {
	user     string
	revision uint64
	expires  time.Time // Zero: never.
}

var (
	errNoKey       = errors.New("there is no key: give priv-key=FILE, and pub-key=FILE for members that shall only verify")
	errKeyMismatch = errors.New("pub-key and priv-key do not belong together")
)

func newJWT(cfg *Config, options map[string]string) (*jwtTokens, error) {
	t := &jwtTokens{clock: cfg.Clock, ttl: jwtTTLDefault}
	t.verified.Store(&sync.Map{})
	for name := range options { //tidy:ordered only told
		if !slices.Contains([]string{"sign-method", "pub-key", "priv-key", "ttl"}, name) {
			cfg.Logger.Warn("an option of --auth-token means nothing", "option", name)
		}
	}
	if s := options["ttl"]; s != "" {
		ttl, err := time.ParseDuration(s)
		if err != nil || ttl <= 0 {
			return nil, fmt.Errorf("ttl=%s is no duration: use one as 5m", s)
		}
		t.ttl = ttl
	}
	if t.method = jwt.GetSigningMethod(options["sign-method"]); t.method == nil || t.method.Alg() == "none" {
		return nil, fmt.Errorf("sign-method=%s is not known: use RS256, PS256, ES256, HS256 or their longer forms, or EdDSA", options["sign-method"])
	}
	public, err := readOption(cfg.FS, options, "pub-key")
	if err != nil {
		return nil, err
	}
	private, err := readOption(cfg.FS, options, "priv-key")
	if err != nil {
		return nil, err
	}
	if err := t.keys(public, private); err != nil {
		return nil, err
	}
	t.parser = jwt.NewParser(jwt.WithValidMethods([]string{t.method.Alg()}), jwt.WithTimeFunc(t.clock.Wall))
	return t, nil
}

func readOption(fsys vfs.FS, options map[string]string, name string) ([]byte, error) {
	if options[name] == "" {
		return nil, nil
	}
	b, err := vfs.ReadFile(fsys, options[name])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// keys takes the keys of the method out of their files.
func (t *jwtTokens) keys(public, private []byte) error {
	parsePublic, parsePrivate := keyParsers(t.method)
	if parsePublic == nil { // One secret for both.
		if len(private) == 0 {
			return errNoKey
		}
		t.sign, t.verify = private, private
		return nil
	}
	var signer crypto.Signer
	var err error
	if len(private) > 0 {
		if signer, err = parsePrivate(private); err != nil {
			return fmt.Errorf("priv-key: %w", err)
		}
		t.sign, t.verify = signer, signer.Public()
	}
	if len(public) > 0 {
		if t.verify, err = parsePublic(public); err != nil {
			return fmt.Errorf("pub-key: %w", err)
		}
		if same, ok := t.verify.(interface{ Equal(crypto.PublicKey) bool }); signer != nil && (!ok || !same.Equal(signer.Public())) {
			return errKeyMismatch
		}
	}
	if t.verify == nil {
		return errNoKey
	}
	return nil
}

// keyParsers are nil for methods with one secret.
func keyParsers(m jwt.SigningMethod) (public func([]byte) (crypto.PublicKey, error), private func([]byte) (crypto.Signer, error)) {
	switch m.(type) {
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		return func(b []byte) (crypto.PublicKey, error) { return jwt.ParseRSAPublicKeyFromPEM(b) },
			func(b []byte) (crypto.Signer, error) {
				return signer[*rsa.PrivateKey](jwt.ParseRSAPrivateKeyFromPEM(b))
			}
	case *jwt.SigningMethodECDSA:
		return func(b []byte) (crypto.PublicKey, error) { return jwt.ParseECPublicKeyFromPEM(b) },
			func(b []byte) (crypto.Signer, error) {
				return signer[*ecdsa.PrivateKey](jwt.ParseECPrivateKeyFromPEM(b))
			}
	case *jwt.SigningMethodEd25519:
		return func(b []byte) (crypto.PublicKey, error) { return jwt.ParseEdPublicKeyFromPEM(b) },
			func(b []byte) (crypto.Signer, error) {
				return signer[crypto.PrivateKey](jwt.ParseEdPrivateKeyFromPEM(b))
			}
	}
	return nil, nil
}

func signer[T any](key T, err error) (crypto.Signer, error) {
	if err != nil {
		return nil, err
	}
	s, ok := any(key).(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%T can not sign", key)
	}
	return s, nil
}

var _ crypto.Signer = ed25519.PrivateKey(nil)

// assign makes a token for a user, good for one revision of users and roles.
func (t *jwtTokens) assign(user string, revision uint64) (string, error) {
	if t.sign == nil {
		return "", errVerifyOnly
	}
	return jwt.NewWithClaims(t.method, jwt.MapClaims{
		"username": user, "revision": revision, "exp": t.clock.Wall().Add(t.ttl).Unix(),
	}).SignedString(t.sign)
}

// user of a token, and the revision it is good for.
func (t *jwtTokens) user(token string) (string, uint64, error) {
	if v, ok := t.verified.Load().Load(token); ok {
		c := v.(*jwtClaim)
		if !c.expires.IsZero() && !t.clock.Wall().Before(c.expires) {
			return "", 0, errInvalidToken
		}
		return c.user, c.revision, nil
	}
	c, ok := t.parse(token)
	if !ok {
		return "", 0, errInvalidToken
	}
	if t.count.Add(1) > verifiedMax { // All at once: it costs each of them one signature.
		t.count.Store(1)
		t.verified.Store(&sync.Map{})
	}
	t.verified.Load().Store(token, c)
	return c.user, c.revision, nil
}

func (t *jwtTokens) parse(token string) (*jwtClaim, bool) {
	parsed, err := t.parser.Parse(token, func(*jwt.Token) (any, error) { return t.verify, nil })
	if err != nil || !parsed.Valid {
		return nil, false
	}
	claims, ok := parsed.Claims.(jwt.MapClaims)
	if !ok {
		return nil, false
	}
	user, named := claims["username"].(string)
	revision, dated := claims["revision"].(float64)
	if !named || !dated || user == "" || revision < 1 {
		return nil, false
	}
	c := &jwtClaim{user: user, revision: uint64(revision)}
	if exp, err := claims.GetExpirationTime(); err == nil && exp != nil {
		c.expires = exp.Time
	}
	return c, true
}
