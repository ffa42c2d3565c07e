package state

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// LedgerPrefix is that of the keys of ledgers: what the pods of a node were promised.
const LedgerPrefix = "/holdfast/ledger/"

// charged reports whether a pod counts: it has a node, and has not ended.
func charged(p *corev1.Pod) bool {
	return p != nil && p.Spec.NodeName != "" && !ended(p)
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// settle books what a change of a pod does to the ledger of its node. Old is nil for
// a new pod, new for one that goes. What grows must fit.
func (a *attempt) settle(old, now *corev1.Pod) error {
	was, is := charged(old), charged(now)
	if !was && !is {
		return nil
	}
	if !was {
		if err := a.mayCharge(now); err != nil {
			return err
		}
	}
	var less, more api.Resources
	node := ""
	if was {
		less, node = api.PodRequests(&old.Spec), old.Spec.NodeName
	}
	if is {
		more, node = api.PodRequests(&now.Spec), now.Spec.NodeName
	}
	if was && is && sameResources(&less, &more) {
		return nil
	}
	key := LedgerPrefix + node
	l, err := a.ledger(node)
	if err != nil {
		return err
	}
	if was {
		subtract(l, &less)
	}
	if is {
		if !a.recovers {
			if err := a.fits(node, l, &more); err != nil {
				return err
			}
		}
		add(l, &more)
	}
	return a.putLedger(key, l)
}

// putLedger writes a ledger. Names of nodes come and go, and leave nothing behind.
func (a *attempt) putLedger(key string, l *kubepb.Ledger) error {
	if proto.Size(l) == 0 {
		a.delete(key)
		return nil
	}
	value, err := encodeLedger(l)
	if err != nil {
		return err
	}
	a.putPlain(key, value, 0)
	return nil
}

// ledger reads that of a node.
func (a *attempt) ledger(node string) (*kubepb.Ledger, error) {
	l := &kubepb.Ledger{}
	if kv := a.read(LedgerPrefix + node); kv != nil {
		if err := l.UnmarshalVT(kv.Value); err != nil {
			return nil, fmt.Errorf("ledger of node %s: %w: %w", node, api.ErrEncoding, err)
		}
	}
	return l, nil
}

// fits reports whether a node has room for more beside what its ledger says.
func (a *attempt) fits(node string, l *kubepb.Ledger, more *api.Resources) error {
	o, _, err := a.shared(api.Node, "", node)
	if err != nil {
		return err
	}
	if o == nil {
		return fmt.Errorf("node %s: %w", node, errNotFound)
	}
	n := o.(*corev1.Node)
	if n.DeletionTimestamp != nil {
		return fmt.Errorf("node %s is being deleted, which %w with a pod bound to it", node, errGuard)
	}
	if short := shortage(node, l, api.NodeResources(n), more); len(short) > 0 {
		return fmt.Errorf("node %s has %w: %s", node, errFull, strings.Join(short, "; "))
	}
	return nil
}

// shortage names what there is too little of.
func shortage(node string, l *kubepb.Ledger, has api.Resources, more *api.Resources) []string {
	var short []string
	check := func(what string, used, wanted, limit int64) {
		if wanted > 0 && (used > limit || wanted > limit-used) { // So that no sum overflows.
			short = append(short, fmt.Sprintf("%s: %d wanted, %d of %d taken", what, wanted, used, limit))
		}
	}
	check("cpu millis", l.CpuMillis, more.MilliCPU, has.MilliCPU)
	check("memory", l.MemoryBytes, more.Memory, has.Memory)
	check("ephemeral-storage", l.EphemeralBytes, more.EphemeralStorage, has.EphemeralStorage)
	check("pods", l.Pods, more.Pods, has.Pods)
	for _, name := range slices.Sorted(maps.Keys(more.Extended)) {
		check(name, l.Extended[name], more.Extended[name], has.Extended[name])
	}
	for _, p := range more.HostPorts {
		for _, taken := range l.HostPorts {
			if q, ok := parsePort(taken); ok && conflicts(p, q) {
				short = append(short, "host port "+portText(p)+" is taken")
			}
		}
	}
	return short
}

func add(l *kubepb.Ledger, r *api.Resources) {
	l.CpuMillis += r.MilliCPU
	l.MemoryBytes += r.Memory
	l.EphemeralBytes += r.EphemeralStorage
	l.Pods += r.Pods
	for name, n := range r.Extended { //tidy:ordered sums
		if l.Extended == nil {
			l.Extended = map[string]int64{}
		}
		l.Extended[name] += n
	}
	for _, p := range r.HostPorts {
		l.HostPorts = append(l.HostPorts, portText(p))
	}
	slices.Sort(l.HostPorts)
}

func subtract(l *kubepb.Ledger, r *api.Resources) {
	l.CpuMillis -= r.MilliCPU
	l.MemoryBytes -= r.Memory
	l.EphemeralBytes -= r.EphemeralStorage
	l.Pods -= r.Pods
	for name, n := range r.Extended { //tidy:ordered sums
		if l.Extended[name] -= n; l.Extended[name] == 0 {
			delete(l.Extended, name)
		}
	}
	for _, p := range r.HostPorts {
		if i := slices.Index(l.HostPorts, portText(p)); i >= 0 {
			l.HostPorts = slices.Delete(l.HostPorts, i, i+1)
		}
	}
}

// encodeLedger writes equal ledgers as equal bytes.
func encodeLedger(l *kubepb.Ledger) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(l)
}

// portText is a host port as ledgers have it: "TCP/0.0.0.0/80".
func portText(p api.HostPort) string {
	ip := p.IP
	if ip == "" {
		ip = anyAddress
	}
	return fmt.Sprintf("%s/%s/%d", p.Protocol, ip, p.Port)
}

const anyAddress = "0.0.0.0"

func parsePort(text string) (api.HostPort, bool) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 {
		return api.HostPort{}, false
	}
	n, err := strconv.ParseUint(parts[2], 10, 16)
	return api.HostPort{IP: parts[1], Protocol: parts[0], Port: int32(n)}, err == nil
}

func conflicts(p, q api.HostPort) bool {
	return p.Port == q.Port && p.Protocol == q.Protocol && (everywhere(p.IP) || everywhere(q.IP) || p.IP == q.IP)
}

func everywhere(ip string) bool {
	a, err := netip.ParseAddr(ip)
	return err != nil || a.IsUnspecified()
}

func sameResources(a, b *api.Resources) bool {
	return a.MilliCPU == b.MilliCPU && a.Memory == b.Memory && a.EphemeralStorage == b.EphemeralStorage && a.Pods == b.Pods &&
		maps.Equal(a.Extended, b.Extended) && slices.Equal(a.HostPorts, b.HostPorts)
}
