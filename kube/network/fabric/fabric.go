// Package fabric is the network of a node put together: addresses of pods and routes to
// those of other nodes, services, and names. A kubelet opens one and runs it beside its
// pods.
//
// With root pods have addresses of their own, services are in the kernel (ports of the
// node on its loopback beside it), and DNS answers at the node's gateway address. Without,
// pods are on the network of the node; services are listeners on loopback, and names are
// what the node's resolvers know. Where others connect pods, a CNI configuration for one,
// services and names are as with root, at an address of the node's own.
//
// When it ends, pods, routes and services go on; names are not answered until the next
// one runs.
package fabric

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/dns"
	"github.com/holdfast-db/holdfast/kube/network"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/service"
)

// Config says which node this is. Client, Node, Random and Logger are required; with
// Root also Dir, and PodCIDR unless Foreign.
type Config struct {
	Client *objects.Client // As the identity of the node.
	Node   string

	// Root says that this process may change the network: it takes CAP_NET_ADMIN.
	Root bool
	// Foreign says that others give pods their addresses, and route to those of other
	// nodes: PodCIDR, PodRange and Backend do not count. Without Root it changes nothing.
	Foreign bool

	PodCIDR      netip.Prefix    // The node's, from its object.
	PodRange     netip.Prefix    // The cluster's. Default: PodCIDR.
	ServiceRange netip.Prefix    // The cluster's. Without it the node itself reaches no service.
	Backend      network.Backend // Default: network.None. Others need Address.
	Address      netip.Addr      // The node's, as in its object. Without Root: where its ports are; default 127.0.0.1.
	MTU          int             // Default: the uplink's.

	Domain     string // Of names. Default: cluster.local.
	ResolvConf string // Of the node. Default: /etc/resolv.conf.

	Dir    string        // For addresses: Dir/network.
	Random func() uint64 // From many goroutines; nobody must guess it.
	FS     vfs.FS        // Default: the machine's.
	Clock  clock.Clock   // Default: the machine's.
	Logger hclog.Logger
}

const (
	// dnsPort is where pods ask.
	dnsPort = 53
	// setInterval is how often what was made of the network is made again: others on the
	// machine may have removed it, as routes go with an interface that goes down, and what
	// could not be made may be possible now.
	setInterval = 30 * time.Second

	resolvConf = "/etc/resolv.conf"
)

func (c *Config) setDefaults() error {
	if c.FS == nil {
		c.FS = vfs.OS()
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Domain == "" {
		c.Domain = dns.DefaultDomain
	}
	if c.ResolvConf == "" {
		c.ResolvConf = resolvConf
	}
	if c.Backend == "" {
		c.Backend = network.None
	}
	if c.Foreign {
		c.PodCIDR, c.PodRange, c.Backend = netip.Prefix{}, netip.Prefix{}, network.None
	}
	if c.Client == nil || c.Node == "" || c.Random == nil || c.Logger == nil {
		return errors.New("no Client, Node, Random or Logger")
	}
	return nil
}

// Fabric is the network of a node.
type Fabric struct {
	cfg Config
	log hclog.Logger

	services *objects.Informer[*corev1.Service]
	slices   *objects.Informer[*discoveryv1.EndpointSlice]
	nodes    *objects.Informer[*corev1.Node]
	moved    chan struct{} // Holds one: a node is elsewhere, or a pod of others.

	mu struct {
		sync.Mutex
		pods map[string]netip.Addr // By UID, that others connect.
	}

	network *network.Network // Nil without root.
	names   *dns.Server      // Nil without root.
	plane   service.Plane
	proxy   *service.Proxy
	node    *dns.NodeFile // What the node asks.
}

// foreign reports whether there is a network, of which pods are connected by others.
func (f *Fabric) foreign() bool { return f.network != nil && f.cfg.Foreign }

// Open makes what pods need to start, in the network namespace in which it is called.
// Pods can be connected at once; services and routes come with Run.
func Open(cfg Config) (*Fabric, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, fmt.Errorf("network of node %q: %w", cfg.Node, err)
	}
	f := &Fabric{cfg: cfg, log: cfg.Logger, moved: make(chan struct{}, 1)}
	f.mu.pods = map[string]netip.Addr{}
	f.services = objects.NewInformer[*corev1.Service](cfg.Client, objects.ListOptions{}, cfg.Logger)
	f.slices = objects.NewInformer[*discoveryv1.EndpointSlice](cfg.Client, objects.ListOptions{}, cfg.Logger)
	f.services.Reduce(reduceService)
	f.slices.Reduce(reduceSlice)
	f.nodes = objects.NewInformer[*corev1.Node](cfg.Client, objects.ListOptions{}, cfg.Logger)
	f.nodes.OnChange(func(*corev1.Node, *corev1.Node) { f.rouse() })
	var err error
	if f.node, err = dns.OpenNodeFile(cfg.FS, cfg.ResolvConf, cfg.Clock); err != nil {
		return nil, err
	}
	open := f.openUserspace
	if cfg.Root {
		open = f.openKernel
	}
	if err := open(); err != nil {
		f.Close()
		return nil, err
	}
	f.proxy = service.NewProxy(service.ProxyConfig{Plane: f.plane, Services: f.services, Slices: f.slices, Clock: cfg.Clock, Logger: cfg.Logger})
	return f, nil
}

