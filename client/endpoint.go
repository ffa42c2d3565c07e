package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
)

// parseEndpoints turns endpoints into addresses, and says whether they are
// encrypted. Those without a scheme are so if there is a TLS configuration.
func parseEndpoints(endpoints []string, haveTLS bool) (addresses []resolver.Address, secure bool, err error) {
	if len(endpoints) == 0 {
		return nil, false, ErrNoEndpoints
	}
	for i, e := range endpoints {
		a, s, err := parseEndpoint(e, haveTLS)
		if err != nil {
			return nil, false, err
		}
		if i > 0 && s != secure {
			return nil, false, fmt.Errorf("endpoints %q: %w", endpoints, ErrMixedSecurity)
		}
		addresses, secure = append(addresses, a), s
	}
	return addresses, secure, nil
}

func parseEndpoint(endpoint string, haveTLS bool) (_ resolver.Address, secure bool, err error) {
	scheme, rest, found := strings.Cut(endpoint, "://")
	if !found {
		if path, ok := strings.CutPrefix(endpoint, "unix:"); ok {
			return unixAddress(path), haveTLS, nil
		}
		scheme, rest = "", endpoint
	}
	switch scheme {
	case "unix", "unixs":
		return unixAddress(rest), scheme == "unixs", nil
	case "http", "https", "":
	default:
		return resolver.Address{}, false, fmt.Errorf("endpoint %q: unknown scheme %q; use http, https, unix or unixs", endpoint, scheme)
	}
	host := rest
	if found {
		u, err := url.Parse(endpoint)
		if err != nil {
			return resolver.Address{}, false, fmt.Errorf("endpoint: %w", err)
		}
		host = u.Host
	}
	if _, port, err := net.SplitHostPort(host); err != nil || port == "" {
		return resolver.Address{}, false, fmt.Errorf("endpoint %q: want host:port", endpoint)
	}
	return resolver.Address{Addr: host, ServerName: host}, scheme == "https" || scheme == "" && haveTLS, nil
}

func unixAddress(path string) resolver.Address {
	return resolver.Address{Addr: "unix:" + path, ServerName: "localhost"}
}

// transportCredentials checks each member's certificate against the name in
// its own address.
func transportCredentials(cfg *tls.Config, secure bool) credentials.TransportCredentials {
	if !secure {
		return insecure.NewCredentials()
	}
	if cfg == nil {
		cfg = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return credentials.NewTLS(cfg)
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}
