package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/crypto/bcrypt"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/proto/authpb"
	"github.com/holdfast-db/holdfast/statemachine/auth"
)

func TestASimpleTokenLivesAsLongAsItIsUsed(t *testing.T) {
	c := clocktest.New()
	tokens := newTokens(c, 300*time.Second)
	tokens.Assigned("t1", "a")
	tokens.Assigned("t2", "a")
	tokens.Assigned("t3", "b")
	for range 3 {
		c.Advance(200 * time.Second)
		if user, ok := tokens.user("t1"); !ok || user != "a" {
			t.Fatal("a token in use is void")
		}
	}
	if _, ok := tokens.user("t2"); ok {
		t.Error("a token is good 600 s after its last use")
	}
	tokens.Assigned("t4", "b")
	tokens.Invalidated("b")
	if _, ok := tokens.user("t4"); ok {
		t.Error("a token outlives its user")
	}
	tokens.Disabled()
	if _, ok := tokens.user("t1"); ok || tokens.count.Load() != 0 {
		t.Errorf("%d tokens are left", tokens.count.Load())
	}
}

func TestTokensCanNotBeGuessed(t *testing.T) {
	seen := map[rune]bool{}
	for range 200 {
		p, err := drawPrefix(rand.Reader)
		if err != nil || len(p) != 16 || strings.Trim(p, tokenLetters) != "" {
			t.Fatalf("%q: %v", p, err)
		}
		for _, r := range p {
			seen[r] = true
		}
	}
	if len(seen) != len(tokenLetters) {
		t.Errorf("only %d letters are drawn", len(seen))
	}
}

// keyFiles writes a key and its public half.
func keyFiles(t *testing.T, fsys vfs.FS, private, public string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	writeKey(t, fsys, private, "EC PRIVATE KEY", der)
	writeKey(t, fsys, public, "PUBLIC KEY", spki)
}

func writeKey(t *testing.T, fsys vfs.FS, name, kind string, der []byte) {
	t.Helper()
	f, err := fsys.Create(name)
	if err == nil {
		_, err = f.WriteAt(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestASignedTokenSaysWhoAndUntilWhen(t *testing.T) {
	c, fsys := clocktest.New(), vfstest.NewMem()
	keyFiles(t, fsys, "priv.pem", "pub.pem")
	keyFiles(t, fsys, "other.pem", "other-pub.pem")
	make := func(options string) (*jwtTokens, error) {
		_, o, err := parseAuthToken(options)
		if err != nil {
			return nil, err
		}
		return newJWT(&Config{Clock: c, FS: fsys, Logger: hclog.NewNullLogger()}, o)
	}
	for options, want := range map[string]string{
		"jwt,sign-method=ES256": "no key", "jwt,sign-method=none,priv-key=priv.pem": "sign-method", "jwt,priv-key=priv.pem": "sign-method",
		"jwt,sign-method=ES256,priv-key=missing.pem": "priv-key", "jwt,sign-method=RS256,priv-key=pub.pem": "priv-key",
		"jwt,sign-method=ES256,priv-key=priv.pem,pub-key=other-pub.pem": "belong together", "jwt,sign-method=ES256,pub-key=pub.pem,ttl=soon": "duration",
		"jwt,sign-method": "option=value", "jwt,ttl=1s,ttl=2s": "twice", "saml": "no kind of token", "jwt,sign-method=HS256": "no key",
	} {
		if _, err := make(options); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", options, err, want)
		}
	}
	signer, err := make("jwt,sign-method=ES256,priv-key=priv.pem,pub-key=pub.pem,ttl=1m")
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := make("jwt,sign-method=ES256,pub-key=pub.pem")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifier.assign("a", 1); !errors.Is(err, errVerifyOnly) {
		t.Errorf("a member without private key signs: %v", err)
	}
	token, err := signer.assign("a", 7)
	if err != nil {
		t.Fatal(err)
	}
	other, err := make("jwt,sign-method=ES256,priv-key=other.pem")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := make("jwt,sign-method=HS256,priv-key=pub.pem")
	if err != nil {
		t.Fatal(err)
	}
	forged, err := secret.assign("root", 7) // With the public key as the secret of another method.
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // The second time it was verified before.
		if user, revision, err := verifier.user(token); user != "a" || revision != 7 || err != nil {
			t.Errorf("%q, %d, %v", user, revision, err)
		}
		for who, wrong := range map[string]string{"signed by another": mustSign(t, other), "of another method": forged, "cut": token[:len(token)-4], "none": ""} {
			if _, _, err := verifier.user(wrong); !errors.Is(err, errInvalidToken) {
				t.Errorf("a token %s: %v", who, err)
			}
		}
	}
	c.Advance(2 * time.Minute)
	if _, _, err := verifier.user(token); !errors.Is(err, errInvalidToken) {
		t.Errorf("a token that has run out: %v", err)
	}
}

func mustSign(t *testing.T, j *jwtTokens) string {
	t.Helper()
	token, err := j.assign("a", 7)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestARightPasswordIsRememberedForItsUserAlone(t *testing.T) {
	p := newPasswords(bcrypt.MinCost, []byte("0123456789abcdef0123456789abcdef"))
	stored := func(password string) []byte {
		h, err := p.hash(t.Context(), password)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	a := &authpb.User{Name: []byte("a"), Password: stored("one")}
	for _, c := range []struct {
		user     *authpb.User
		password string
		want     error
		warm     int // Remembered afterwards.
	}{
		{a, "two", auth.ErrFailed, 0}, {a, "one", nil, 1}, {a, "one", nil, 1}, {a, "two", auth.ErrFailed, 1}, {nil, "one", auth.ErrFailed, 1},
		{&authpb.User{Name: []byte("b"), Password: stored("two")}, "one", auth.ErrFailed, 1},
		{&authpb.User{Name: []byte("a"), Password: stored("two")}, "one", auth.ErrFailed, 1}, // Has changed.
		{&authpb.User{Name: []byte("a"), Options: &authpb.UserAddOptions{NoPassword: true}}, "", auth.ErrNoPassword, 1},
		{&authpb.User{Name: []byte("c")}, "", auth.ErrFailed, 1}, // Was set to nothing.
		{&authpb.User{Name: []byte("d"), Password: stored("")}, "", nil, 2},
	} {
		if err := p.check(t.Context(), c.user, c.password); !errors.Is(err, c.want) || len(p.right) != c.warm {
			t.Errorf("%v with %q: %v, want %v; %d remembered", c.user, c.password, err, c.want, len(p.right))
		}
	}
	for i := range verifiedMax + 10 {
		p.learn([32]byte{1: byte(i), 2: byte(i >> 8)})
	}
	if len(p.right) != verifiedMax || len(p.oldest) != verifiedMax {
		t.Errorf("%d and %d are remembered, at most %d", len(p.right), len(p.oldest), verifiedMax)
	}
}