func (f *Fabric) openKernel() (err error) {
	c := &f.cfg
	if f.network, err = network.Open(network.Config{
		Node: c.Node, PodCIDR: c.PodCIDR, PodRange: c.PodRange, Foreign: c.Foreign, ServiceRange: c.ServiceRange, Backend: c.Backend, Address: c.Address, MTU: c.MTU,
		Dir: filepath.Join(c.Dir, "network"), FS: c.FS, Clock: c.Clock, Logger: c.Logger,
	}); err != nil {
		return err
	}
	table, err := service.OpenTable(service.TableConfig{
		Node: c.Node, PodCIDR: c.PodCIDR, PodRange: c.PodRange, ServiceRange: c.ServiceRange, Clock: c.Clock, Logger: c.Logger,
	})
	if err != nil {
		return err
	}
	f.plane = table
	loopback, err := service.NewUserspace(service.UserspaceConfig{Random: c.Random, Clock: c.Clock, Logger: c.Logger})
	if err != nil {
		return err
	}
	f.plane = service.NewBeside(table, loopback, c.Logger)
	own := f.network.Gateway()
	f.names, err = dns.Open(dns.Config{
		Listen: netip.AddrPortFrom(own, dnsPort), Domain: c.Domain, View: dns.NewObjects(f.services, f.slices), Synced: f.synced,
		Resolvers: func() []netip.AddrPort { return dns.Resolvers(f.node.Settings(), own) }, Random: c.Random, Clock: c.Clock, Logger: c.Logger,
	})
	return err
}

func (f *Fabric) openUserspace() error {
	plane, err := service.NewUserspace(service.UserspaceConfig{Address: f.cfg.Address, Random: f.cfg.Random, Clock: f.cfg.Clock, Logger: f.cfg.Logger})
	if err == nil {
		f.plane = plane
	}
	return err
}

// synced reports whether all services are known.
func (f *Fabric) synced() bool { return f.services.IsSynced() && f.slices.IsSynced() }

// Network is what engines connect pods with. Nil without Root, or where others do it.
func (f *Fabric) Network() runtime.Network {
	if f.network == nil || f.cfg.Foreign {
		return nil
	}
	return f.network
}

// DNS is what the resolv.conf of a pod says.
func (f *Fabric) DNS(pod *corev1.Pod) runtime.DNS {
	var server netip.Addr
	if f.network != nil {
		server = f.network.Gateway()
	}
	return dns.ForPod(pod, server, f.cfg.Domain, f.node.Settings())
}

// Publish makes the host ports of a pod that has an address ports of the node. A pod on
// the network of the node has them without.
func (f *Fabric) Publish(pod *corev1.Pod, address netip.Addr) {
	var ports []service.HostPort
	if !pod.Spec.HostNetwork && address.IsValid() {
		for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range list {
				for _, p := range list[i].Ports {
					if h, ok := hostPort(p, address); ok {
						ports = append(ports, h)
					}
				}
			}
		}
	}
	f.proxy.Publish(string(pod.UID), ports)
	if !pod.Spec.HostNetwork {
		f.know(map[string]netip.Addr{string(pod.UID): address})
	}
}

