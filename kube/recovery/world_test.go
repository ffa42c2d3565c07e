package recovery_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/controller"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime/sim"
	"github.com/holdfast-db/holdfast/kube/scheduler"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// patience is how long a test waits for what should happen soon.
const patience = 90 * time.Second

// link is a connection to a control plane that comes and goes.
type link struct {
	mu     sync.Mutex
	to     grpc.ClientConnInterface // Nil: it is gone.
	cancel map[int]context.CancelFunc
	next   int
}

func (l *link) set(to grpc.ClientConnInterface) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, cancel := range l.cancel {
		cancel()
	}
	l.to, l.cancel = to, map[int]context.CancelFunc{}
}

// use returns the other side, and a context that ends with it.
func (l *link) use(ctx context.Context) (grpc.ClientConnInterface, context.Context, context.CancelFunc, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to == nil {
		return nil, nil, nil, status.Error(codes.Unavailable, "nobody is there")
	}
	ctx, cancel := context.WithCancel(ctx)
	n := l.next
	l.next++
	l.cancel[n] = cancel
	return l.to, ctx, func() {
		l.mu.Lock()
		delete(l.cancel, n)
		l.mu.Unlock()
		cancel()
	}, nil
}

func (l *link) Invoke(ctx context.Context, method string, args, reply any, o ...grpc.CallOption) error {
	to, ctx, done, err := l.use(ctx)
	if err != nil {
		return err
	}
	defer done()
	return to.Invoke(ctx, method, args, reply, o...)
}

func (l *link) NewStream(ctx context.Context, d *grpc.StreamDesc, method string, o ...grpc.CallOption) (grpc.ClientStream, error) {
	to, ctx, done, err := l.use(ctx)
	if err != nil {
		return nil, err
	}
	s, err := to.NewStream(ctx, d, method, o...)
	if err != nil {
		done() // Else it ends with its context.
	}
	return s, err
}

// machine is a node whose containers outlive its kubelet.
type machine struct {
	name  string
	world *world
	link  *link
	dir   string
	clock clock.Clock

	mu      sync.Mutex
	runtime *sim.Runtime
	changed func(types.UID)
	pods    map[types.UID]*corev1.Pod // That were started.
	starts  map[string]int            // By uid and container.
	stops   map[types.UID]int

	stop func() // Of its kubelet.
}

func (m *machine) Adopt(pods []*corev1.Pod) {
	keep := map[types.UID]bool{}
	for _, p := range pods {
		keep[p.UID] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for uid, p := range m.pods {
		if !keep[uid] && m.runtime.Status(p).Exists {
			m.world.Errorf("machine %s: pod %s runs, and its kubelet does not know it", m.name, p.Name)
		}
	}
}

func (m *machine) Start(pod *corev1.Pod, container string) {
	m.world.checkOnly(m, pod)
	m.mu.Lock()
	m.pods[pod.UID] = pod
	m.starts[string(pod.UID)+"/"+container]++
	m.stops[pod.UID] = 0
	m.mu.Unlock()
	m.runtime.Start(pod, container)
}

func (m *machine) Stop(pod *corev1.Pod, grace time.Duration) {
	m.mu.Lock()
	m.stops[pod.UID]++
	m.mu.Unlock()
	m.runtime.Stop(pod, grace)
}

func (m *machine) Status(pod *corev1.Pod) kubelet.PodState { return m.runtime.Status(pod) }
func (m *machine) Forget(uid types.UID)                    { m.runtime.Forget(uid) }

// running are the ids of the containers that run, by uid.
func (m *machine) running() map[types.UID]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[types.UID]string{}
	for uid, p := range m.pods {
		s := m.runtime.Status(p)
		if c := s.Containers["c"]; s.Exists && c.Phase == kubelet.Running && m.stops[uid] == 0 {
			all[uid] = c.ID
		}
	}
	return all
}

// world is a cluster with controllers, a scheduler and nodes.
type world struct {
	*testing.T
	clock    clock.Clock // Of the nodes.
	cluster  *kubetest.Cluster
	admin    *objects.Client
	machines []*machine
	timeline uint64
	planes   *task.Group
	ttl      int64 // Of the leases of nodes, in seconds. 0: the default.
	limits   controller.RecoveryLimits
	logger   hclog.Logger
}

func newWorld(t *testing.T, nodes int, clk clock.Clock) *world { return newWorldOf(t, nodes, clk, 0) }

func newWorldOf(t *testing.T, nodes int, clk clock.Clock, ttl int64) *world {
	leak.Check(t)
	w := &world{T: t, clock: clk, timeline: 1, ttl: ttl, limits: controller.RecoveryLimits{Quiet: time.Second}}
	w.logger = hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: t.Output()})
	w.cluster = kubetest.Start(t, w.set(1))
	w.govern()
	t.Cleanup(func() { w.planes.Stop(); w.planes.Wait() })
	for i := range nodes {
		w.addMachine(fmt.Sprintf("n%d", i))
	}
	return w
}

