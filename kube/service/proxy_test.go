package service_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/network/networktest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/service"
)

// record is a plane that keeps what it was given.
type record struct {
	sync.Mutex
	plan     service.Plan
	replaced int
	fail     bool
	lacks    bool // One front cannot be had, whatever is tried.
}

func (r *record) Replace(p service.Plan) error {
	r.Lock()
	defer r.Unlock()
	r.replaced++
	r.plan = maps.Clone(p)
	if r.lacks {
		return errors.New("port 80 is for root")
	}
	return nil
}

func (r *record) Update(changes service.Plan) error {
	r.Lock()
	defer r.Unlock()
	if r.fail {
		r.fail = false
		return errors.New("the kernel is not in the mood")
	}
	for name, p := range changes {
		if r.plan[name] = p; p == nil {
			delete(r.plan, name)
		}
	}
	return nil
}

func (r *record) Stands() (bool, error) {
	r.Lock()
	defer r.Unlock()
	return r.plan != nil, nil
}

func (r *record) Close() error { return nil }

func (r *record) String() string {
	r.Lock()
	defer r.Unlock()
	return r.plan.String()
}

func (r *record) await(t *testing.T, want string) {
	t.Helper()
	networktest.Eventually(t, func() error {
		if got := r.String(); got != want {
			return fmt.Errorf("the plane has\n%swant\n%s", got, want)
		}
		return nil
	})
}

// following is a proxy of a node in a cluster.
type following struct {
	admin *objects.Client
	plane *record
	proxy *service.Proxy
	clock *clocktest.Fake
}

func follow(t *testing.T) *following {
	t.Helper()
	cluster := kubetest.Start(t)
	f := &following{admin: cluster.Client(auth.Admin("ann")), plane: &record{}, clock: clocktest.New()}
	node := cluster.Client(auth.Node("n")) // What a node may see is enough.
	services := objects.NewInformer[*corev1.Service](node, objects.ListOptions{}, hclog.NewNullLogger())
	slices := objects.NewInformer[*discoveryv1.EndpointSlice](node, objects.ListOptions{}, hclog.NewNullLogger())
	f.proxy = service.NewProxy(service.ProxyConfig{Plane: f.plane, Services: services, Slices: slices, Clock: f.clock, Logger: hclog.NewNullLogger()})
	g := task.New(t.Context())
	g.Go("services", services.Run)
	g.Go("slices", slices.Run)
	g.Go("proxy", f.proxy.Run)
	t.Cleanup(func() { g.Stop(); g.Wait() })
	return f
}

func (f *following) service(t *testing.T, name, address string, nodePort int32) *corev1.Service {
	t.Helper()
	s := &corev1.Service{}
	s.Namespace, s.Name = "default", name
	s.Spec.ClusterIP, s.Spec.Ports = address, []corev1.ServicePort{{Port: 80, NodePort: nodePort}}
	if nodePort != 0 {
		s.Spec.Type = corev1.ServiceTypeNodePort
	}
	s, err := objects.Create(t.Context(), f.admin, s)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *following) slice(t *testing.T, name, of string, addresses ...string) *discoveryv1.EndpointSlice {
	t.Helper()
	none, tcp, port := "", corev1.ProtocolTCP, int32(8080)
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &none, Protocol: &tcp, Port: &port}}}
	s.Namespace, s.Name, s.Labels = "default", name, map[string]string{discoveryv1.LabelServiceName: of}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	s, err := objects.Create(t.Context(), f.admin, s)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// passes lets time pass until the plane is as wanted.
func (f *following) passes(t *testing.T, want string) {
	t.Helper()
	networktest.Eventually(t, func() error {
		if got := f.plane.String(); got != want {
			f.clock.Advance(time.Second)
			return fmt.Errorf("the plane has\n%swant\n%s", got, want)
		}
		return nil
	})
}

