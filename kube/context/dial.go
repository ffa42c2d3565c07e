package context

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Dial returns a connection to the servers of a context, made when it is first used.
// Each server must show a certificate for the host that it is dialled by.
func (x *Context) Dial(fsys vfs.FS, c clock.Clock) (*grpc.ClientConn, error) {
	config, err := x.TLS(fsys, c)
	if err != nil {
		return nil, err
	}
	servers := manual.NewBuilderWithScheme("holdfast")
	state := resolver.State{}
	for _, s := range x.Server {
		host, _, err := net.SplitHostPort(s)
		if err != nil {
			return nil, fmt.Errorf("context %q: %w: server %q is no host:port", x.Name, ErrFormat, s)
		}
		state.Addresses = append(state.Addresses, resolver.Address{Addr: s, ServerName: host})
	}
	servers.InitialState(state)
	return grpc.NewClient("holdfast:///"+x.Name,
		grpc.WithResolvers(servers),
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(answerBytesMax)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
	)
}

// answerBytesMax of one answer: a list of 10,000 pods has some 30 MB.
const answerBytesMax = 256 << 20

// TLS is what connections are made with.
func (x *Context) TLS(fsys vfs.FS, c clock.Clock) (*tls.Config, error) {
	wrong := func(err error) error { return fmt.Errorf("context %q: %w: %w", x.Name, ErrFiles, err) }
	var pem [3][]byte
	for i, f := range []struct{ field, value string }{{"ca", x.CA}, {"cert", x.Cert}, {"key", x.Key}} {
		var err error
		if pem[i], err = x.read(fsys, f.field, f.value); err != nil {
			return nil, wrong(err)
		}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem[0]) {
		return nil, wrong(fmt.Errorf("ca %s holds no certificate", x.named(x.CA)))
	}
	pair, err := tls.X509KeyPair(pem[1], pem[2])
	if err != nil {
		return nil, wrong(fmt.Errorf("cert %s and key %s: %w", x.named(x.Cert), x.named(x.Key), err))
	}
	if end := pair.Leaf.NotAfter; c.Wall().After(end) {
		return nil, wrong(fmt.Errorf("cert %s ended on %s: issue a new one with 'holdfastctl certs issue'", x.named(x.Cert), end.UTC().Format(time.RFC3339)))
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{pair}}, nil
}

// inline reports whether a value is the PEM text itself.
func inline(value string) bool { return strings.Contains(value, "-----BEGIN ") }

// named is a value for messages, which never hold keys.
func (x *Context) named(value string) string {
	if inline(value) {
		return "(in the file)"
	}
	return x.path(value)
}

func (x *Context) path(value string) string {
	if filepath.IsAbs(value) {
		return value
	}
	return filepath.Join(x.dir, value)
}

func (x *Context) read(fsys vfs.FS, field, value string) ([]byte, error) {
	if inline(value) {
		return []byte(value), nil
	}
	text, err := vfs.ReadFile(fsys, x.path(value))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: %s does not exist", field, x.path(value))
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s: %s may not be read by this user", field, x.path(value))
	}
	return text, err
}
