package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/example"
	restclient "k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

var serverMinutes = flag.Float64("kubernetes.minutes", 0, "how long an API server is under load; 0: some seconds")

const (
	shortLoad  = 15 * time.Second
	compaction = 5 * time.Second // Of the API server; five minutes where nobody is in a hurry.
	namespaces = 3
	objects    = 12 // In each namespace of each resource.
	apiWriters = 8
	apiReaders = 2
	lastName   = "last" // Is created last in each namespace, and ends all watches.
)

// apiLoad is the load on an API server, and what was seen of it.
type apiLoad struct {
	*api
	t    *testing.T
	seed uint64

	acknowledged atomic.Int64 // The newest revision that a write was answered with.
	resumed      atomic.Int64 // Watches that went on where they were.
	relisted     atomic.Int64 // Watches that had to begin anew.
	expired      atomic.Int64 // Reads of what was compacted.

	mu struct {
		sync.Mutex
		observed
	}
}

// An API server, made of the modules of Kubernetes' own, whose store is three
// members, the leader and a follower killed in turn: what its clients see.
func TestAnAPIServerWhileMembersAreKilled(t *testing.T) {
	quiet(t)
	seed, length := *loadSeed, shortLoad
	if seed == 0 {
		seed = rand.Uint64()
	}
	if *serverMinutes > 0 {
		length = time.Duration(*serverMinutes * float64(time.Minute))
	}
	t.Logf("seed %d", seed)
	cluster := member.StartCluster(t, 3)
	store, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints(), TLS: cluster.Certs.TLS(t), DialTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	cfg := startAPIServer(t, cluster, compaction)
	transport, err := restclient.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l := &apiLoad{api: &api{http: transport, base: cfg.Host}, t: t, seed: seed}
	l.waitReady()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	followed := make(chan error, 1)
	go func() { followed <- l.follow(ctx, store) }()
	watches := l.startWatches(ctx)
	l.run(cluster, store, length)
	l.createLast()
	done := make(chan struct{})
	go func() { watches.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * patience):
		t.Error("the watches have not seen the last object")
	}
	if err := <-followed; err != nil {
		t.Error(err)
	}
	cancel()
	<-done
	l.report(store)
}

// quiet silences the API server, which tells of each connection that a killed
// member broke.
func quiet(t *testing.T) {
	flags := flag.NewFlagSet("klog", flag.PanicOnError)
	klog.InitFlags(flags)
	if err := errors.Join(flags.Set("logtostderr", "false"), flags.Set("stderrthreshold", "FATAL")); err != nil {
		t.Fatal(err)
	}
	klog.SetOutput(io.Discard)
}

