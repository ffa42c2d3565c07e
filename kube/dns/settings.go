package dns

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// resolverPort is where name servers are.
const resolverPort = 53

// Where a service of the node on a loopback address, which pods do not reach, stands
// before the servers that are asked at last, those are in another file.
const (
	stubAddress = "127.0.0.53"
	behindStub  = "/run/systemd/resolve/resolv.conf"
)

// NodeFile is the resolv.conf of the node, which changes with its network: it is read
// again when somebody wants to know and the last time is a while ago.
type NodeFile struct {
	fs    vfs.FS
	name  string
	clock clock.Clock

	mu struct { // Not held while the file is read.
		sync.Mutex
		is   runtime.DNS // Nobody writes to what is in it.
		read time.Duration
	}
}

// OpenNodeFile reads a resolv.conf.
func OpenNodeFile(fsys vfs.FS, name string, clk clock.Clock) (*NodeFile, error) {
	f := &NodeFile{fs: fsys, name: name, clock: clk}
	var err error
	f.mu.read = clk.Mono()
	f.mu.is, err = nodeSettings(fsys, name)
	return f, err
}

// Settings are what the file says. One that is being written, or that cannot be read or
// names no server, leaves what was known.
func (f *NodeFile) Settings() runtime.DNS {
	now := f.clock.Mono()
	f.mu.Lock()
	is, due := f.mu.is, now-f.mu.read >= settingsAge
	if due {
		f.mu.read = now
	}
	f.mu.Unlock()
	if !due {
		return is
	}
	read, err := nodeSettings(f.fs, f.name)
	if err != nil || len(read.Servers) == 0 {
		return is
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.is = read
	return read
}

func nodeSettings(fsys vfs.FS, name string) (runtime.DNS, error) {
	d, err := readSettings(fsys, name)
	if err != nil || !slices.Contains(d.Servers, stubAddress) {
		return d, err
	}
	if behind, err := readSettings(fsys, behindStub); err == nil && len(behind.Servers) > 0 {
		return behind, nil
	}
	return d, nil
}

// readSettings reads a resolv.conf. One that is not there says nothing.
func readSettings(fsys vfs.FS, file string) (runtime.DNS, error) {
	f, err := fsys.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return runtime.DNS{}, nil
	}
	if err != nil {
		return runtime.DNS{}, fmt.Errorf("resolvers of the node: %w", err)
	}
	defer f.Close()
	b := make([]byte, readMax)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return runtime.DNS{}, fmt.Errorf("resolvers of the node: %w", err)
	}
	return parseSettings(string(b[:n])), nil
}

func parseSettings(text string) runtime.DNS {
	var d runtime.DNS
	for _, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) < 2 || strings.ContainsAny(words[0][:1], "#;") {
			continue
		}
		switch words[0] {
		case "nameserver":
			d.Servers = append(d.Servers, words[1])
		case "search", "domain":
			d.Searches = words[1:] // The last one counts.
		case "options":
			d.Options = append(d.Options, words[1:]...)
		}
	}
	return d
}

// Resolvers are the servers of some settings, but for addresses of our own: what we do
// not know we must not ask ourselves.
func Resolvers(d runtime.DNS, own ...netip.Addr) []netip.AddrPort {
	var all []netip.AddrPort
	for _, text := range d.Servers {
		a, err := netip.ParseAddr(text)
		if err == nil && !slices.Contains(own, a) {
			all = append(all, netip.AddrPortFrom(a, resolverPort))
		}
	}
	return all
}

// Most that a resolver takes.
const (
	serversMax  = 3
	searchesMax = 32
)

// ForPod is what a pod's resolv.conf says, by its policy. Server is where this package
// answers; zero: nowhere, so that pods have what the node has.
func ForPod(pod *corev1.Pod, server netip.Addr, domain string, node runtime.DNS) runtime.DNS {
	policy := pod.Spec.DNSPolicy
	if policy == "" {
		policy = corev1.DNSClusterFirst
	}
	if policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork || policy != corev1.DNSNone && !server.IsValid() {
		policy = corev1.DNSDefault
	}
	var d runtime.DNS
	switch policy {
	case corev1.DNSNone:
	case corev1.DNSDefault:
		d = runtime.DNS{Servers: slices.Clone(node.Servers), Searches: slices.Clone(node.Searches), Options: slices.Clone(node.Options)}
	default: // ClusterFirst, with the host's network or not.
		d = runtime.DNS{
			Servers:  []string{server.String()},
			Searches: append([]string{pod.Namespace + ".svc." + domain, "svc." + domain, domain}, node.Searches...),
			Options:  []string{fmt.Sprintf("ndots:%d", ndots)},
		}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		d.Servers = append(d.Servers, c.Nameservers...)
		d.Searches = append(d.Searches, c.Searches...)
		for _, o := range c.Options {
			d.Options = setOption(d.Options, o)
		}
	}
	d.Servers, d.Searches = unique(d.Servers, serversMax), unique(d.Searches, searchesMax)
	return d
}

// setOption puts an option in the place of another of its name.
func setOption(all []string, o corev1.PodDNSConfigOption) []string {
	all = slices.DeleteFunc(all, func(has string) bool {
		name, _, _ := strings.Cut(has, ":")
		return name == o.Name
	})
	text := o.Name
	if o.Value != nil && *o.Value != "" {
		text += ":" + *o.Value
	}
	return append(all, text)
}

func unique(all []string, most int) []string {
	var kept []string
	for _, s := range all {
		if !slices.Contains(kept, s) && len(kept) < most {
			kept = append(kept, s)
		}
	}
	return kept
}
