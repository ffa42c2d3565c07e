package state_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func jsonHas(raw []byte, field string) bool { return bytes.Contains(raw, []byte(`"`+field+`"`)) }

// receive returns n events of a watch as text.
func receive(t *testing.T, stream kubepb.ClusterState_WatchClient, n int) []string {
	t.Helper()
	var all []string
	for len(all) < n {
		m, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %q: %v", all, err)
		}
		for _, e := range m.Events {
			all = append(all, fmt.Sprintf("%s %s", e.Type, e.Object.Name))
		}
	}
	return all
}

func TestAWatchGoesOnFromAResourceVersion(t *testing.T) {
	_, c := admin(t)
	a := create(t, c, podOf("a", "1"))
	create(t, c, podOf("b", "1"))
	if err := objects.Delete[*corev1.Pod](t.Context(), c, "default", "a"); err != nil {
		t.Fatal(err)
	}
	version, _ := api.ParseVersion(a.ResourceVersion)
	stream, err := c.RPC().Watch(t.Context(), &kubepb.WatchRequest{Kind: "Pod", ResourceVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(receive(t, stream, 2)); got != "[ADDED b DELETED a]" {
		t.Error(got)
	}
}

func TestAWatchFromAVersionThatIsForgottenOrWasNeverExpires(t *testing.T) {
	cluster, c := admin(t)
	a := create(t, c, podOf("a", "1"))
	version, _ := api.ParseVersion(a.ResourceVersion)
	create(t, c, podOf("b", "1"))
	later := cluster.Another() // It has read what is there, and not how it came to be.
	if err := later.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, version := range map[string]int64{"forgotten": version, "never": 1 << 40} {
		stream, err := kubepb.NewClusterStateClient(later.Dial(auth.Admin("ann"))).Watch(t.Context(), &kubepb.WatchRequest{Kind: "Pod", ResourceVersion: version})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.OutOfRange {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// quick beats more often than the clock that it stands for.
type quick struct{ clock.Clock }

func (q quick) NewTicker(time.Duration) clock.Ticker { return q.Clock.NewTicker(5 * time.Millisecond) }

func TestABookmarkTellsAnIdleWatchHowFarItIs(t *testing.T) {
	cluster := kubetest.Start(t, func(c *state.Config) { c.Clock = quick{clock.Real()} })
	c := cluster.Client(auth.Admin("ann"))
	stream, err := c.RPC().Watch(t.Context(), &kubepb.WatchRequest{Kind: "Secret", Bookmarks: true})
	if err != nil {
		t.Fatal(err)
	}
	receive(t, stream, 1) // SYNCED.
	made, _ := api.ParseVersion(create(t, c, podOf("p", "1")).ResourceVersion)
	for {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range m.Events {
			if e.Type != kubepb.WatchEvent_BOOKMARK {
				t.Fatalf("a %s of %s", e.Type, e.Object.Name)
			}
			if e.Object.ResourceVersion >= made {
				return
			}
		}
	}
}

// What one follower of this process has, the next one gets: pods are many.
func TestFollowersOfAProcessShareWhatIsDecoded(t *testing.T) {
	cluster, c := admin(t)
	create(t, c, podOf("a", "1"))
	follow := func(id auth.Identity) *corev1.Pod {
		i := objects.NewInformer[*corev1.Pod](cluster.Client(id), objects.ListOptions{}, hclog.NewNullLogger())
		g := task.New(t.Context())
		g.Go("informer", i.Run)
		t.Cleanup(func() { g.Stop() })
		if err := i.Synced(t.Context()); err != nil {
			t.Fatal(err)
		}
		pod, ok := i.Get("default", "a")
		if !ok {
			t.Fatal("the pod is not there")
		}
		return pod
	}
	first, second := follow(auth.Scheduler()), follow(auth.Controllers())
	if first != second {
		t.Error("the pod is there twice")
	}
	mine, err := objects.Get[*corev1.Pod](t.Context(), c, "default", "a")
	if err != nil || mine == first || !equality.Semantic.DeepEqual(mine, first) {
		t.Errorf("%v: who asks for one gets its own: %p, beside %p", err, mine, first)
	}
}

// What a write has made is followed without being decoded, and is what decoding makes.
func TestFollowersSeeWhatIsStored(t *testing.T) {
	cluster, c := admin(t)
	create(t, c, nodeOf("n", "4"))
	seen := make(chan *corev1.Pod, 8)
	i := objects.NewInformer[*corev1.Pod](cluster.Client(auth.Scheduler()), objects.ListOptions{}, hclog.NewNullLogger())
	i.OnChange(func(_, now *corev1.Pod) { seen <- now })
	g := task.New(t.Context())
	g.Go("informer", i.Run)
	t.Cleanup(func() { g.Stop() })
	if err := i.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	same := func(after string) *corev1.Pod {
		t.Helper()
		stored, err := objects.Get[*corev1.Pod](t.Context(), c, "default", "a")
		if err != nil {
			t.Fatal(err)
		}
		var told *corev1.Pod
		for told == nil || told.ResourceVersion != stored.ResourceVersion {
			told = <-seen
		}
		want, err := api.EncodeJSON(stored)
		got, err2 := api.EncodeJSON(told.DeepCopy())
		if err != nil || err2 != nil || !bytes.Equal(got, want) || !equality.Semantic.DeepEqual(told, stored) {
			t.Errorf("after %s, %v, %v:\ntold   %s\nstored %s", after, err, err2, got, want)
		}
		return stored
	}
	p := podOf("a", "1000m")
	size := resource.MustParse("1536Mi")
	p.Annotations, p.Spec.NodeSelector = map[string]string{}, map[string]string{}
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &size}}}}
	p.Spec.Containers[0].Resources.Requests[corev1.ResourceMemory] = resource.MustParse("0.5Gi")
	create(t, c, p)
	p = same("its creation")
	if err := bind(t, c, p, "n"); err != nil {
		t.Fatal(err)
	}
	p = same("its bind")
	now := metav1.NewTime(time.Unix(1e9, 123456789))
	p.Status.Phase, p.Status.StartTime, p.Status.PodIPs = corev1.PodRunning, &now, []corev1.PodIP{}
	if _, err := objects.UpdateStatus(t.Context(), c, p); err != nil {
		t.Fatal(err)
	}
	p = same("a status")
	p.Labels["more"] = "yes"
	if _, err := objects.Update(t.Context(), c, p); err != nil {
		t.Fatal(err)
	}
	same("an update")
	if err := objects.Delete[*corev1.Pod](t.Context(), c, "default", "a"); err != nil {
		t.Fatal(err)
	}
	same("the beginning of its end")
}

// A node in this process sees of others what a node elsewhere sees, not what is decoded.
func TestANodeInTheProcessSeesAReducedNode(t *testing.T) {
	cluster, c := admin(t)
	other := &corev1.Node{}
	other.Name, other.Labels = "other", map[string]string{"secret": "label"}
	if _, err := objects.Create(t.Context(), c, other); err != nil {
		t.Fatal(err)
	}
	i := objects.NewInformer[*corev1.Node](cluster.Client(auth.Node("mine")), objects.ListOptions{}, hclog.NewNullLogger())
	g := task.New(t.Context())
	g.Go("informer", i.Run)
	t.Cleanup(func() { g.Stop() })
	if err := i.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	if seen, ok := i.Get("", "other"); !ok || len(seen.Labels) != 0 {
		t.Errorf("it sees %v, %t", seen, ok)
	}
}
