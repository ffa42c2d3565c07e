package main

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/holdfast-db/holdfast/kube/join"
	"github.com/holdfast-db/holdfast/proto/codec"
	"github.com/holdfast-db/holdfast/server"
)

// advertised is where others reach the API. Empty: nowhere, which is enough where there
// are no others.
func (o *options) advertised() (string, error) {
	if o.advertiseAPI != "" {
		host, port, err := net.SplitHostPort(o.advertiseAPI)
		if err != nil || anyHost(host) || port == "" || port == "0" {
			return "", fmt.Errorf("--advertise-api is %q: give one host:port by which others reach this API", o.advertiseAPI)
		}
		return o.advertiseAPI, nil
	}
	host, _, err := net.SplitHostPort(o.listenAPI)
	if err != nil {
		return "", fmt.Errorf("--listen-api: %w", err)
	}
	several, afar := others(&o.member)
	if !anyHost(host) && !(afar && ofMachine(host)) {
		return o.listenAPI, nil
	}
	if several {
		return "", fmt.Errorf("--listen-api is %q, which is no address that other control planes reach this API by: give --advertise-api", o.listenAPI)
	}
	return "", nil
}

// anyHost reports whether a host is that of all addresses of a machine.
func anyHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.Unmap().IsUnspecified()
}

// ofMachine reports whether a host is one that each machine calls itself.
func ofMachine(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// others reports whether a member is to have others, and whether one of them is on
// another machine.
func others(m *server.Config) (several, afar bool) {
	several = m.InitialClusterState == server.StateExisting
	for pair := range strings.SplitSeq(m.InitialCluster, ",") {
		name, at, ok := strings.Cut(pair, "=")
		if !ok || strings.TrimSpace(name) == m.Name {
			continue
		}
		several = true
		u, err := url.Parse(strings.TrimSpace(at)) // What is wrong with it, Validate says.
		afar = afar || err == nil && !ofMachine(u.Hostname())
	}
	return several, afar
}

// reachedAt is an address that was told, with the port that was listened on if it names
// none.
func reachedAt(advertised string, listened net.Addr) string {
	host, port, err := net.SplitHostPort(advertised)
	if err != nil || port != "0" {
		return advertised
	}
	_, port, _ = net.SplitHostPort(listened.String()) // Of a listener: it has one.
	return net.JoinHostPort(host, port)
}

// peer connects to another control plane, as the API that this is.
func (p *plane) peer(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(join.Live(p.tls)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec.New())),
	)
}
