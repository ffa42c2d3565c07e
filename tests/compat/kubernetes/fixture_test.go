package kubernetes

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apimachinery/pkg/api/apitesting"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	contract "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/utils/clock"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

func TestMain(m *testing.M) {
	code := m.Run()
	member.Cleanup()
	os.Exit(code)
}

// patience is how long anything may take on a busy machine.
const patience = 30 * time.Second

// stored is what stands before each object, in place of encryption at rest.
const stored = "at rest:"

var codec = func() runtime.Codec {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	if err := errors.Join(example.AddToScheme(scheme), examplev1.AddToScheme(scheme)); err != nil {
		panic(err)
	}
	return apitesting.TestCodec(serializer.NewCodecFactory(scheme), examplev1.SchemeGroupVersion)
}()

// fixture is a member, a client that counts what it asks, and a storage of pods.
type fixture struct {
	storage.Interface
	client *kubernetes.Client
	store  interface {
		Close()
		CompactRevision() int64
	}
	values *values
	kv     *contract.KVRecorder
	lists  *contract.KubernetesRecorder
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	m := member.New(t, member.Config{Args: []string{"--watch-progress-notify-interval", "1s"}})
	m.Start()
	return newStore(t, clientv3.Config{Endpoints: []string{m.Client}})
}

// newStore is a storage over members, as an API server makes it.
func newStore(t *testing.T, cfg clientv3.Config) *fixture {
	t.Helper()
	cfg.DialTimeout = patience
	client, err := kubernetes.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{client: client, values: &values{now: contract.NewPrefixTransformer([]byte(stored), false)}}
	f.lists = contract.NewKubernetesRecorder(client.Kubernetes)
	f.kv = contract.NewKVRecorder(client.KV, f.lists)
	client.KV, client.Kubernetes = f.kv, f.lists
	compactor := etcd3.NewCompactor(client.Client, 0, clock.RealClock{}, nil)
	leases := etcd3.NewDefaultLeaseManagerConfig()
	leases.ReuseDurationSeconds = 1
	versioner := storage.APIObjectVersioner{}
	store, err := etcd3.New(client, compactor, codec,
		func() runtime.Object { return &example.Pod{} }, func() runtime.Object { return &example.PodList{} },
		"", "/pods/", schema.GroupResource{Resource: "pods"}, f.values, leases,
		etcd3.NewDefaultDecoder(codec, versioner), versioner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		store.Close()
		compactor.Stop()
		_ = client.Close()
	})
	f.Interface, f.store = store, store
	return f
}

// values is the transformer of a storage, which a test may replace.
type values struct {
	mu  sync.Mutex
	now value.Transformer
}

func (v *values) current() value.Transformer {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.now
}

func (v *values) replace(next value.Transformer) (before value.Transformer) {
	v.mu.Lock()
	defer v.mu.Unlock()
	before, v.now = v.now, next
	return before
}

func (v *values) TransformFromStorage(ctx context.Context, data []byte, of value.Context) ([]byte, bool, error) {
	return v.current().TransformFromStorage(ctx, data, of)
}

func (v *values) TransformToStorage(ctx context.Context, data []byte, of value.Context) ([]byte, error) {
	return v.current().TransformToStorage(ctx, data, of)
}

func (v *values) prefix() *contract.PrefixTransformer {
	return v.current().(*contract.PrefixTransformer)
}

// UpdatePrefixTransformer replaces how objects are stored, until undo is called.
func (f *fixture) UpdatePrefixTransformer(change contract.PrefixTransformerModifier) (undo func()) {
	before := f.values.prefix()
	copied := *before
	f.values.replace(change(&copied))
	return func() { f.values.replace(before) }
}

// raiseRevision writes beside all objects.
func (f *fixture) raiseRevision(ctx context.Context, t *testing.T) int64 {
	res, err := f.client.KV.Put(ctx, "beside", "x")
	if err != nil {
		t.Fatal(err)
	}
	return res.Header.Revision
}

// compact is the compaction of an API server, and waits until the storage knows.
func (f *fixture) compact(ctx context.Context, t *testing.T, version string) {
	revision, err := storage.APIObjectVersioner{}.ParseResourceVersion(version)
	if err != nil {
		t.Fatal(err)
	}
	// Of several API servers one may compact: the key that they share has the turn.
	turns, err := f.client.KV.Get(ctx, "compact_rev_key")
	if err != nil {
		t.Fatal(err)
	}
	turn := int64(0)
	if len(turns.Kvs) > 0 {
		turn = turns.Kvs[0].Version
	}
	if _, _, _, err := etcd3.Compact(ctx, f.client.Client, turn, int64(revision)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for f.store.CompactRevision() != int64(revision) {
		select {
		case <-ctx.Done():
			t.Fatalf("the storage knows of a compaction at %d, not at %d", f.store.CompactRevision(), revision)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// wellStored checks what lies under a key.
func (f *fixture) wellStored(ctx context.Context, t *testing.T, key string) {
	t.Helper()
	res, err := f.client.KV.Get(ctx, key)
	if err != nil || len(res.Kvs) != 1 {
		t.Fatalf("%q: %v, %v", key, res, err)
	}
	object, err := runtime.Decode(codec, res.Kvs[0].Value[len(stored):])
	if err != nil {
		t.Fatal(err)
	}
	if pod := object.(*example.Pod); pod.ResourceVersion != "" || pod.SelfLink != "" {
		t.Errorf("%q stores what only an answer has: %+v", key, pod.ObjectMeta)
	}
}

// countsReads checks with how many requests, and how many objects read, a list
// was answered: pages double until the list has what it wants.
func (f *fixture) countsReads(t *testing.T, page, objects uint64) {
	t.Helper()
	if reads := f.values.prefix().GetReadsAndReset(); reads != objects {
		t.Errorf("%d objects were read, %d expected", reads, objects)
	}
	const pageMax = 10000
	calls := uint64(1)
	for sum := uint64(1); page != 0 && sum < objects; calls++ {
		page = min(page*2, pageMax)
		sum += page
	}
	if n := f.kv.GetReadsAndReset() + f.kv.GetStreamReadsAndReset(); n != calls {
		t.Errorf("%d requests, %d expected", n, calls)
	}
}
