package service_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/holdfast-db/holdfast/kube/service"
)

func TestClientsStickToTheirEndpointsOverARestartOfTheKubelet(t *testing.T) {
	_, nodes := cluster(t, 1)
	n := nodes[0]
	pods := []*pod{n.pod("a"), n.pod("b"), n.pod("c"), n.pod("d")}
	var clients []*pod
	for i := range 10 {
		clients = append(clients, n.pod(fmt.Sprintf("client-%d", i)))
	}
	plan := func(stuck time.Duration, more ...netip.AddrPort) service.Plan {
		p := web(service.TCP, nil, pods...)
		p.Sticky = stuck
		p.Endpoints = append(p.Endpoints, more...)
		return planOf(p)
	}
	ask := func() []string { return askEach(t, clients) }
	same := func(when string, before, now []string) {
		t.Helper()
		if strings.Join(before, " ") != strings.Join(now, " ") {
			t.Errorf("%s:\n%v, and had\n%v", when, now, before)
		}
	}
	restart := func() {
		t.Helper()
		n.table.Close()
		n.openTable()
	}
	n.replace(plan(time.Hour))
	first := ask()
	restart()
	n.replace(plan(2 * time.Hour)) // One that was edited meanwhile, too.
	if left := longest(t, n); left > time.Hour {
		t.Errorf("a client sticks for %v from now, it had an hour", left)
	}
	same("a new kubelet", first, ask())

	// So many endpoints that the port has another map of slots.
	var more []netip.AddrPort
	for i := range 40 {
		more = append(more, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, 1, byte(200 + i)}), 80))
	}
	n.update(plan(2*time.Hour, more...))
	same("more endpoints", first, ask())

	// Those of an endpoint that went meanwhile get others.
	restart()
	pods = pods[:3]
	n.replace(plan(time.Minute))
	if left := longest(t, n); left > time.Minute {
		t.Errorf("a client sticks for %v, it may for a minute", left)
	}
	now := ask()
	for i, name := range first {
		if name == "d" {
			first[i] = now[i]
		}
	}
	if strings.Contains(strings.Join(now, " "), "d") {
		t.Errorf("one that is gone answers: %v", now)
	}
	same("without one endpoint", first, now)
}

// askEach is who answers each of some pods.
func askEach(t *testing.T, clients []*pod) (names []string) {
	t.Helper()
	for _, c := range clients {
		name, _, err := c.Ask("10.96.0.10:80")
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

// longest is for how long the client sticks that does so for longest.
func longest(t *testing.T, n *node) (left time.Duration) {
	t.Helper()
	n.Do(func() error {
		nft, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := nft.ListTables()
		if err != nil {
			return err
		}
		for _, table := range tables {
			sets, err := nft.GetSets(table)
			if err != nil {
				return err
			}
			for _, s := range sets {
				if !strings.HasSuffix(s.Name, "/sticky") {
					continue
				}
				all, err := nft.GetSetElements(s)
				if err != nil {
					return err
				}
				for _, e := range all {
					left = max(left, e.Expires)
				}
			}
		}
		return nil
	})
	if left == 0 {
		t.Error("nobody sticks")
	}
	return left
}
