package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/client/clienttest"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

func configFor(c *clienttest.Cluster) Config {
	return Config{Endpoints: c.Endpoints(), Dial: c.Dial, Clients: 20, Conns: 4, Total: 500}
}

func puts() Workload {
	return Workload{Kind: Put, Prefix: "b/", KeyBytes: 16, ValueBytes: 100, KeySpace: 50}
}

func TestEachKindOfRequestIsAnswered(t *testing.T) {
	c := clienttest.New(t, 3)
	fill := puts()
	fill.Sequential = true
	if _, err := Run(t.Context(), configFor(c), fill); err != nil {
		t.Fatal(err)
	}
	for kind, keys := range map[Kind]int64{Put: 1, Get: 1, Range: 10, Txn: 10, Grant: 0, Renew: 0} {
		w := puts()
		w.Kind, w.Span, w.TTL = kind, 10, 100
		r, err := Run(t.Context(), configFor(c), w)
		if err != nil {
			t.Fatalf("kind %d: %v", kind, err)
		}
		if r.Requests != 500 || r.Failed() != 0 || r.Latency.Count() != 500 || r.Keys != 500*keys || r.Elapsed <= 0 {
			t.Errorf("kind %d: %d requests, errors %v, %d latencies, %d keys, %v", kind, r.Requests, r.Errors, r.Latency.Count(), r.Keys, r.Elapsed)
		}
	}
}

