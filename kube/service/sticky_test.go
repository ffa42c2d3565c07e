package service

import (
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
)

// More clients than are remembered must not keep later ones from being so for ever.
func TestClientsWhoseTimeIsOverMakeRoomForOthers(t *testing.T) {
	clk := clocktest.New()
	u, err := NewUserspace(UserspaceConfig{Random: func() uint64 { return 0 }, Clock: clk, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	s := u.newServed("default/web/tcp/80")
	s.set(&Port{Sticky: time.Minute, Endpoints: []netip.AddrPort{netip.MustParseAddrPort("10.244.1.1:80")}})
	client := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	connect := func(i int) bool {
		s.endpoint(client(i), nil)
		_, kept := s.mu.sticky[client(i)]
		return kept
	}
	for i := range stickyMax {
		if !connect(i) {
			t.Fatalf("client %d is not remembered", i)
		}
	}
	if connect(stickyMax) {
		t.Errorf("more than %d are remembered", stickyMax)
	}
	clk.Advance(30 * time.Second)
	connect(0) // Its time begins anew.
	clk.Advance(31 * time.Second)
	if !connect(stickyMax) || len(s.mu.sticky) != 2 {
		t.Errorf("%d are remembered, the new one and the one that came back should be", len(s.mu.sticky))
	}
}

func TestAPodMayHaveOnePortAtSeveralAddressesOfItsNode(t *testing.T) {
	to := netip.MustParseAddrPort("10.244.1.9:80")
	plan := MakeHostPorts("uid", []HostPort{
		{Protocol: TCP, Address: netip.MustParseAddr("192.0.2.1"), Port: 8080, To: to},
		{Protocol: TCP, Address: netip.MustParseAddr("127.0.0.1"), Port: 8080, To: to},
		{Protocol: UDP, Port: 8080, To: to},
	})
	if len(plan) != 3 {
		t.Errorf("of three ports there are %d:\n%v", len(plan), plan)
	}
}
