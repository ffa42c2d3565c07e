package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

// Resolver asks DNS. *net.Resolver is one.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	LookupHost(ctx context.Context, host string) ([]string, error)
}

// Discovery is where members meet that do not know each other.
type Discovery interface {
	// Join registers this member, written as in --initial-cluster, waits for the
	// others, and tells all in that form.
	Join(ctx context.Context, id ident.MemberID, self string) (string, error)
}

// initial is the first members by name, from the settings, from DNS, or from
// where they meet.
func (b *boot) initial(ctx context.Context) (map[string][]string, error) {
	if b.cfg.Discovery != nil {
		id := member.InitialID(b.cfg.AdvertisePeerURLs, b.cfg.InitialClusterToken)
		text, err := b.cfg.Discovery.Join(ctx, id, initialOf(b.cfg.Name, b.cfg.AdvertisePeerURLs))
		if err != nil {
			return nil, fmt.Errorf("--discovery-token: %w", err)
		}
		b.cfg.Logger.Info("the discovery service names the first members", "members", text)
		return parseInitialCluster(text)
	}
	if b.cfg.DiscoverySRV == "" {
		return parseInitialCluster(b.cfg.InitialCluster)
	}
	text, err := b.discover(ctx)
	if err != nil {
		return nil, fmt.Errorf("--discovery-srv %s: %w", b.cfg.DiscoverySRV, err)
	}
	b.cfg.Logger.Info("DNS names the first members", "domain", b.cfg.DiscoverySRV, "members", text)
	return parseInitialCluster(text)
}

// errNotInDNS means that the records do not name this member.
var errNotInDNS = errors.New("no SRV record leads to this member")

// discover makes the text of --initial-cluster out of SRV records. This member
// is the record whose address is one of its own peer URLs'; the others are
// numbered, as their names are not known before they say them.
func (b *boot) discover(ctx context.Context) (string, error) {
	own, err := b.ownAddresses(ctx)
	if err != nil {
		return "", err
	}
	suffix := ""
	if b.cfg.DiscoverySRVName != "" {
		suffix = "-" + b.cfg.DiscoverySRVName
	}
	var parts []string
	var failed []error
	found, number := false, 0
	for _, s := range []struct{ scheme, service string }{{"https", "etcd-server-ssl" + suffix}, {"http", "etcd-server" + suffix}} {
		_, records, err := b.cfg.Resolver.LookupSRV(ctx, s.service, "tcp", b.cfg.DiscoverySRV)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		slices.SortFunc(records, func(a, b *net.SRV) int { // DNS shuffles them.
			return strings.Compare(a.Target+":"+strconv.Itoa(int(a.Port)), b.Target+":"+strconv.Itoa(int(b.Port)))
		})
		for _, r := range records {
			host := net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
			name, err := b.nameOf(ctx, own, s.scheme, host)
			if err != nil {
				return "", err
			}
			if found = found || name != ""; name == "" {
				name = strconv.Itoa(number)
				number++
			}
			parts = append(parts, name+"="+s.scheme+"://"+host)
		}
	}
	switch {
	case len(parts) == 0:
		return "", fmt.Errorf("DNS names no members: %w", errors.Join(failed...))
	case !found:
		return "", fmt.Errorf("%w: the records are %s, --initial-advertise-peer-urls is %s", errNotInDNS, strings.Join(parts, ","), strings.Join(b.cfg.AdvertisePeerURLs, ","))
	}
	return strings.Join(parts, ","), nil
}

// ownAddresses resolves this member's peer URLs: address and port to scheme.
func (b *boot) ownAddresses(ctx context.Context) (map[string]string, error) {
	own := map[string]string{}
	for _, raw := range b.cfg.AdvertisePeerURLs {
		u, err := url.Parse(raw)
		if err != nil {
			return nil, err
		}
		addresses, err := b.cfg.Resolver.LookupHost(ctx, u.Hostname())
		if err != nil {
			return nil, fmt.Errorf("--initial-advertise-peer-urls %s: %w", raw, err)
		}
		for _, a := range addresses {
			own[net.JoinHostPort(a, u.Port())] = u.Scheme
		}
	}
	return own, nil
}

// nameOf is this member's name when a record leads to it, else "".
func (b *boot) nameOf(ctx context.Context, own map[string]string, scheme, hostPort string) (string, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return "", err
	}
	addresses, err := b.cfg.Resolver.LookupHost(ctx, host)
	if err != nil {
		return "", fmt.Errorf("SRV record of %s: %w", hostPort, err)
	}
	for _, a := range addresses {
		switch own[net.JoinHostPort(a, port)] {
		case "":
		case scheme:
			return b.cfg.Name, nil
		default:
			return "", fmt.Errorf("the SRV record of %s says %s, --initial-advertise-peer-urls another scheme: make them equal", hostPort, scheme)
		}
	}
	return "", nil
}
