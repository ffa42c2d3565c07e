package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// called is the context of a call over a connection with a verified certificate.
func called(t *testing.T, name string, groups []string, nodes ...string) context.Context {
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: name, Organization: groups}}
	ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}}})
	md := metadata.MD{}
	md.Append(NodeHeader, nodes...)
	return metadata.NewIncomingContext(ctx, md)
}

func TestAFleetSpeaksForItsOwnNodesAndNobodyElseForAny(t *testing.T) {
	fleet := []string{FleetGroup}
	for _, c := range []struct {
		name   string
		groups []string
		nodes  []string
		is     string
	}{
		{"system:fleet:sim", fleet, []string{"sim-1"}, "system:node:sim-1"},
		{"system:fleet:sim", fleet, []string{"simple"}, "system:fleet:sim"},
		{"system:fleet:sim", fleet, []string{"other-1"}, "system:fleet:sim"},
		{"system:fleet:sim", fleet, nil, "system:fleet:sim"},
		{"system:fleet:sim", fleet, []string{"sim-1", "sim-2"}, "system:fleet:sim"},
		{"system:fleet:", fleet, []string{"-1"}, "system:fleet:"},
		{"system:fleet:sim", nil, []string{"sim-1"}, "system:fleet:sim"},
		{"system:node:sim-2", []string{NodesGroup}, []string{"sim-1"}, "system:node:sim-2"},
		{"ann", []string{EditGroup}, []string{"sim-1"}, "ann"},
		{"ann", fleet, []string{"sim-1"}, "ann"},
	} {
		id, err := Of(called(t, c.name, c.groups, c.nodes...))
		if err != nil || id.Name != c.is {
			t.Errorf("%s of %q for %q is %q, %v; want %q", c.name, c.groups, c.nodes, id.Name, err, c.is)
		}
		if node, ok := id.NodeName(); ok != (c.is == "system:node:sim-1" || c.is == "system:node:sim-2") {
			t.Errorf("%s of %q for %q is node %q: %t", c.name, c.groups, c.nodes, node, ok)
		}
	}
}

func TestAFleetItselfMayDoNothing(t *testing.T) {
	for _, v := range []Verb{Get, List, Watch, Create, Update, Status, Delete, Bind, Evict, Heartbeat, Sign, Usage, Explain, Sample, Tunnel, Logs, Exec, Attach, Forward, Images} {
		if err := Authorize(&Request{Identity: Identity{"system:fleet:sim", []string{FleetGroup}}, Verb: v}, nil); err == nil {
			t.Errorf("it may %s", v)
		}
	}
}
