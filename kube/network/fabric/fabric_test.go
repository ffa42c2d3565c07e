package fabric_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/hashicorp/go-hclog"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/network"
	"github.com/holdfast-db/holdfast/kube/network/fabric"
	"github.com/holdfast-db/holdfast/kube/network/networktest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/state"
)

var (
	podRange     = netip.MustParsePrefix("10.244.0.0/16")
	serviceRange = netip.MustParsePrefix("10.96.0.0/16")
)

func start(t *testing.T, services netip.Prefix) (*kubetest.Cluster, *objects.Client) {
	t.Helper()
	cluster := kubetest.Start(t, func(c *state.Config) { c.PodRange, c.ServiceRange = podRange, services })
	return cluster, cluster.Client(auth.Admin("ann"))
}

// run runs until the test ends, or what it returns is called.
func run(t *testing.T, f *fabric.Fabric) (stop func()) {
	t.Helper()
	g := task.New(context.Background())
	g.Go("fabric", f.Run)
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		g.Stop()
		if err := errors.Join(g.Wait(), f.Close()); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// node is a machine that is a node of the cluster.
type node struct {
	*networktest.Space
	t    *testing.T
	cfg  fabric.Config
	f    *fabric.Fabric
	stop func()
}

func newNode(t *testing.T, lab *networktest.Lab, cluster *kubetest.Cluster, number int, backend network.Backend, change ...func(*fabric.Config)) *node {
	t.Helper()
	name := fmt.Sprintf("node-%d", number)
	client := cluster.Client(auth.Node(name)) // All that it may do is enough.
	address := netip.AddrFrom4([4]byte{192, 0, 2, byte(number)})
	o := &corev1.Node{}
	o.Name = name
	o.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address.String()}}
	o, err := objects.Create(t.Context(), client, o)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Space: lab.Machine(netip.PrefixFrom(address, 24)), t: t, cfg: fabric.Config{
		Client: client, Node: name, Root: true, PodCIDR: netip.MustParsePrefix(o.Spec.PodCIDR), PodRange: podRange, ServiceRange: serviceRange, Backend: backend,
		Address: address, ResolvConf: t.TempDir() + "/none", Dir: t.TempDir(), Random: rand.Uint64, Logger: hclog.NewNullLogger(),
	}}
	for _, f := range change {
		f(&n.cfg)
	}
	n.open()
	return n
}

func (n *node) open() {
	n.t.Helper()
	n.Do(func() (err error) {
		n.f, err = fabric.Open(n.cfg)
		return err
	})
	n.stop = run(n.t, n.f)
}

func (n *node) pod(name string) (*networktest.Space, netip.Addr) {
	n.t.Helper()
	s := networktest.NewSpace(n.t)
	a, err := n.f.Network().Connect(n.t.Context(), name, s.Path())
	if err != nil {
		n.t.Fatal(err)
	}
	s.Echo(8080, name)
	return s, a
}

// find asks from within a pod for a name, as its resolv.conf says.
func (n *node) find(from *networktest.Space, name string) (string, error) {
	pod := &corev1.Pod{}
	pod.Namespace = "default"
	settings := n.f.DNS(pod)
	r := &net.Resolver{PreferGo: true, Dial: func(_ context.Context, network, _ string) (net.Conn, error) {
		return from.Dial(network, net.JoinHostPort(settings.Servers[0], "53"))
	}}
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	found, err := r.LookupHost(ctx, name+"."+settings.Searches[0]+".")
	if err != nil {
		return "", err
	}
	return found[0], nil
}

func webService(t *testing.T, c *objects.Client, nodePort int32, port int32) *corev1.Service {
	t.Helper()
	s := &corev1.Service{}
	s.Namespace, s.Name, s.Spec.Type = "default", "web", corev1.ServiceTypeNodePort
	s.Spec.Ports = []corev1.ServicePort{{Port: port, NodePort: nodePort}}
	s, err := objects.Create(t.Context(), c, s)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func slice(t *testing.T, c *objects.Client, port int32, addresses ...netip.Addr) {
	t.Helper()
	none, tcp := "", corev1.ProtocolTCP
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &none, Protocol: &tcp, Port: &port}}}
	s.Namespace, s.Name, s.Labels = "default", "web-1", map[string]string{discoveryv1.LabelServiceName: "web"}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a.String()}})
	}
	if _, err := objects.Create(t.Context(), c, s); err != nil {
		t.Fatal(err)
	}
}

