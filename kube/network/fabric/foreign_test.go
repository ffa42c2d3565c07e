package fabric_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/kube/network"
	"github.com/holdfast-db/holdfast/kube/network/fabric"
	"github.com/holdfast-db/holdfast/kube/network/networktest"
)

// bridged makes pods of a node as the plugin "bridge" of CNI does: all at one bridge, by
// which they reach each other directly, with the node as the way to all else.
type bridged struct {
	*node
	pods int
}

func (b *bridged) makeBridge(filtered string) {
	b.t.Helper()
	b.Do(func() error {
		// Whether frames of a bridge meet the rules of packets.
		if err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte(filtered), 0); err != nil && !os.IsNotExist(err) {
			return err
		}
		return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
	})
	b.Netlink(func(h *netlink.Handle) error {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}
		if err := h.LinkAdd(br); err != nil {
			return err
		}
		at, _ := netlink.ParseAddr("10.88.0.1/24")
		if err := h.AddrAdd(br, at); err != nil {
			return err
		}
		return h.LinkSetUp(br)
	})
}

func (b *bridged) pod(name string) (*networktest.Space, netip.Addr) {
	b.t.Helper()
	b.pods++
	s, a := networktest.NewSpace(b.t), netip.AddrFrom4([4]byte{10, 88, 0, byte(10 + b.pods)})
	space, err := netns.GetFromPath(s.Path())
	if err != nil {
		b.t.Fatal(err)
	}
	defer space.Close()
	b.Netlink(func(h *netlink.Handle) error {
		pair := netlink.NewVeth(netlink.LinkAttrs{Name: fmt.Sprint("veth", b.pods)})
		pair.PeerName, pair.PeerNamespace = "eth0", netlink.NsFd(space)
		if err := h.LinkAdd(pair); err != nil {
			return err
		}
		br, err := h.LinkByName("cni0")
		if err != nil {
			return err
		}
		if err := h.LinkSetMaster(pair, br); err != nil {
			return err
		}
		return h.LinkSetUp(pair)
	})
	s.Netlink(func(h *netlink.Handle) error {
		eth0, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := h.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}}); err != nil {
			return err
		}
		if err := h.LinkSetUp(eth0); err != nil {
			return err
		}
		return h.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: net.IPv4(10, 88, 0, 1)})
	})
	s.Echo(8080, name)
	o := &corev1.Pod{}
	o.UID = types.UID(name)
	b.f.Publish(o, a)
	return s, a
}

// Pods that others have connected to one bridge find services as those on wires of ours:
// each other and themselves, whether the bridge's frames meet the rules or do not.
func TestPodsOfABridgeOfOthersMeetThroughServices(t *testing.T) {
	for _, filtered := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables "+filtered, func(t *testing.T) {
			networktest.Root(t)
			leak.Check(t)
			cluster, admin := start(t, serviceRange)
			lab := networktest.New(t)
			n := &bridged{node: newNode(t, lab, cluster, 1, network.None, func(c *fabric.Config) { c.Foreign = true })}
			n.makeBridge(filtered)
			outside := lab.Machine(netip.MustParsePrefix("192.0.2.99/24"))
			s := webService(t, admin, 30080, 80)
			one, a := n.pod("one")
			_, b := n.pod("two")
			slice(t, admin, 8080, a, b)
			at := s.Spec.ClusterIP + ":80"
			for who, ask := range map[string]func(string) (string, string, error){"pod": one.Ask, "node": n.Ask} {
				networktest.Eventually(t, func() error { _, _, err := ask(at); return err })
				answered := map[string]int{}
				for range 40 { // Some go to the pod that asks.
					name, saw, err := ask(at)
					if err != nil {
						t.Fatalf("the %s at the address of the service: %v", who, err)
					}
					answered[name]++
					if saw != "10.88.0.1" {
						t.Errorf("%s is asked by the %s and sees %s", name, who, saw)
					}
				}
				if answered["one"] == 0 || answered["two"] == 0 {
					t.Errorf("the %s is answered by %v", who, answered)
				}
			}
			if _, _, err := outside.Ask("192.0.2.1:30080"); err != nil {
				t.Errorf("from outside at a port of the node: %v", err)
			}
			if vip, err := n.find(one, "web"); err != nil || vip != s.Spec.ClusterIP {
				t.Errorf("a pod is told of %s: %v", vip, err)
			}
			// Past services a pod is who it is.
			if _, saw, err := one.Ask(b.String() + ":8080"); err != nil || saw != a.String() {
				t.Errorf("asked at its own address the other pod sees %s: %v", saw, err)
			}
			// The next kubelet has the address of the one before.
			was := n.f.DNS(&corev1.Pod{}).Servers[0]
			n.stop()
			n.Do(func() (err error) {
				n.f, err = fabric.Open(n.cfg)
				return err
			})
			if err := n.f.Retain(t.Context(), map[string]netip.Addr{"one": a, "two": b}); err != nil {
				t.Fatal(err)
			}
			n.stop = run(t, n.f)
			if is := n.f.DNS(&corev1.Pod{}).Servers[0]; is != was {
				t.Errorf("names are at %s, and were at %s", is, was)
			}
			networktest.Eventually(t, func() error { _, err := n.find(one, "web"); return err })
			for range 20 {
				if _, _, err := one.Ask(at); err != nil {
					t.Fatalf("with the next kubelet: %v", err)
				}
			}
			if n.f.Network() != nil {
				t.Error("engines are told to connect pods")
			}
		})
	}
}
