package server_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// names is a DNS of this test alone.
type names struct {
	records map[string][]*net.SRV // By service.
	hosts   map[string][]string
}

func (n *names) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if r := n.records[service]; proto == "tcp" && name == "store.example" && r != nil {
		return "", slices.Clone(r), nil // Who asks may sort them.
	}
	return "", nil, &net.DNSError{Err: "no such host", Name: "_" + service + "._" + proto + "." + name, IsNotFound: true}
}

func (n *names) LookupHost(_ context.Context, host string) ([]string, error) {
	if net.ParseIP(host) != nil {
		return []string{host}, nil
	}
	if a := n.hosts[host]; a != nil {
		return a, nil
	}
	return nil, errors.New("no such host " + host)
}

func record(t *testing.T, raw string) *net.SRV {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return &net.SRV{Target: u.Hostname() + ".", Port: uint16(port)}
}

func TestDNSNamesTheFirstMembers(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	dns := &names{records: map[string][]*net.SRV{}}
	c := servertest.New(t, 3, func(_ int, c *server.Config) {
		if dns.records["etcd-server-x"] == nil { // All URLs are known from the first on.
			for _, part := range strings.Split(c.InitialCluster, ",") {
				_, u, _ := strings.Cut(part, "=")
				r := record(t, u)
				dns.records["etcd-server-x"] = append(dns.records["etcd-server-x"], r)
			}
		}
		c.InitialCluster, c.DiscoverySRV, c.DiscoverySRVName, c.Resolver = "", "store.example", "x", dns
	})
	mustPut(t, dial(t, c.Members[0]), "k", "v")
	if got := mustGet(t, dial(t, c.Members[1]), "k"); got != "v" {
		t.Errorf("read %q", got)
	}
}

func TestWhatDNSLacksIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		dns  *names
		want string
	}{
		"no records": {&names{}, "DNS names no members: lookup _etcd-server-ssl._tcp.store.example"},
		"others alone": {&names{records: map[string][]*net.SRV{"etcd-server": {{Target: "10.0.0.1.", Port: 7}}}},
			"no SRV record leads to this member: the records are 0=http://10.0.0.1:7, --initial-advertise-peer-urls is http://127.0.0.1:7"},
		"another scheme": {&names{records: map[string][]*net.SRV{"etcd-server-ssl": {{Target: "127.0.0.1.", Port: 7}}}}, "says https, --initial-advertise-peer-urls another scheme"},
		"no address":     {&names{records: map[string][]*net.SRV{"etcd-server": {{Target: "m.", Port: 7}}}}, "no such host m"},
	} {
		cfg := server.DefaultConfig(hclog.NewNullLogger())
		cfg.DataDir = filepath.Join(t.TempDir(), "data")
		cfg.ListenPeerURLs, cfg.AdvertisePeerURLs, cfg.ListenClientURLs = []string{"http://127.0.0.1:0"}, []string{"http://127.0.0.1:7"}, []string{"http://127.0.0.1:0"}
		cfg.DiscoverySRV, cfg.Resolver = "store.example", c.dns
		s, err := server.Start(t.Context(), cfg)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "--discovery-srv store.example") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
