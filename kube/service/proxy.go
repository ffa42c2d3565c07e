package service

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// ProxyConfig says what a Proxy follows. All are required but Clock.
type ProxyConfig struct {
	Plane    Plane
	Services *objects.Informer[*corev1.Service]
	Slices   *objects.Informer[*discoveryv1.EndpointSlice]
	Clock    clock.Clock // Default: the machine's.
	Logger   hclog.Logger
}

// ServiceIndex is that by which slices are found: "namespace/service".
const ServiceIndex = "service"

// Proxy gives a Plane what the objects say.
type Proxy struct {
	cfg  ProxyConfig
	log  hclog.Logger
	wake chan struct{} // Holds one: something is dirty.

	mu struct { // Guards what others than Run write.
		sync.Mutex
		dirty map[string]struct{} // Services, "namespace/name".
		pods  map[string]Plan     // Host ports, by UID.
		moved map[string]struct{} // UIDs whose host ports are others.
	}

	// Owned by Run.
	plans  map[string]Plan     // By service, or "Pod/UID".
	ports  Plan                // All of them.
	claims map[claim][]string  // Who wants a front, sorted: the first has it.
	given  map[string]*Port    // What the plane was given last.
	fails  map[string]struct{} // Told already.
}

// claim is a front, which one port alone can have.
type claim struct {
	protocol Protocol
	front    Front
}

// NewProxy returns a Proxy, which does nothing before Run. The informers must not run
// yet.
func NewProxy(cfg ProxyConfig) *Proxy {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	p := &Proxy{
		cfg: cfg, log: cfg.Logger.Named("services"), wake: make(chan struct{}, 1),
		plans: map[string]Plan{}, ports: Plan{}, claims: map[claim][]string{}, given: map[string]*Port{}, fails: map[string]struct{}{},
	}
	p.mu.dirty, p.mu.pods, p.mu.moved = map[string]struct{}{}, map[string]Plan{}, map[string]struct{}{}
	cfg.Slices.AddIndex(ServiceIndex, func(s *discoveryv1.EndpointSlice) []string { return []string{serviceOf(s)} })
	cfg.Services.OnChange(func(old, now *corev1.Service) {
		if now == nil {
			now = old
		}
		p.touch(now.Namespace + "/" + now.Name)
	})
	cfg.Slices.OnChange(func(old, now *discoveryv1.EndpointSlice) {
		for _, s := range []*discoveryv1.EndpointSlice{old, now} {
			if s != nil {
				p.touch(serviceOf(s))
			}
		}
	})
	return p
}

func serviceOf(s *discoveryv1.EndpointSlice) string {
	return s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]
}

func (p *Proxy) touch(service string) {
	p.mu.Lock()
	p.mu.dirty[service] = struct{}{}
	p.mu.Unlock()
	p.rouse()
}

func (p *Proxy) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Publish makes ports of a pod ports of the node; none takes them back. It does not
// wait.
func (p *Proxy) Publish(uid string, ports []HostPort) {
	p.mu.Lock()
	if len(ports) == 0 {
		delete(p.mu.pods, uid)
	} else {
		p.mu.pods[uid] = MakeHostPorts(uid, ports)
	}
	p.mu.moved[uid] = struct{}{}
	p.mu.Unlock()
	p.rouse()
}