func TestKeysAreThoseOfTheKeySpace(t *testing.T) {
	c := clienttest.New(t, 1)
	w := puts()
	w.Sequential = true
	cfg := configFor(c)
	cfg.Total = w.KeySpace
	if _, err := Run(t.Context(), cfg, w); err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(client.Config{Endpoints: c.Endpoints(), Dial: c.Dial, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	r, err := cl.Get(t.Context(), client.Get{Range: client.Prefix("")})
	if err != nil {
		t.Fatal(err)
	}
	for i, kv := range r.Kvs {
		if want := fmt.Sprintf("b/%014d", i); string(kv.Key) != want || len(kv.Value) != w.ValueBytes || kv.Version != 1 {
			t.Errorf("key %d is %q version %d with %d bytes, want %q once with %d", i, kv.Key, kv.Version, len(kv.Value), want, w.ValueBytes)
		}
	}
	if len(r.Kvs) != int(w.KeySpace) {
		t.Errorf("%d keys of %d", len(r.Kvs), w.KeySpace)
	}
}

func TestMessagesLargerThanWindowsAndFramesPass(t *testing.T) {
	c := clienttest.New(t, 1)
	w := puts()
	w.ValueBytes, w.KeySpace, w.Sequential = 1<<20, 8, true // At random one of the eight stays away, one time in thirty.
	cfg := configFor(c)
	cfg.Clients, cfg.Conns, cfg.Total = 8, 1, 40
	r, err := Run(t.Context(), cfg, w)
	if err != nil || r.Requests != 40 {
		t.Fatalf("puts of 1 MiB: %d, %v", r.Requests, err)
	}
	w.Kind, w.Span, w.Sequential = Range, 8, false
	cfg.Clients, cfg.Total = 2, 4
	if r, err = Run(t.Context(), cfg, w); err != nil || r.Requests != 4 || r.Received < 4*8<<20 {
		t.Fatalf("ranges of 8 MiB: %d, %d bytes, %v", r.Requests, r.Received, err)
	}
}

func TestRefusedRequestsAreCountedByTheirText(t *testing.T) {
	c := clienttest.New(t, 1)
	n := 0
	c.SetFaults(clienttest.Faults{Before: func(context.Context, int, string) error {
		if n++; n%5 == 0 {
			return status.Error(codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded, 100%\n")
		}
		return nil
	}})
	cfg := configFor(c)
	cfg.Clients, cfg.Conns = 1, 1
	r, err := Run(t.Context(), cfg, puts())
	if err != nil || r.Requests != 400 || r.Errors["etcdserver: mvcc: database space exceeded, 100%\n"] != 100 {
		t.Errorf("%v, %v", r.Errors, err)
	}
}

func TestABrokenConnectionEndsTheRunWithWhatThereIs(t *testing.T) {
	c := clienttest.New(t, 1)
	n := 0
	c.SetFaults(clienttest.Faults{After: func(context.Context, int, string) error {
		if n++; n == 100 {
			go c.Stop(0)
		}
		return nil
	}})
	cfg := configFor(c)
	cfg.Clients, cfg.Conns, cfg.Total = 1, 1, 1_000_000_000
	r, err := Run(t.Context(), cfg, puts())
	if err == nil || r.Requests < 99 || r.Failed() > 1 {
		t.Errorf("%d requests, errors %v, %v", r.Requests, r.Errors, err)
	}
}

func TestNobodyThereIsAnError(t *testing.T) {
	c := clienttest.New(t, 1)
	c.Stop(0)
	if _, err := Run(t.Context(), configFor(c), puts()); err == nil || !strings.Contains(err.Error(), clienttest.Endpoint(0)) {
		t.Errorf("%v", err)
	}
}

func TestAServerOfAnotherProtocolIsNamed(t *testing.T) {
	cfg := Config{Endpoints: []string{"http://web.test:80"}, Clients: 1, Conns: 1, Total: 1}
	cfg.Dial = func(context.Context, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			_, _ = theirs.Read(make([]byte, 4096))
			_, _ = theirs.Write([]byte("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))
		}()
		return ours, nil
	}
	if _, err := Run(t.Context(), cfg, puts()); err == nil || !strings.Contains(err.Error(), "not a server of the etcd protocol") {
		t.Errorf("%v", err)
	}
}

func TestAPacedRunCountsFromWhenRequestsWereDue(t *testing.T) {
	c := clienttest.New(t, 1)
	const pause = 300 * time.Millisecond
	n := 0
	c.SetFaults(clienttest.Faults{Before: func(context.Context, int, string) error {
		if n++; n == 2 {
			<-time.After(pause) // From here on: to connect may take as long.
		}
		return nil
	}})
	cfg := configFor(c)
	cfg.Clients, cfg.Conns, cfg.Total, cfg.Rate = 1, 1, 50, 500 // 100 ms of load.
	r, err := Run(t.Context(), cfg, puts())
	if err != nil {
		t.Fatal(err)
	}
	// All but one were answered at once, yet those due during the pause had to wait.
	if half := r.Latency.Quantile(0.5); half < 50*time.Millisecond {
		t.Errorf("half of the requests took at most %v, though nothing was answered for %v", half, pause)
	}
}

func TestARunEndsInTime(t *testing.T) {
	c := clienttest.New(t, 1)
	cfg := configFor(c)
	cfg.Total, cfg.Duration = 0, 50*time.Millisecond
	for _, rate := range []float64{0, 1000} {
		cfg.Rate = rate
		if r, err := Run(t.Context(), cfg, puts()); err != nil || r.Requests == 0 || r.Elapsed < cfg.Duration/2 {
			t.Errorf("rate %v: %d requests in %v, %v", rate, r.Requests, r.Elapsed, err)
		}
	}
}

func TestARunEndsWithItsContext(t *testing.T) {
	c := clienttest.New(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cfg := configFor(c)
	cfg.Total = 1 << 60
	cfg.Progress = func(done int64) {
		if done > 0 {
			cancel()
		}
	}
	if r, err := Run(ctx, cfg, puts()); err != nil || r.Requests == 0 {
		t.Errorf("%d, %v", r.Requests, err)
	}
}

func TestWatchersGetEveryEvent(t *testing.T) {
	for _, whole := range []bool{false, true} {
		c := clienttest.New(t, 2)
		w := puts()
		cfg := configFor(c)
		cfg.Clients = 75 // Half of the keys have two watchers.
		r, err := RunWatch(t.Context(), cfg, w, 3, whole)
		if err != nil {
			t.Fatal(err)
		}
		least := int64(500)
		if whole {
			least = 500 * 75
		}
		if r.Requests != 500 || r.Missing != 0 || r.Events < least || r.Delivery.Count() != uint64(r.Events) {
			t.Errorf("whole %v: %d puts, %d events, %d missing, %d latencies", whole, r.Requests, r.Events, r.Missing, r.Delivery.Count())
		}
	}
}

func TestARefusedWatchIsAnError(t *testing.T) {
	c := clienttest.New(t, 1)
	c.SetFaults(clienttest.Faults{Watching: func(int, *pb.WatchResponse) error {
		return status.Error(codes.PermissionDenied, "etcdserver: permission denied")
	}})
	if _, err := RunWatch(t.Context(), configFor(c), puts(), 1, false); err == nil || !strings.Contains(err.Error(), "etcdserver: permission denied") {
		t.Errorf("%v", err)
	}
}

func TestAConfigurationThatCannotBeIsRefused(t *testing.T) {
	cfg := Config{Clients: 0, Conns: 3, Rate: -1}
	w := Workload{Kind: Range, Prefix: "long/prefix/", KeyBytes: 8, ValueBytes: -1, KeySpace: 1000, Span: 2000}
	_, err := Run(t.Context(), cfg, w)
	for _, want := range []string{"endpoints", "--clients", "--conns", "--rate", "--total", "--key-size", "--val-size", "--key-space"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing about %s: %v", want, err)
		}
	}
}

func TestEndpointsAreReadAsTheClientReadsThem(t *testing.T) {
	for endpoint, want := range map[string]string{
		"127.0.0.1:2379": "127.0.0.1:2379 false", "http://a:1": "a:1 false", "https://a:1/": "a:1 true",
		"unix:///run/x": "unix:/run/x false", "unixs://x": "unix:x true",
	} {
		address, secure, err := parseEndpoint(endpoint, false)
		if got := fmt.Sprint(address, " ", secure); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", endpoint, got, err, want)
		}
	}
	if _, _, err := parseEndpoint("ftp://a:1", false); err == nil {
		t.Error("ftp is an endpoint")
	}
}

func TestQuantilesAreWithinOnePart(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h, other Histogram
	var all []time.Duration
	for i := range 20_000 {
		d := time.Duration(random.ExpFloat64() * float64(3*time.Millisecond))
		all = append(all, d)
		if i%2 == 0 {
			h.Record(d)
		} else {
			other.Record(d)
		}
	}
	h.Add(&other)
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		exact := all[min(max(int(q*float64(len(all))+0.5), 1), len(all))-1]
		if got := h.Quantile(q); got < exact || float64(got) > float64(exact)*(1+1.0/128)+1 {
			t.Errorf("quantile %v is %v, exactly %v", q, got, exact)
		}
	}
	if h.Max() != all[len(all)-1] || h.Count() != 20_000 {
		t.Errorf("max %v, count %d", h.Max(), h.Count())
	}
	var none Histogram
	if none.Quantile(0.5) != 0 || none.Mean() != 0 {
		t.Error("an empty histogram has values")
	}
	for _, d := range []time.Duration{0, 1, 127, 128, 255, 256, time.Second, 3 * time.Hour, -5} {
		if up := upper(bucket(max(d, 0))); up < d {
			t.Errorf("%v lies in a bucket that ends at %v", d, up)
		}
	}
}

// FuzzFrames: whatever a server sends, a connection only fails.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 0, 0, frameSettings, 0, 0, 0, 0, 0, 0, 0, 1, frameHeaders, 4, 0, 0, 0, 1, 0x88})
	f.Add([]byte{0, 0, 6, frameData, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 'x'})
	f.Fuzz(func(t *testing.T, sent []byte) {
		ours, theirs := net.Pipe()
		cfg := Config{Dial: func(context.Context, string) (net.Conn, error) { return ours, nil }}
		c, err := dial(t.Context(), &cfg, "fuzz:1")
		if err != nil {
			t.Fatal(err)
		}
		c.user = nobody{}
		c.mu.Lock()
		err = c.open(&stream{}, "/x", false)
		c.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for b := make([]byte, 4096); ; {
				if _, err := theirs.Read(b); err != nil {
					return
				}
			}
		}()
		go func() {
			_, _ = theirs.Write(sent)
			theirs.Close()
		}()
		if err := c.read(); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("a connection ends with %v", err)
		}
		ours.Close()
	})
}

type nobody struct{}

func (nobody) message(*stream, []byte) {}
func (nobody) closed(*stream, error)   {}
