package state_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/proto/kubepb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

func podOf(name, cpu string) *corev1.Pod {
	p := &corev1.Pod{}
	p.Namespace, p.Name = "default", name
	p.Labels = map[string]string{"app": "web"}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "builtin/demo", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)},
	}}}
	return p
}

func nodeOf(name, cpu string) *corev1.Node {
	n := &corev1.Node{}
	n.Name = name
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	return n
}

func admin(t *testing.T) (*kubetest.Cluster, *objects.Client) {
	t.Helper()
	c := kubetest.Start(t)
	return c, c.Client(auth.Admin("ann"))
}

func create[T api.Object](t *testing.T, c *objects.Client, o T) T {
	t.Helper()
	made, err := objects.Create(t.Context(), c, o)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func bind(t *testing.T, c *objects.Client, p *corev1.Pod, node string) error {
	t.Helper()
	_, err := c.Bind(t.Context(), &kubepb.BindRequest{Pod: &kubepb.Ref{Namespace: p.Namespace, Name: p.Name}, PodUid: string(p.UID), Node: node})
	return err
}

func ledgerOf(t *testing.T, c *kubetest.Cluster, node string) *kubepb.Ledger {
	t.Helper()
	r, err := c.Store().Get(t.Context(), client.Get{Range: client.One(state.LedgerPrefix + node)})
	if err != nil {
		t.Fatal(err)
	}
	l := &kubepb.Ledger{}
	if len(r.Kvs) == 1 {
		if err := l.UnmarshalVT(r.Kvs[0].Value); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func TestWhatOneWritesOneReads(t *testing.T) {
	_, c := admin(t)
	for i := range 20 {
		name := fmt.Sprintf("p%d", i)
		made := create(t, c, podOf(name, "100m"))
		if made.UID == "" || made.ResourceVersion == "" || made.CreationTimestamp.IsZero() || made.Status.Phase != corev1.PodPending {
			t.Fatalf("made %+v", made.ObjectMeta)
		}
		pods, revision, err := objects.List[*corev1.Pod](t.Context(), c, objects.ListOptions{Namespace: "default", Labels: "app=web"})
		if err != nil || len(pods) != i+1 || revision == 0 {
			t.Fatalf("%d pods at %d, %v", len(pods), revision, err)
		}
	}
	if _, err := objects.Create(t.Context(), c, podOf("p3", "1")); !errors.Is(err, objects.ErrExists) {
		t.Errorf("a second of one name: %v", err)
	}
	if err := objects.Delete[*corev1.Pod](t.Context(), c, "default", "p3"); err != nil {
		t.Fatal(err)
	}
	if _, err := objects.Get[*corev1.Pod](t.Context(), c, "default", "p3"); !errors.Is(err, objects.ErrNotFound) {
		t.Errorf("after its deletion: %v", err)
	}
	create(t, c, podOf("p3", "1"))
}

func TestAnUpdateOfWhatChangedMeanwhileIsAConflictThatNamesBoth(t *testing.T) {
	_, c := admin(t)
	old := create(t, c, podOf("p", "1"))
	one := old.DeepCopy()
	one.Labels["by"] = "one"
	first, err := objects.Update(t.Context(), c, one)
	if err != nil {
		t.Fatal(err)
	}
	two := old.DeepCopy()
	two.Labels["by"] = "two"
	_, err = objects.Update(t.Context(), c, two)
	want := fmt.Sprintf("Pod default/p is at resource version %s, the change is to %s: changed meanwhile", first.ResourceVersion, old.ResourceVersion)
	if !errors.Is(err, objects.ErrConflict) || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	again, err := objects.Update(t.Context(), c, first)
	if err != nil || again.ResourceVersion != first.ResourceVersion {
		t.Errorf("an update that changes nothing is at %s, %v; want %s", again.GetResourceVersion(), err, first.ResourceVersion)
	}
}

func TestABindThatDoesNotFitIsRefusedAndNothingIsOvercommitted(t *testing.T) {
	cluster, c := admin(t)
	create(t, c, nodeOf("n1", "1"))
	second := objects.New(cluster.Another().Dial(auth.Scheduler()), "scheduler")
	var wg sync.WaitGroup
	var mu sync.Mutex
	bound, full := 0, 0
	for i := range 20 {
		p := create(t, c, podOf(fmt.Sprintf("p%02d", i), "100m"))
		wg.Go(func() {
			by := c
			if i%2 == 1 {
				by = second
			}
			err := bind(t, by, p, "n1")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				bound++
			case errors.Is(err, objects.ErrFull):
				full++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if l := ledgerOf(t, cluster, "n1"); bound != 10 || full != 10 || l.CpuMillis != 1000 || l.Pods != 10 {
		t.Fatalf("%d bound, %d refused, ledger %v", bound, full, l)
	}
	pods, _, err := objects.List[*corev1.Pod](t.Context(), c, objects.ListOptions{Fields: "spec.nodeName=n1"})
	if err != nil || len(pods) != 10 {
		t.Fatalf("%d pods on it, %v", len(pods), err)
	}
	// One ends, one is deleted by the node: both give back what they had.
	pods[0].Status.Phase = corev1.PodSucceeded
	if _, err := objects.UpdateStatus(t.Context(), c, pods[0]); err != nil {
		t.Fatal(err)
	}
	now := int64(0)
	if err := objects.Delete[*corev1.Pod](t.Context(), c, "default", pods[1].Name, objects.Option{Grace: &now}); err != nil {
		t.Fatal(err)
	}
	if l := ledgerOf(t, cluster, "n1"); l.CpuMillis != 800 || l.Pods != 8 {
		t.Errorf("ledger %v", l)
	}
}

// replay calls f for each version of a key that there was, up to the newest; the end of
// a key has no value.
func replay(t *testing.T, c *kubetest.Cluster, key string, f func(*mvccpb.KeyValue)) {
	t.Helper()
	end := key + "-end"
	if _, err := c.Store().Put(t.Context(), client.Put{Key: end}); err != nil {
		t.Fatal(err)
	}
	w := c.Store().Watch(t.Context(), client.Watch{Range: client.Prefix(key), Revision: 1})
	defer w.Cancel()
	for r := range w.Reports() {
		for _, e := range r.Events {
			if string(e.Kv.Key) == end {
				return
			}
			f(e.Kv)
		}
	}
	t.Fatal(w.Err())
}

func TestALedgerIsTheSumOfItsPodsAtEveryRevision(t *testing.T) {
	cluster, c := admin(t)
	create(t, c, nodeOf("n1", "1"))
	if err := together(60, func(i int) error {
		p, err := objects.Create(t.Context(), c, podOf(fmt.Sprintf("p%02d", i), "100m"))
		if err != nil {
			return err
		}
		if err := bind(t, c, p, "n1"); err != nil {
			if errors.Is(err, objects.ErrFull) {
				return nil
			}
			return err
		}
		return objects.Delete[*corev1.Pod](t.Context(), c, "default", p.Name, seconds(0))
	}); err != nil {
		t.Fatal(err)
	}
	versions := 0
	replay(t, cluster, state.LedgerPrefix+"n1", func(kv *mvccpb.KeyValue) {
		versions++
		l := &kubepb.Ledger{}
		if err := l.UnmarshalVT(kv.Value); err != nil {
			t.Fatal(err)
		}
		pods, err := cluster.Store().Get(t.Context(), client.Get{Range: client.Prefix(api.Pod.Prefix("")), Revision: kv.ModRevision})
		if err != nil {
			t.Fatal(err)
		}
		var sum int64
		for _, kv := range pods.Kvs {
			o, err := api.Decode(api.Pod, kv.Value, kv.ModRevision)
			if err != nil {
				t.Fatal(err)
			}
			if o.(*corev1.Pod).Spec.NodeName == "n1" {
				sum += 100
			}
		}
		if l.CpuMillis != sum || sum > 1000 {
			t.Errorf("at revision %d the ledger says %d, and its pods ask for %d of 1000", kv.ModRevision, l.CpuMillis, sum)
		}
	})
	if versions < 10 {
		t.Errorf("the ledger changed %d times only", versions)
	}
}

func TestAnInformerTellsEachChangeInOrder(t *testing.T) {
	_, c := admin(t)
	create(t, c, podOf("before", "1"))
	var mu sync.Mutex
	var told []string
	i := objects.NewInformer[*corev1.Pod](c, objects.ListOptions{Labels: "app=web"}, hclog.NewNullLogger())
	seen := make(chan struct{}, 100)
	i.OnChange(func(old, new *corev1.Pod) {
		mu.Lock()
		switch {
		case old == nil:
			told = append(told, "added "+new.Name)
		case new == nil:
			told = append(told, "deleted "+old.Name)
		default:
			told = append(told, "changed "+new.Name)
		}
		mu.Unlock()
		seen <- struct{}{}
	})
	i.AddIndex("app", func(p *corev1.Pod) []string { return []string{p.Labels["app"]} })
	done := make(chan error, 1)
	go func() { done <- i.Run(t.Context()) }()
	if err := i.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := create(t, c, podOf("p", "1"))
	p.Annotations = map[string]string{"a": "b"}
	p, err := objects.Update(t.Context(), c, p)
	if err != nil {
		t.Fatal(err)
	}
	p.Labels = nil // It is no longer selected.
	if _, err = objects.Update(t.Context(), c, p); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		<-seen
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"added before", "added p", "changed p", "deleted p"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if got := i.ByIndex("app", "web"); len(got) != 1 || got[0].Name != "before" {
		t.Errorf("by index: %v", got)
	}
}

func TestAListInPartsIsOfOneRevision(t *testing.T) {
	_, c := admin(t)
	for i := range 5 {
		create(t, c, podOf(fmt.Sprintf("p%d", i), "1"))
	}
	r, err := c.RPC().List(t.Context(), &kubepb.ListRequest{Kind: "Pod", Limit: 2})
	if err != nil || len(r.Items) != 2 || r.Remaining != 3 || r.Continue == "" {
		t.Fatalf("%v, %v", r, err)
	}
	create(t, c, podOf("p9", "1"))
	if err := objects.Delete[*corev1.Pod](t.Context(), c, "default", "p3"); err != nil {
		t.Fatal(err)
	}
	rest, err := c.RPC().List(t.Context(), &kubepb.ListRequest{Kind: "Pod", Continue: r.Continue})
	if err != nil || len(rest.Items) != 3 || rest.ResourceVersion != r.ResourceVersion || rest.Items[1].Name != "p3" {
		t.Errorf("%v, %v", rest, err)
	}
}