// Run keeps the plane as the objects are, until ctx ends. The plane stays as it is
// then: that the kubelet ends is no reason for services to.
func (p *Proxy) Run(ctx context.Context) error {
	if err := errors.Join(p.cfg.Services.Synced(ctx), p.cfg.Slices.Synced(ctx)); err != nil {
		return err
	}
	whole := true // The plane gets everything: at first, and after it failed.
	for {
		changes := p.changes()
		var err error
		switch {
		case whole:
			err = p.cfg.Plane.Replace(maps.Clone(p.given))
		case len(changes) > 0:
			err = p.cfg.Plane.Update(changes)
		}
		p.tell(err)
		again := lookInterval
		if whole = err != nil; whole {
			again = retryDelay // Other services do not wait for what failed.
		}
		select {
		case <-p.cfg.Clock.After(again):
			whole = whole || !p.stands()
		case <-p.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stands reports whether the plane is still there.
func (p *Proxy) stands() bool {
	is, err := p.cfg.Plane.Stands()
	if err != nil {
		p.log.Warn("it is not known whether services are reached", "error", err)
		return true
	}
	if !is {
		p.log.Warn("somebody has removed what leads to services; it is made anew")
	}
	return is
}

// tell logs an error once, not each second.
func (p *Proxy) tell(err error) {
	if err == nil {
		clear(p.fails)
		return
	}
	if _, ok := p.fails[err.Error()]; !ok {
		p.log.Warn("services are not all reachable, trying again", "error", err)
		p.fails[err.Error()] = struct{}{}
	}
}

// changes is what became of what is dirty.
func (p *Proxy) changes() Plan {
	p.mu.Lock()
	dirty, moved := p.mu.dirty, p.mu.moved
	p.mu.dirty, p.mu.moved = map[string]struct{}{}, map[string]struct{}{}
	next := map[string]Plan{}
	for uid := range moved { //tidy:ordered a map again
		next["Pod/"+uid] = p.mu.pods[uid]
	}
	p.mu.Unlock()
	for key := range dirty { //tidy:ordered a map again
		next[key] = p.plan(key)
	}
	ports := map[string]struct{}{} // Whose fronts may be others.
	for _, key := range slices.Sorted(maps.Keys(next)) {
		p.claim(p.plans[key], false, ports)
		if p.plans[key] = next[key]; len(next[key]) == 0 {
			delete(p.plans, key)
		}
		p.claim(next[key], true, ports)
	}
	return p.settle(ports)
}

func (p *Proxy) plan(key string) Plan {
	namespace, name, _ := strings.Cut(key, "/")
	s, ok := p.cfg.Services.Get(namespace, name)
	if !ok {
		return nil
	}
	return Make(s, p.cfg.Slices.ByIndex(ServiceIndex, key))
}

// claim says that the ports of a plan want their fronts, or no longer do.
func (p *Proxy) claim(plan Plan, wants bool, touched map[string]struct{}) {
	for name, port := range plan { //tidy:ordered claims are sorted
		touched[name] = struct{}{}
		if delete(p.ports, name); wants {
			p.ports[name] = port
		}
		for _, f := range port.Fronts {
			c := claim{port.Protocol, f}
			for _, other := range p.claims[c] {
				touched[other] = struct{}{}
			}
			i, has := slices.BinarySearch(p.claims[c], name)
			switch {
			case wants && !has:
				p.claims[c] = slices.Insert(p.claims[c], i, name)
			case !wants && has:
				p.claims[c] = slices.Delete(p.claims[c], i, i+1)
			}
			if len(p.claims[c]) == 0 {
				delete(p.claims, c)
			}
		}
	}
}

// settle says which of the ports are now others than the plane was given.
func (p *Proxy) settle(ports map[string]struct{}) Plan {
	changes := Plan{}
	for name := range ports { //tidy:ordered a map again
		now := p.won(p.ports[name])
		had := p.given[name]
		switch {
		case now == nil && had != nil:
			delete(p.given, name)
			changes[name] = nil
		case now != nil && (had == nil || !had.same(now)):
			p.given[name] = now
			changes[name] = now
		}
	}
	return changes
}

// won is a port with those of its fronts that are its own.
func (p *Proxy) won(port *Port) *Port {
	if port == nil {
		return nil
	}
	is := *port
	is.Fronts = nil
	for _, f := range port.Fronts {
		if owner := p.claims[claim{port.Protocol, f}][0]; owner == port.Name {
			is.Fronts = append(is.Fronts, f)
		} else {
			p.log.Warn("two want the same address and port, the first has it", "front", f, "has", owner, "wants", port.Name)
		}
	}
	return &is
}
