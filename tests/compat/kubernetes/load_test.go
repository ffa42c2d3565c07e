package kubernetes

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/utils/clock"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

var (
	loadTime = flag.Duration("load", 6*time.Second, "how long there is load")
	loadSeed = flag.Uint64("seed", 0, "of the load; 0 draws one")
)

const (
	pods    = 20
	writers = 8
	counter = "count" // The annotation that every write raises by one.

	leastWrites = 100 // However long a busy machine needs for them.
)

func podKey(i int) string { return fmt.Sprintf("/pods/ns/pod-%02d", i) }

func count(pod *example.Pod) int {
	n, _ := strconv.Atoi(pod.Annotations[counter]) // Absent is none.
	return n
}

// load is what writers know of each pod.
type load struct {
	mu      sync.Mutex
	done    [pods]int // Answered.
	unknown [pods]int // Without an answer: done or not.
}

// raise adds one to a pod as controllers do: read, change, write if nobody else
// has, again.
func (l *load) raise(ctx context.Context, s storage.Interface, i int) {
	err := s.GuaranteedUpdate(ctx, podKey(i), &example.Pod{}, false, nil,
		func(in runtime.Object, _ storage.ResponseMeta) (runtime.Object, *uint64, error) {
			pod := in.DeepCopyObject().(*example.Pod)
			if pod.Annotations == nil {
				pod.Annotations = map[string]string{}
			}
			pod.Annotations[counter] = strconv.Itoa(count(pod) + 1)
			return pod, nil, nil
		}, nil)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.done[i]++
	} else {
		l.unknown[i]++
	}
}

func (l *load) acknowledged() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, done := range l.done {
		n += done
	}
	return n
}

// observer checks that a watch leaves nothing out and shows nothing twice.
type observer struct {
	mu     sync.Mutex
	seen   [pods]int
	events int
}

func (o *observer) at() [pods]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen
}

func (o *observer) run(w watch.Interface) error {
	for e := range w.ResultChan() {
		object := e.Object
		if shared, ok := object.(runtime.CacheableObject); ok { // What the cache sends to all its watches.
			object = shared.GetObject()
		}
		pod, ok := object.(*example.Pod)
		if e.Type == watch.Bookmark {
			continue
		}
		if !ok || e.Type != watch.Modified {
			return fmt.Errorf("event %v %v", e.Type, e.Object)
		}
		var i int
		if _, err := fmt.Sscanf(pod.Name, "pod-%d", &i); err != nil {
			return err
		}
		o.mu.Lock()
		before := o.seen[i]
		o.seen[i]++
		o.events++
		o.mu.Unlock()
		if count(pod) != before+1 {
			return fmt.Errorf("%s counts %d after %d", pod.Name, count(pod), before)
		}
	}
	return nil
}

// An API server's storage and its cache, over three members of which one after
// the other is killed, while controllers write and all are watched.
func TestControllersUnderLoadWhileMembersAreKilled(t *testing.T) {
	seed := *loadSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	cluster := member.StartCluster(t, 3)
	f := newStore(t, clientv3.Config{Endpoints: cluster.Endpoints(), TLS: cluster.Certs.TLS(t)})
	cache := newCache(t, f)
	ctx := t.Context()
	var first string
	for i := range pods {
		out := &example.Pod{}
		pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprintf("pod-%02d", i)}}
		if err := f.Create(ctx, podKey(i), pod, out, 0); err != nil {
			t.Fatal(err)
		}
		first = out.ResourceVersion
	}
	watching := storage.ListOptions{ResourceVersion: first, Predicate: storage.Everything, Recursive: true}
	observers := map[string]*observer{"storage": {}, "cache": {}}
	watches := map[string]watch.Interface{}
	ended := make(chan error, len(observers))
	for name, s := range map[string]storage.Interface{"storage": f, "cache": cache} {
		w, err := s.Watch(ctx, "/pods/", watching)
		if err != nil {
			t.Fatal(err)
		}
		watches[name] = w
		go func(o *observer) { ended <- o.run(w) }(observers[name])
	}
	l := &load{}
	l.run(t, f, cluster, seed)
	final := l.settle(t, f, cache)
	for name, w := range watches {
		o := observers[name]
		soon(t, func() bool { return len(ended) > 0 || o.at() == final })
		w.Stop()
	}
	for range watches {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	for name, o := range observers {
		if o.at() != final {
			t.Errorf("the watch of the %s saw counts %v, the pods have %v", name, o.at(), final)
		}
		t.Logf("%s: %d events", name, o.events)
	}
}