func (w *world) set(timeline uint64) func(*state.Config) {
	return func(c *state.Config) {
		c.Timeline, c.HeartbeatTTL = func() uint64 { return timeline }, w.ttl
	}
}

// govern starts controllers and a scheduler.
func (w *world) govern() {
	w.admin = w.cluster.Client(auth.Admin("ann"))
	w.planes = task.New(context.WithoutCancel(w.Context()))
	m, err := controller.New(controller.Config{
		Client: w.cluster.Client(auth.Controllers()), Store: w.cluster.Store(), Logger: w.logger, Recovery: w.limits,
	})
	if err != nil {
		w.Fatal(err)
	}
	s, err := scheduler.New(scheduler.Config{Client: w.cluster.Client(auth.Scheduler()), Logger: w.logger})
	if err != nil {
		w.Fatal(err)
	}
	w.planes.Go("controllers", quietly(func(ctx context.Context) error { return m.Run(ctx, w.lead("controllers")) }))
	w.planes.Go("scheduler", quietly(func(ctx context.Context) error { return s.Run(ctx, w.lead("scheduler")) }))
}

func quietly(f func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := f(ctx); ctx.Err() == nil {
			return err
		}
		return nil
	}
}

func (w *world) lead(part string) *kubepb.Fence {
	at := "/holdfast/leader/" + part + "/test"
	if _, err := w.cluster.Store().Delete(w.Context(), client.Delete{Range: client.One(at)}); err != nil {
		w.Error(err)
	}
	r, err := w.cluster.Store().Put(w.Context(), client.Put{Key: at})
	if err != nil {
		w.Error(err)
		return nil
	}
	return &kubepb.Fence{Key: at, CreateRevision: r.Header.Revision}
}

func (w *world) addMachine(name string) *machine {
	m := &machine{name: name, world: w, link: &link{}, dir: filepath.Join(w.TempDir(), name), clock: w.clock}
	m.pods, m.starts, m.stops = map[types.UID]*corev1.Pod{}, map[string]int{}, map[types.UID]int{}
	m.runtime = sim.New(sim.Config{Clock: w.clock, Subnet: "10.1.0.0/16", Changed: func(uid types.UID) {
		m.mu.Lock()
		changed := m.changed
		m.mu.Unlock()
		if changed != nil {
			changed(uid)
		}
	}})
	w.Cleanup(m.runtime.Close)
	m.link.set(w.cluster.Service.Dial(auth.Node(name)))
	w.machines = append(w.machines, m)
	m.start()
	w.Cleanup(func() { m.stop() })
	return m
}

// start starts its kubelet.
func (m *machine) start() {
	w := m.world
	capacity := sim.DefaultCapacity()
	capacity[corev1.ResourceCPU] = resource.MustParse("16")
	k, err := kubelet.New(kubelet.Config{
		Client: objects.New(m.link, "kubelet"), Node: m.name, Capacity: capacity, Runtime: "sim", Dir: m.dir, Clock: m.clock, Logger: w.logger,
		BootTime: func() (string, time.Duration, error) { return "one", m.clock.Mono(), nil },
		NewRuntime: func(_ context.Context, _ *corev1.Node, changed func(types.UID)) (kubelet.Runtime, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.changed = changed
			return m, nil
		},
	})
	if err != nil {
		w.Fatal(err)
	}
	g := task.New(context.WithoutCancel(w.Context()))
	g.Go("kubelet "+m.name, quietly(k.Run))
	m.stop = sync.OnceFunc(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			w.Errorf("kubelet %s: %v", m.name, err)
		}
	})
}

// checkOnly is the invariant of singletons.
func (w *world) checkOnly(at *machine, pod *corev1.Pod) {
	owner := metav1.GetControllerOf(pod)
	if !api.IsSingleton(pod) || owner == nil {
		return
	}
	for _, m := range w.machines {
		m.mu.Lock()
		for uid, p := range m.pods {
			if o := metav1.GetControllerOf(p); o != nil && o.UID == owner.UID && uid != pod.UID && m.runtime.Status(p).Exists {
				w.Errorf("singleton %s starts on %s while %s runs on %s", pod.Name, at.name, p.Name, m.name)
			}
		}
		m.mu.Unlock()
	}
}

// cut takes the control plane away.
func (w *world) cut() {
	for _, m := range w.machines {
		m.link.set(nil)
	}
	w.planes.Stop()
	if err := w.planes.Wait(); err != nil {
		w.Error(err)
	}
}

// back connects the nodes to the cluster that there is now.
func (w *world) back() {
	for _, m := range w.machines {
		m.link.set(w.cluster.Service.Dial(auth.Node(m.name)))
	}
}