func (l *apiLoad) waitReady() {
	soon(l.t, func() bool {
		res, err := l.http.Get(l.base + "/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// eachNamespace calls f with the scope of each.
func eachNamespace(f func(scope string)) {
	for _, resource := range resources {
		for n := range namespaces {
			f(fmt.Sprintf("%s/ns-%d/", resource, n))
		}
	}
}

// run loads the API server, and kills members under it.
func (l *apiLoad) run(cluster *member.Cluster, store *clientv3.Client, length time.Duration) {
	ctx, cancel := context.WithCancel(l.t.Context())
	defer cancel()
	end := time.Now().Add(length)
	var all sync.WaitGroup
	start := func(n uint64, turn func(context.Context, *rand.Rand, uint64)) {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(l.seed, n))
			for ctx.Err() == nil {
				turn(ctx, rng, n)
			}
		})
	}
	for n := range uint64(apiWriters) {
		start(n, l.write)
	}
	for n := range uint64(apiReaders) {
		start(apiWriters+n, l.read)
	}
	start(apiWriters+apiReaders, l.glance)
	kills := 0 // One of each, however long a busy machine needs for them.
	for wait(ctx, 2*time.Second) && (kills < 2 || time.Now().Before(end)) {
		m := victim(ctx, cluster, store, kills%2 == 0)
		if m == nil {
			continue
		}
		m.Kill()
		kills++
		wait(ctx, 1500*time.Millisecond)
		m.Start()
	}
	cancel()
	all.Wait()
	l.t.Logf("%d members killed", kills)
}

func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// victim is the leader, or a follower.
func victim(ctx context.Context, cluster *member.Cluster, store *clientv3.Client, leader bool) *member.Member {
	for i, endpoint := range cluster.Endpoints() {
		try, cancel := context.WithTimeout(ctx, callTimeout)
		status, err := store.Status(try, endpoint)
		cancel()
		if err == nil && (status.Leader == status.Header.MemberId) == leader {
			return cluster.Members[i]
		}
	}
	return nil // Nobody leads just now.
}

// write does one write to an object, as a controller would.
func (l *apiLoad) write(_ context.Context, rng *rand.Rand, n uint64) {
	scope := fmt.Sprintf("%s/ns-%d/", resources[rng.IntN(len(resources))], rng.IntN(namespaces))
	w := write{key: fmt.Sprintf("%sobject-%02d", scope, rng.IntN(objects)), stamp: fmt.Sprintf("%d-%x", n, rng.Uint64())}
	switch dice := rng.IntN(100); {
	case dice < 20:
		w.verb = "create"
		l.do(w, http.MethodPost, strings.TrimSuffix(scope, "/"), newObject(w))
	case dice < 65:
		w.verb = "update"
		found := l.get(w.key)
		if found == nil {
			return
		}
		w.base = revisionOf(found.ResourceVersion)
		found.Annotations = map[string]string{stampNote: w.stamp, countNote: strconv.Itoa(countOf(found) + 1)}
		l.do(w, http.MethodPut, w.key, found)
	case dice < 85:
		w.verb = "patch"
		l.do(w, http.MethodPatch, w.key, map[string]any{"metadata": map[string]any{"annotations": map[string]string{stampNote: w.stamp}}})
	default:
		w.verb = "delete"
		l.do(w, http.MethodDelete, w.key, nil)
	}
}

func newObject(w write) *object {
	name := w.key[strings.LastIndexByte(w.key, '/')+1:]
	return &object{
		TypeMeta:   metav1.TypeMeta{Kind: "Pod", APIVersion: example.GroupName + "/v1"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{stampNote: w.stamp, countNote: "1"}},
	}
}

// do asks for a write, and notes how it ended.
func (l *apiLoad) do(w write, method, scope string, body any) (answered bool) {
	var done object
	status, err := l.call(l.t.Context(), method, scope, nil, body, &done)
	switch {
	case err == nil && status < http.StatusMultipleChoices:
		w.revision = revisionOf(done.ResourceVersion)
		for {
			newest := l.acknowledged.Load()
			if newest >= w.revision || l.acknowledged.CompareAndSwap(newest, w.revision) {
				break
			}
		}
	case status == http.StatusConflict, status == http.StatusNotFound, status == http.StatusTooManyRequests:
		w.refused = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.writes = append(l.mu.writes, w)
	return w.refused || w.revision != 0
}

// get reads an object. Nil: it is not there, or there is no answer.
func (l *apiLoad) get(key string) *object {
	v := view{what: "get", scope: key, least: l.acknowledged.Load(), objects: map[string]int64{}}
	var found object
	status, err := l.call(l.t.Context(), http.MethodGet, key, nil, nil, &found)
	if err != nil || status != http.StatusOK && status != http.StatusNotFound {
		return nil
	}
	if status == http.StatusOK {
		v.objects[key] = revisionOf(found.ResourceVersion)
	}
	l.note(v)
	if status == http.StatusNotFound {
		return nil
	}
	return &found
}

func (l *apiLoad) note(v view) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.views = append(l.mu.views, v)
}

// read lists: what is newest, page by page, at an exact version, or whatever the
// cache has.
func (l *apiLoad) read(ctx context.Context, rng *rand.Rand, _ uint64) {
	scope := resources[rng.IntN(len(resources))] + "/"
	if rng.IntN(2) == 0 {
		scope += fmt.Sprintf("ns-%d/", rng.IntN(namespaces))
	}
	what, limit, query := "list", 0, url.Values{}
	least := l.acknowledged.Load()
	switch rng.IntN(4) {
	case 0:
	case 1:
		what, limit = "list by pages", 1+rng.IntN(7)
	case 2:
		what, least = "list of any age", 0
		query.Set("resourceVersion", "0")
	case 3:
		exact := max(least-rng.Int64N(3000), 1)
		what, least, limit = "list at a version", exact, rng.IntN(2)*10
		query.Set("resourceVersion", strconv.FormatInt(exact, 10))
		query.Set("resourceVersionMatch", "Exact")
	}
	v, err := l.list(ctx, scope, query, limit)
	v.what, v.least = what, least
	switch {
	case errors.Is(err, errTorn):
		l.t.Error(err)
	case errors.Is(err, errExpired):
		l.expired.Add(1)
	case err != nil: // While nobody leads.
		wait(ctx, 50*time.Millisecond)
	case what == "list at a version" && v.revision != least:
		l.t.Errorf("a list at %d is one at %d", least, v.revision)
	default:
		l.note(v)
	}
}

// createLast creates in each namespace what ends the watches.
func (l *apiLoad) createLast() {
	eachNamespace(func(scope string) {
		for try := 0; ; try++ {
			w := write{verb: "create", key: scope + lastName, stamp: fmt.Sprintf("%slast-%d", scope, try)}
			if l.do(w, http.MethodPost, strings.TrimSuffix(scope, "/"), newObject(w)) {
				return
			}
			if !wait(l.t.Context(), 100*time.Millisecond) {
				return
			}
		}
	})
	for _, resource := range resources {
		v, err := l.list(l.t.Context(), resource+"/", url.Values{}, 0)
		if err != nil {
			l.t.Fatal(err)
		}
		v.what, v.least = "list at the end", l.acknowledged.Load()
		l.note(v)
	}
}

// follow reads the store's own watch of all objects, until it has seen the last
// one of each namespace.
func (l *apiLoad) follow(ctx context.Context, store *clientv3.Client) error {
	left := namespaces * len(resources)
	for res := range store.Watch(ctx, registryPrefix+"/", clientv3.WithPrefix(), clientv3.WithRev(1)) {
		if err := res.Err(); err != nil {
			return fmt.Errorf("the watch of the store: %w", err)
		}
		for _, e := range res.Events {
			c := change{key: strings.TrimPrefix(string(e.Kv.Key), registryPrefix+"/"+example.GroupName+"/"), revision: e.Kv.ModRevision}
			if c.deleted = e.Type == clientv3.EventTypeDelete; !c.deleted {
				var o object
				if err := json.Unmarshal(e.Kv.Value, &o); err != nil {
					return err
				}
				c.stamp, c.count, c.version = o.Annotations[stampNote], countOf(&o), e.Kv.Version
			}
			l.mu.Lock()
			l.mu.history = append(l.mu.history, c)
			l.mu.Unlock()
			if strings.HasSuffix(c.key, "/"+lastName) {
				left--
			}
		}
		if left == 0 {
			return nil
		}
	}
	return ctx.Err()
}

// report checks all that was seen, and says how much it was.
func (l *apiLoad) report(store *clientv3.Client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	acknowledged, refused, changes := 0, 0, 0
	for _, w := range l.mu.writes {
		if w.revision != 0 {
			acknowledged++
		} else if w.refused {
			refused++
		}
	}
	for _, w := range l.mu.told {
		changes += len(w.changes)
	}
	wrong := l.mu.violations()
	for _, sentence := range wrong[:min(len(wrong), 10)] {
		l.t.Error(sentence)
	}
	if len(wrong) > 10 {
		l.t.Errorf("and %d more", len(wrong)-10)
	}
	l.t.Logf("%d changes; writes: %d acknowledged, %d refused, %d without an answer; %d reads checked, %d of what was compacted",
		len(l.mu.history), acknowledged, refused, len(l.mu.writes)-acknowledged-refused, len(l.mu.views), l.expired.Load())
	l.t.Logf("%d watches told %d changes; %d went on where they were, %d began anew",
		len(l.mu.told), changes, l.resumed.Load(), l.relisted.Load())
	if acknowledged < 100 || len(l.mu.views) < 50 || changes < 100 {
		l.t.Error("that is too little to say anything")
	}
	if _, err := store.Get(l.t.Context(), registryPrefix, clientv3.WithRev(1)); !errors.Is(err, rpctypes.ErrCompacted) {
		l.t.Errorf("nothing was compacted: %v", err)
	}
}