// know notes pods that others have connected, or that one is gone: its address is zero.
func (f *Fabric) know(pods map[string]netip.Addr) {
	if !f.foreign() {
		return
	}
	f.mu.Lock()
	for uid, a := range pods { //tidy:ordered a map again
		if a.Is4() {
			f.mu.pods[uid] = a
		} else {
			delete(f.mu.pods, uid)
		}
	}
	f.mu.Unlock()
	f.rouse()
}

func hostPort(p corev1.ContainerPort, address netip.Addr) (service.HostPort, bool) {
	h := service.HostPort{Protocol: service.TCP, Port: uint16(p.HostPort), To: netip.AddrPortFrom(address, uint16(p.ContainerPort))}
	if p.Protocol == corev1.ProtocolUDP {
		h.Protocol = service.UDP
	}
	if a, err := netip.ParseAddr(p.HostIP); err == nil && !a.IsUnspecified() {
		h.Address = a
	}
	return h, p.HostPort != 0 && p.Protocol != corev1.ProtocolSCTP
}

// Unpublish takes them back.
func (f *Fabric) Unpublish(uid string) {
	f.proxy.Publish(uid, nil)
	f.know(map[string]netip.Addr{uid: {}})
}

// Retain removes the networks of all pods but these, by UID: what a crash left. Those
// that others connect are known from now on. Before Run, and before the first pod is
// started.
func (f *Fabric) Retain(ctx context.Context, pods map[string]netip.Addr) error {
	if f.network == nil {
		return nil
	}
	if f.cfg.Foreign {
		f.know(pods)
		return nil
	}
	return f.network.Retain(ctx, slices.Collect(maps.Keys(pods)))
}

// Run follows the objects until ctx ends, or the control plane refuses them.
func (f *Fabric) Run(ctx context.Context) error {
	g := task.New(ctx)
	g.Go("network services", f.services.Run)
	g.Go("network slices", f.slices.Run)
	g.Go("network proxy", f.proxy.Run)
	if f.names != nil {
		g.Go("network dns", f.names.Serve)
	}
	if f.network != nil {
		g.Go("network mend", func(ctx context.Context) error {
			return f.keep(ctx, nil, "the network of pods may lack something, trying again", f.network.Mend)
		})
	}
	switch {
	case f.foreign():
		g.Go("network pods", func(ctx context.Context) error { return f.keep(ctx, f.moved, unled, f.setPods) })
	case f.network != nil && f.cfg.Backend != network.None:
		g.Go("network nodes", f.nodes.Run)
		g.Go("network routes", f.keepPeers)
	}
	return g.Wait()
}

func (f *Fabric) rouse() {
	select {
	case f.moved <- struct{}{}:
	default:
	}
}

// keepPeers keeps the routes to other nodes. Before all of these are known none is
// removed.
func (f *Fabric) keepPeers(ctx context.Context) error {
	if err := f.nodes.Synced(ctx); err != nil {
		return err
	}
	return f.keep(ctx, f.moved, unled, func() error {
		return f.network.SetPeers(network.Peers(f.nodes.List(""), f.cfg.Node, f.cfg.Address))
	})
}

// setPods has pods that others connect meet through services.
func (f *Fabric) setPods() error {
	f.mu.Lock()
	pods := slices.SortedFunc(maps.Values(f.mu.pods), netip.Addr.Compare)
	f.mu.Unlock()
	return f.network.SetPods(slices.Compact(pods))
}

// unled is what the log says where routes and rules could not be made.
const unled = "not all pods and nodes are led to, trying again"

// keep has the network be as it shall: again when woken, and each setInterval. That it
// fails is logged when it is news.
func (f *Fabric) keep(ctx context.Context, wake <-chan struct{}, failing string, set func() error) error {
	told := ""
	for {
		text := ""
		if err := set(); err != nil {
			text = err.Error()
		}
		if text != "" && text != told {
			f.log.Warn(failing, "error", text)
		}
		told = text
		select {
		case <-wake:
		case <-f.cfg.Clock.After(setInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close ends what Open began, after Run. The network of pods stays; listeners without
// root end.
func (f *Fabric) Close() error {
	var errs []error
	if f.names != nil {
		errs = append(errs, f.names.Close())
	}
	if f.plane != nil {
		errs = append(errs, f.plane.Close())
	}
	if f.network != nil {
		errs = append(errs, f.network.Close())
	}
	return errors.Join(errs...)
}