// restore makes the objects what they were at a revision, on a new timeline.
func (w *world) restore(revision int64) {
	w.cut()
	w.timeline++
	w.cluster = w.cluster.Restore(revision, w.set(w.timeline))
	w.govern()
	w.back()
}

// revision is the store's now.
func (w *world) revision() int64 {
	r, err := w.cluster.Store().Get(w.Context(), client.Get{Range: client.One("/none"), CountOnly: true})
	if err != nil {
		w.Fatal(err)
	}
	return r.Header.Revision
}

func (w *world) eventually(what string, so func() error) {
	w.Helper()
	began := time.Now()
	for {
		err := so()
		if err == nil {
			return
		}
		if time.Since(began) > patience {
			w.Fatalf("not within %v: %s: %v", patience, what, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// ids are the containers that run, of all machines, by pod.
func (w *world) ids() map[types.UID]string {
	all := map[types.UID]string{}
	for _, m := range w.machines {
		for uid, id := range m.running() {
			all[uid] = id
		}
	}
	return all
}

// unchanged checks that what ran before runs on.
func (w *world) unchanged(before map[types.UID]string) {
	w.Helper()
	now := w.ids()
	for uid, id := range before {
		if now[uid] != id {
			w.Errorf("container %s of pod %s is %q now", id, uid, now[uid])
		}
	}
}

// exact checks the ledgers.
func (w *world) exact() {
	w.Helper()
	drifts, err := w.cluster.Service.Audit(w.Context())
	if err != nil || len(drifts) > 0 {
		w.Errorf("ledgers: %v, %v", drifts, err)
	}
}

func (w *world) runs(n int) error {
	if is := len(w.ids()); is != n {
		return fmt.Errorf("%d containers run, %d should", is, n)
	}
	return nil
}

// told waits until all nodes have told what they have.
func (w *world) told() *kubepb.RecoveryResponse {
	w.Helper()
	var is *kubepb.RecoveryResponse
	w.eventually("all nodes have told", func() (err error) {
		if is, err = w.admin.Recovery(w.Context(), true); err != nil {
			return err
		}
		reported := 0
		for _, n := range is.Nodes {
			if n.Reported != 0 {
				reported++
			}
		}
		if reported < len(w.machines) || is.State == kubepb.RecoveryResponse_SETTLED {
			return fmt.Errorf("%d of %d: %v", reported, len(w.machines), is)
		}
		return nil
	})
	return is
}

func (w *world) settled() {
	w.Helper()
	w.eventually("nobody holds", func() error {
		is, err := w.admin.Recovery(w.Context(), false)
		if err == nil && is.Hold != kubepb.Hold_HOLD_NONE {
			err = fmt.Errorf("%v", is)
		}
		return err
	})
}

func lists(is *kubepb.RecoveryResponse) (both, running, recorded []string) {
	for _, p := range is.Pods {
		switch p.List {
		case kubepb.RecoveredPod_BOTH:
			both = append(both, p.Name)
		case kubepb.RecoveredPod_RUNNING:
			running = append(running, p.Name)
		default:
			recorded = append(recorded, p.Name)
		}
	}
	return both, running, recorded
}

func (w *world) deployment(name string, replicas int32, annotations map[string]string) {
	w.Helper()
	app := map[string]string{"app": name}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	d.Spec.Replicas, d.Spec.Selector = &replicas, &metav1.LabelSelector{MatchLabels: app}
	d.Spec.Template.Labels, d.Spec.Template.Annotations = app, annotations
	d.Spec.Template.Spec = spec()
	if _, err := objects.Create(w.Context(), w.admin, d); err != nil {
		w.Fatal(err)
	}
}

func spec() corev1.PodSpec {
	grace := int64(1)
	return corev1.PodSpec{TerminationGracePeriodSeconds: &grace, Containers: []corev1.Container{{Name: "c", Image: "builtin/demo", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
	}}}}
}

func (w *world) scale(name string, n int32) {
	w.Helper()
	w.eventually("scale "+name, func() error {
		_, err := w.admin.Scale(w.Context(), &kubepb.ScaleRequest{Object: &kubepb.Ref{Kind: "Deployment", Namespace: "default", Name: name}, Replicas: n})
		return err
	})
}

func (w *world) pods(prefix string) map[string]*corev1.Pod {
	w.Helper()
	list, _, err := objects.List[*corev1.Pod](w.Context(), w.admin, objects.ListOptions{Namespace: "default"})
	if err != nil {
		w.Fatal(err)
	}
	all := map[string]*corev1.Pod{}
	for _, p := range list {
		if strings.HasPrefix(p.Name, prefix) {
			all[p.Name] = p
		}
	}
	return all
}
