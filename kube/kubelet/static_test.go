package kubelet_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime/sim"
)

// late is a connection to a control plane that comes once it is set.
type late struct {
	to    atomic.Pointer[grpc.ClientConnInterface]
	muted atomic.Bool // What is told of pods does not arrive.
}

var errAway = status.Error(codes.Unavailable, "there is no control plane yet")

func (l *late) set(to grpc.ClientConnInterface) { l.to.Store(&to) }

func (l *late) Invoke(ctx context.Context, method string, args, reply any, o ...grpc.CallOption) error {
	if to := l.to.Load(); to != nil && !(l.muted.Load() && strings.HasSuffix(method, "/UpdateStatus")) {
		return (*to).Invoke(ctx, method, args, reply, o...)
	}
	return errAway
}

func (l *late) NewStream(ctx context.Context, d *grpc.StreamDesc, method string, o ...grpc.CallOption) (grpc.ClientStream, error) {
	if to := l.to.Load(); to != nil {
		return (*to).NewStream(ctx, d, method, o...)
	}
	return nil, errAway
}

// bench is one kubelet with a folder of static pods.
type bench struct {
	*testing.T
	clock   clock.Clock
	node    string
	dir     string
	static  string
	conn    *late
	runtime atomic.Pointer[sim.Runtime]
	log     strings.Builder // Of the kubelet; read once it has stopped.
	tasks   *task.Group
}

func (b *bench) write(file, text string) {
	b.Helper()
	whole := filepath.Join(b.dir, "manifest") // Who reads the folder just then sees no half of it.
	if err := os.WriteFile(whole, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.Rename(whole, filepath.Join(b.static, file)); err != nil {
		b.Fatal(err)
	}
}

func manifest(name, image string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - name: c\n    image: %s\n    resources:\n      requests: {cpu: 500m}\n", name, image)
}

func newBench(t *testing.T, clk clock.Clock) *bench { return newBenchOf(t, clk, "n") }

func newBenchOf(t *testing.T, clk clock.Clock, node string) *bench {
	leak.Check(t)
	b := &bench{T: t, clock: clk, node: node, static: t.TempDir(), dir: t.TempDir(), conn: &late{}}
	b.start()
	t.Cleanup(b.stop)
	return b
}

// start starts the kubelet, with a runtime in which nothing runs.
func (b *bench) start() {
	b.Helper()
	clk := b.clock
	k, err := kubelet.New(kubelet.Config{
		Client: objects.New(b.conn, "kubelet"), Node: b.node, Capacity: sim.DefaultCapacity(), Dir: b.dir, StaticDir: b.static, Clock: clk,
		Logger: hclog.New(&hclog.LoggerOptions{Output: &b.log}),
		NewRuntime: func(_ context.Context, node *corev1.Node, changed func(types.UID)) (kubelet.Runtime, error) {
			r := sim.New(sim.Config{Clock: clk, Subnet: node.Spec.PodCIDR, Changed: changed})
			b.runtime.Store(r)
			return r, nil
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.tasks = task.New(context.WithoutCancel(b.Context()))
	b.tasks.Go("kubelet", k.Run)
}

func (b *bench) stop() {
	b.tasks.Stop()
	if err := b.tasks.Wait(); err != nil {
		b.Error(err)
	}
	if r := b.runtime.Load(); r != nil {
		r.Close()
	}
}

func (b *bench) soon(what string, so func() error) {
	b.Helper()
	began := time.Now()
	for {
		err := so()
		if err == nil {
			return
		}
		if time.Since(began) > patience {
			b.Fatalf("not within %v: %s: %v", patience, what, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func mirrors(t *testing.T, c *objects.Client) map[string]*corev1.Pod {
	t.Helper()
	list, _, err := objects.List[*corev1.Pod](t.Context(), c, objects.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*corev1.Pod{}
	for _, p := range list {
		all[p.Name] = p
	}
	return all
}

func TestStaticPodsStartWithoutAControlPlaneAndAreMirroredInOne(t *testing.T) {
	clk := clocktest.New()
	b := newBench(t, clk)
	b.write("a.yaml", manifest("a", "builtin/demo"))
	b.write("bad.yaml", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: bad\nspec:\n  containers: 7\n")
	b.write("note.txt", "no manifest")
	b.write("twice.yaml", manifest("d", "builtin/demo")+"---\n"+manifest("d", "builtin/other"))
	b.soon("it runs, and nobody was asked", func() error {
		clk.Advance(100 * time.Millisecond)
		if b.runtime.Load() == nil {
			return errors.New("there is no runtime yet")
		}
		entries, err := os.ReadDir(filepath.Join(b.dir, "checkpoints"))
		if err == nil && len(entries) == 0 {
			err = errors.New("no checkpoint yet")
		}
		return err
	})
	cluster := kubetest.Start(t)
	admin := cluster.Client(auth.Admin("ann"))
	b.conn.set(cluster.Service.Dial(auth.Node("n")))
	tick := func() { clk.Advance(100 * time.Millisecond) }
	var first *corev1.Pod
	b.soon("it has a mirror that runs", func() error {
		tick()
		p := mirrors(t, admin)["a-n"]
		if p == nil || p.Status.Phase != corev1.PodRunning || !api.IsMirror(p) {
			return fmt.Errorf("%+v", p)
		}
		first = p
		return nil
	})
	if drifts, err := cluster.Service.Audit(t.Context()); err != nil || len(drifts) > 0 {
		t.Errorf("ledgers: %v, %v", drifts, err)
	}
	// Who deletes the mirror deletes nothing else.
	if err := objects.Delete[*corev1.Pod](t.Context(), admin, "default", "a-n"); err != nil {
		t.Fatal(err)
	}
	b.soon("it has another mirror", func() error {
		tick()
		p := mirrors(t, admin)["a-n"]
		if p == nil || p.UID == first.UID || p.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("%+v", p)
		}
		if is, was := p.Status.ContainerStatuses[0].ContainerID, first.Status.ContainerStatuses[0].ContainerID; is != was {
			t.Errorf("container %s became %s", was, is)
		}
		return nil
	})
	b.replaced(admin, tick)
	b.stop()
	for _, want := range []string{"bad.yaml:6: ", "a.yaml:3: ", "twice.yaml: pod d-n is in it twice"} {
		if !strings.Contains(b.log.String(), want) {
			t.Errorf("%q is not in the log:\n%s", want, b.log.String())
		}
	}
}

// replaced changes the manifests of a bench on which a runs.
func (b *bench) replaced(admin *objects.Client, tick func()) {
	t := b.T
	// Another text replaces it, and a wrong one leaves it alone.
	b.write("a.yaml", manifest("a", "builtin/other"))
	b.soon("it is another", func() error {
		tick()
		p := mirrors(t, admin)["a-n"]
		if p == nil || p.Spec.Containers[0].Image != "builtin/other" || p.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	b.write("a.yaml", "apiVersion: v1\nkind: Pod\nspec: {containers: [{nam: c}]}\n")
	b.write("c.yaml", manifest("c", "builtin/demo"))
	b.soon("another runs beside", func() error {
		tick()
		all := mirrors(t, admin)
		if p := all["c-n"]; p == nil || p.Status.Phase != corev1.PodRunning || all["a-n"] == nil {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})
	for _, file := range []string{"a.yaml", "c.yaml"} {
		if err := os.Remove(filepath.Join(b.static, file)); err != nil {
			t.Fatal(err)
		}
	}
	b.soon("nothing is left", func() error {
		tick()
		if all := mirrors(t, admin); len(all) > 0 {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})
}
