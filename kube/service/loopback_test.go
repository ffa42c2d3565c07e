package service_test

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/kube/network"
	"github.com/holdfast-db/holdfast/kube/network/networktest"
	"github.com/holdfast-db/holdfast/kube/service"
)

func TestAPortOfANodeIsReachedOnItsLoopbackToo(t *testing.T) {
	space, here := networktest.Apart(t)
	if !here {
		return
	}
	n := &node{Space: space, t: t, name: "node", cidr: netip.MustParsePrefix("10.244.1.0/24")}
	var err error
	n.net, err = network.Open(network.Config{
		Node: n.name, PodCIDR: n.cidr, PodRange: podRange, ServiceRange: serviceRange, Dir: t.TempDir(), Logger: hclog.NewNullLogger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.net.Close()
	n.openTable()
	loopback, err := service.NewUserspace(service.UserspaceConfig{Random: rand.Uint64, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	plane := service.NewBeside(n.table, loopback, hclog.NewNullLogger())
	a, b := n.pod("a"), n.pod("b")
	asks := func(want string, addresses ...string) {
		t.Helper()
		for _, at := range addresses {
			if name, _, err := space.Ask(at); err != nil || name != want {
				t.Errorf("%s: %s, %v; want %s", at, name, err, want)
			}
		}
	}
	gateway := n.net.Gateway().String()
	if err := plane.Replace(planOf(web(service.TCP, []service.Front{{Port: 30080}}, a))); err != nil {
		t.Fatal(err)
	}
	asks("a", "127.0.0.1:30080", gateway+":30080", "10.96.0.10:80")

	// A port of loopback alone is nowhere else.
	host := service.MakeHostPorts("uid", []service.HostPort{{Protocol: service.TCP, Address: netip.MustParseAddr("127.0.0.1"), Port: 8080, To: b.at}})
	if err := plane.Update(host); err != nil {
		t.Fatal(err)
	}
	asks("b", "127.0.0.1:8080")
	refused(t, space, gateway+":8080")

	// What is in another program's hands there is still reached at the node's address,
	// and comes back with the next change.
	var taken net.Listener
	space.Do(func() (err error) {
		taken, err = net.Listen("tcp4", "127.0.0.1:30081")
		return err
	})
	if err := plane.Update(planOf(web(service.TCP, []service.Front{{Port: 30081}}, a))); err != nil {
		t.Errorf("a place that is taken on loopback: %v", err)
	}
	asks("a", gateway+":30081")
	refused(t, space, "127.0.0.1:30080")
	taken.Close()
	if err := plane.Update(service.Plan{"Pod/uid/tcp/8080/127.0.0.1": nil}); err != nil {
		t.Fatal(err)
	}
	asks("a", "127.0.0.1:30081")
	if _, err := space.Dial("tcp4", "127.0.0.1:8080"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after its pod: %v", err)
	}
	if err := plane.Close(); err != nil {
		t.Error(err)
	}
	asks("a", gateway+":30081", "10.96.0.10:80") // The kernel goes on.
}