func TestAPodFindsAServiceOfPodsOnOtherNodes(t *testing.T) {
	if _, here := networktest.Apart(t); !here { // Ports of nodes are on loopback too.
		return
	}
	leak.Check(t)
	cluster, admin := start(t, serviceRange)
	lab := networktest.New(t)
	a, b := newNode(t, lab, cluster, 1, network.VXLAN), newNode(t, lab, cluster, 2, network.VXLAN)
	outside := lab.Machine(netip.MustParsePrefix("192.0.2.99/24"))
	client, _ := a.pod("client")
	_, address := b.pod("server")
	webService(t, admin, 30080, 80)
	slice(t, admin, 8080, address)
	asks := func() {
		t.Helper()
		networktest.Eventually(t, func() error {
			vip, err := a.find(client, "web")
			if err != nil {
				return err
			}
			name, _, err := client.Ask(vip + ":80")
			if err == nil && name != "server" {
				err = fmt.Errorf("%s answers", name)
			}
			return err
		})
	}
	asks()
	for _, to := range []string{"192.0.2.1:30080", "192.0.2.2:30080"} { // Either node leads there.
		networktest.Eventually(t, func() error { _, _, err := outside.Ask(to); return err })
	}
	// A port of the pod at its node.
	p := &corev1.Pod{}
	p.UID = "server"
	p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{ContainerPort: 8080, HostPort: 8081}}}}
	b.f.Publish(p, address)
	networktest.Eventually(t, func() error { _, _, err := outside.Ask("192.0.2.2:8081"); return err })
	b.f.Unpublish("server")
	networktest.Eventually(t, func() error {
		if _, _, err := outside.Ask("192.0.2.2:8081"); err == nil {
			return errors.New("a port that is taken back leads somewhere")
		}
		return nil
	})
	// The kubelet of the node ends: pods and services go on, and names with the next.
	vip, err := objects.Get[*corev1.Service](t.Context(), admin, "default", "web")
	if err != nil {
		t.Fatal(err)
	}
	said := talk(t, client, vip.Spec.ClusterIP+":80")
	a.stop()
	said()
	if _, _, err := client.Ask(vip.Spec.ClusterIP + ":80"); err != nil {
		t.Errorf("without a kubelet: %v", err)
	}
	a.open()
	if err := a.f.Retain(t.Context(), map[string]netip.Addr{"client": {}}); err != nil {
		t.Fatal(err)
	}
	asks()
	said()
}

// quick is a clock in which waiting takes a hundredth of the time.
type quick struct{ clock.Clock }

func (c quick) After(d time.Duration) <-chan time.Time { return c.Clock.After(d / 100) }

func TestWhatOthersRemoveOfTheNetworkIsMadeAnew(t *testing.T) {
	if _, here := networktest.Apart(t); !here {
		return
	}
	leak.Check(t)
	cluster, admin := start(t, serviceRange)
	lab := networktest.New(t)
	hurry := func(c *fabric.Config) { c.Clock = quick{clock.Real()} }
	a, b := newNode(t, lab, cluster, 1, network.HostGateway, hurry), newNode(t, lab, cluster, 2, network.HostGateway)
	client, _ := a.pod("client")
	_, address := b.pod("server")
	lab.Machine(netip.MustParsePrefix("192.0.2.99/24")).Echo(8080, "outside")
	web := webService(t, admin, 30080, 80)
	slice(t, admin, 8080, address)
	reaches := func() {
		t.Helper()
		for to, want := range map[string]string{web.Spec.ClusterIP + ":80": "server", "192.0.2.99:8080": "outside"} {
			networktest.Eventually(t, func() error {
				name, _, err := client.Ask(to)
				if err == nil && name != want {
					err = fmt.Errorf("%s answers", name)
				}
				return err
			})
		}
	}
	reaches()
	a.Do(func() error { // As nftables.service begins.
		nft := &nftables.Conn{}
		nft.FlushRuleset()
		return nft.Flush()
	})
	reaches()
	a.Netlink(func(h *netlink.Handle) error { // Takes the routes along.
		up, err := h.LinkByName("uplink")
		if err != nil {
			return err
		}
		return errors.Join(h.LinkSetDown(up), h.LinkSetUp(up))
	})
	reaches()
}

// talk begins a connection, and returns what says one more thing on it.
func talk(t *testing.T, from *networktest.Space, to string) (more func()) {
	t.Helper()
	c, err := from.Dial("tcp4", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	heard := bufio.NewReader(c)
	if _, err := heard.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := fmt.Fprintln(c, "still there"); err != nil {
			t.Error(err)
		}
		if line, err := heard.ReadString('\n'); line != "still there\n" {
			t.Errorf("a connection that began before: %q, %v", line, err)
		}
	}
}

func TestWithoutRootAServiceIsReachedAtItsAddressAndAtThePortOfTheNode(t *testing.T) {
	leak.Check(t)
	cluster, admin := start(t, netip.MustParsePrefix("127.96.0.0/16"))
	o := &corev1.Node{}
	o.Name = "n"
	if _, err := objects.Create(t.Context(), cluster.Client(auth.Node("n")), o); err != nil {
		t.Fatal(err)
	}
	f, err := fabric.Open(fabric.Config{Client: cluster.Client(auth.Node("n")), Node: "n", ResolvConf: t.TempDir() + "/none", Random: rand.Uint64, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	run(t, f)
	if f.Network() != nil {
		t.Error("there is a network of pods")
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, "hello")
			c.Close()
		}
	}()
	at := netip.MustParseAddrPort(l.Addr().String())
	s := webService(t, admin, 0, 8080)
	slice(t, admin, int32(at.Port()), at.Addr())
	for _, to := range []string{s.Spec.ClusterIP + ":8080", fmt.Sprintf("127.0.0.1:%d", s.Spec.Ports[0].NodePort)} {
		if !strings.HasPrefix(to, "127.") {
			t.Fatal(to)
		}
		networktest.Eventually(t, func() error {
			c, err := net.Dial("tcp4", to)
			if err != nil {
				return err
			}
			defer c.Close()
			var word string
			_, err = fmt.Fscan(c, &word)
			return err
		})
	}
}
