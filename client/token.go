package client

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// identity is how this client says who it is. A user's token is fetched
// when the first call needs it, and again when a server refuses it.
type identity struct {
	user, password string
	fixed          string // A token that somebody else has made; it is never fetched anew.

	login chan struct{} // Held by the one who fetches.
	mu    struct {
		sync.Mutex
		token string
		known bool // Whether token is worth trying: it may be empty, where authentication is off.
	}
}

func newIdentity(cfg *Config) *identity {
	c := &identity{user: cfg.User, password: cfg.Password, fixed: cfg.Token, login: make(chan struct{}, 1)}
	c.mu.token, c.mu.known = cfg.Token, cfg.User == ""
	return c
}

func (c *identity) have() (token string, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.token, c.mu.known
}

func (c *identity) set(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.token, c.mu.known = token, true
}

// drop forgets a token, unless another has taken its place since: a call that
// was slow to be refused must not cost the others what one of them has fetched.
func (c *identity) drop(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.token == token {
		c.mu.token, c.mu.known = "", false
	}
}

// attempt is one call or stream, and the token that went with it.
type attempt struct{ token string }

type attemptKey struct{}

// attempt is for a call that may be refused for its token. It is nil where no
// other can be fetched.
func (c *Client) attempt(ctx context.Context) (context.Context, *attempt) {
	if c.identity.user == "" {
		return ctx, nil
	}
	a := &attempt{}
	return context.WithValue(ctx, attemptKey{}, a), a
}

// Login fetches a token at once, to find out whether the password is right. It
// is no error where authentication is off.
func (c *Client) Login(ctx context.Context) error {
	if c.identity.user == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.RequestTimeout)
	defer cancel()
	_, err := c.token(ctx)
	return fromWire(err)
}

// token is what goes with a call.
func (c *Client) token(ctx context.Context) (string, error) {
	k := c.identity
	if token, known := k.have(); known {
		return token, nil
	}
	select {
	case k.login <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { <-k.login }()
	if token, known := k.have(); known { // Somebody else was quicker.
		return token, nil
	}
	answer, err := c.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: k.user, Password: k.password})
	switch {
	case errors.Is(fromWire(err), ErrAuthNotEnabled):
		k.set("")
		return "", nil
	case err != nil:
		return "", err
	}
	k.set(answer.Token)
	return answer.Token, nil
}

// tokenRefused reports whether a call was refused for its token, before it had
// any effect, and another token may do better; the next call fetches it.
func (c *Client) tokenRefused(err error, made *attempt) bool {
	if made == nil {
		return false
	}
	refused := errors.Is(err, ErrUserEmpty) || errors.Is(err, ErrInvalidAuthToken) || errors.Is(err, ErrAuthOldRevision)
	if refused {
		c.identity.drop(made.token)
	}
	return refused
}

func (c *Client) withToken(ctx context.Context) (context.Context, error) {
	token, err := c.token(ctx)
	if made, ok := ctx.Value(attemptKey{}).(*attempt); ok {
		made.token = token
	}
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "token", token)
	}
	return ctx, err
}

func (c *Client) unaryWithToken(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if method != pb.Auth_Authenticate_FullMethodName {
		var err error
		if ctx, err = c.withToken(ctx); err != nil {
			return err
		}
	}
	return invoke(ctx, method, request, answer, conn, options...)
}

func (c *Client) streamWithToken(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, err := c.withToken(ctx)
	if err != nil {
		return nil, err
	}
	return open(ctx, desc, conn, method, options...)
}