func TestAProxyFollowsTheObjects(t *testing.T) {
	f := follow(t)
	f.service(t, "web", "10.96.0.10", 30080)
	f.plane.await(t, "default/web/tcp/80 at 10.96.0.10:80 *:30080\n")
	one := f.slice(t, "one", "web", "10.244.1.2")
	f.slice(t, "two", "web", "10.244.1.3")
	f.plane.await(t, "default/web/tcp/80 at 10.96.0.10:80 *:30080\n  to 10.244.1.2:8080 10.244.1.3:8080\n")
	one.Labels[discoveryv1.LabelServiceName] = "other"
	if _, err := objects.Update(t.Context(), f.admin, one); err != nil {
		t.Fatal(err)
	}
	f.plane.await(t, "default/web/tcp/80 at 10.96.0.10:80 *:30080\n  to 10.244.1.3:8080\n")
	f.service(t, "other", "10.96.0.11", 0)
	f.plane.await(t, "default/other/tcp/80 at 10.96.0.11:80\n  to 10.244.1.2:8080\ndefault/web/tcp/80 at 10.96.0.10:80 *:30080\n  to 10.244.1.3:8080\n")
	if err := objects.Delete[*corev1.Service](t.Context(), f.admin, "default", "web"); err != nil {
		t.Fatal(err)
	}
	f.plane.await(t, "default/other/tcp/80 at 10.96.0.11:80\n  to 10.244.1.2:8080\n")
}

func TestOfTwoWhoWantAPlaceOneHasItUntilItGoes(t *testing.T) {
	f := follow(t)
	f.service(t, "web", "10.96.0.10", 30080)
	to := netip.MustParseAddrPort("10.244.1.9:80")
	f.proxy.Publish("uid", []service.HostPort{{Protocol: service.TCP, Port: 30080, To: to}, {Protocol: service.TCP, Port: 8080, To: to}})
	const host = "Pod/uid/tcp/30080 at *:30080\n  to 10.244.1.9:80\nPod/uid/tcp/8080 at *:8080\n  to 10.244.1.9:80\n"
	f.plane.await(t, host+"default/web/tcp/80 at 10.96.0.10:80\n")
	f.proxy.Publish("uid", nil)
	f.plane.await(t, "default/web/tcp/80 at 10.96.0.10:80 *:30080\n")
}

func TestAPlaneThatFailedIsGivenEverythingAnew(t *testing.T) {
	f := follow(t)
	f.service(t, "web", "10.96.0.10", 0)
	f.plane.await(t, "default/web/tcp/80 at 10.96.0.10:80\n")
	f.plane.Lock()
	f.plane.fail = true
	before := f.plane.replaced
	f.plane.Unlock()
	f.service(t, "two", "10.96.0.11", 0)
	f.passes(t, "default/two/tcp/80 at 10.96.0.11:80\ndefault/web/tcp/80 at 10.96.0.10:80\n")
	f.plane.Lock()
	defer f.plane.Unlock()
	if f.plane.replaced != before+1 {
		t.Errorf("replaced %d times, before %d", f.plane.replaced, before)
	}
}

func TestAPlaneThatOthersRemovedIsGivenEverythingAnew(t *testing.T) {
	f := follow(t)
	f.service(t, "web", "10.96.0.10", 0)
	f.plane.await(t, "default/web/tcp/80 at 10.96.0.10:80\n")
	f.plane.Lock()
	f.plane.plan = nil
	f.plane.Unlock()
	f.passes(t, "default/web/tcp/80 at 10.96.0.10:80\n")
}

// The clock stands: what fails is tried again later, and nobody else waits for that.
func TestAFrontThatCannotBeHadHoldsUpNoOtherService(t *testing.T) {
	f := follow(t)
	f.service(t, "web", "10.96.0.10", 0)
	f.plane.await(t, "default/web/tcp/80 at 10.96.0.10:80\n")
	f.plane.Lock()
	f.plane.fail, f.plane.lacks = true, true
	f.plane.Unlock()
	f.service(t, "three", "10.96.0.12", 0)
	f.service(t, "two", "10.96.0.11", 0)
	f.plane.await(t, "default/three/tcp/80 at 10.96.0.12:80\ndefault/two/tcp/80 at 10.96.0.11:80\ndefault/web/tcp/80 at 10.96.0.10:80\n")
}