// run writes for a while, and kills.
func (l *load) run(t *testing.T, f *fixture, cluster *member.Cluster, seed uint64) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	end := time.Now().Add(*loadTime)
	var all sync.WaitGroup
	for n := range writers {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(n)))
			for ctx.Err() == nil {
				try, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				l.raise(try, f, rng.IntN(pods))
				cancel()
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed, writers))
	wait := func(d time.Duration) bool {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(d):
			return true
		}
	}
	kills := 0
	over := func() bool {
		return kills > 0 && time.Now().After(end) && (l.acknowledged() >= leastWrites || time.Now().After(end.Add(patience)))
	}
	for wait(500*time.Millisecond) && !over() {
		m := cluster.Members[rng.IntN(len(cluster.Members))]
		m.Kill()
		kills++
		wait(time.Second)
		m.Start()
	}
	cancel()
	all.Wait()
	t.Logf("%d members killed", kills)
}

// settle reads what the pods count in the end, and holds it against the writers.
func (l *load) settle(t *testing.T, f *fixture, cache storage.Interface) (final [pods]int) {
	for _, source := range []storage.Interface{f, cache} { // A list without a version is a consistent read.
		list := &example.PodList{}
		if err := source.GetList(t.Context(), "/pods/", storage.ListOptions{Predicate: storage.Everything, Recursive: true}, list); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != pods {
			t.Fatalf("%d pods, not %d", len(list.Items), pods)
		}
		var counts [pods]int
		for i := range list.Items {
			counts[i] = count(&list.Items[i])
		}
		if source == storage.Interface(f) {
			final = counts
		} else if counts != final {
			t.Errorf("the cache has counts %v, the storage %v", counts, final)
		}
	}
	done, unknown := 0, 0
	for i, n := range final {
		if n < l.done[i] || n > l.done[i]+l.unknown[i] {
			t.Errorf("pod %d counts %d: %d writes were acknowledged, %d had no answer", i, n, l.done[i], l.unknown[i])
		}
		done, unknown = done+l.done[i], unknown+l.unknown[i]
	}
	t.Logf("%d writes acknowledged, %d without an answer", done, unknown)
	if done < leastWrites {
		t.Errorf("only %d writes were acknowledged", done)
	}
	return final
}

// newCache is the cache that an API server keeps before a storage.
func newCache(t *testing.T, f *fixture) storage.Interface {
	t.Helper()
	c, err := cacher.NewCacherFromConfig(cacher.Config{
		Storage: f.Interface, Versioner: storage.APIObjectVersioner{}, GroupResource: schema.GroupResource{Resource: "pods"},
		EventsHistoryWindow: cacher.DefaultEventFreshDuration, ResourcePrefix: "/pods/",
		KeyFunc: func(o runtime.Object) (string, error) {
			pod := o.(*example.Pod)
			return "/pods/" + pod.Namespace + "/" + pod.Name, nil
		},
		GetAttrsFunc: func(o runtime.Object) (labels.Set, fields.Set, error) {
			pod := o.(*example.Pod)
			return pod.Labels, fields.Set{"metadata.name": pod.Name, "metadata.namespace": pod.Namespace}, nil
		},
		NewFunc: func() runtime.Object { return &example.Pod{} }, NewListFunc: func() runtime.Object { return &example.PodList{} },
		Codec: codec, Clock: clock.RealClock{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	if err := c.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	cache := cacher.NewCacheDelegator(c, f.Interface)
	t.Cleanup(cache.Stop)
	return cache
}

// soon waits until something holds, or for so long that the test finds that it
// does not.
func soon(t *testing.T, holds func() bool) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for ctx.Err() == nil && !holds() {
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}
