package server_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// traces is a collector.
type traces struct {
	collector.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans map[string]string // Name to service.
}

func (c *traces) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range r.ResourceSpans {
		who := []string{}
		for _, a := range resource.Resource.Attributes {
			who = append(who, a.Key+"="+a.Value.GetStringValue())
		}
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans[s.Name] = strings.Join(who, " ")
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func TestTracesOfCallsReachTheCollector(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := &traces{spans: map[string]string{}}
	g := grpc.NewServer()
	collector.RegisterTraceServiceServer(g, got)
	go g.Serve(l)
	t.Cleanup(g.Stop)
	put := func(rate int) (who string) {
		c := servertest.New(t, 1, func(_ int, c *server.Config) {
			c.Tracing = server.Tracing{Enabled: true, Address: l.Addr().String(), Instance: "m0", PerMillion: rate}
		})
		mustPut(t, dial(t, c.Members[0]), "k", "v")
		c.Members[0].Stop() // Sends what there is.
		got.mu.Lock()
		defer got.mu.Unlock()
		return got.spans["etcdserverpb.KV/Put"]
	}
	if who := put(0); who != "" {
		t.Errorf("at none of a million: a put of %q; all are %v", who, got.spans)
	}
	want, who := "service.instance.id=m0 service.name=etcd", ""
	for try := 0; who == "" && try < 5; try++ { // A member that ends gives its traces a moment, which a slow machine may need for itself.
		who = put(1_000_000)
	}
	if who != want {
		t.Errorf("at each of a million: a put of %q, want %q; all are %v", who, want, got.spans)
	}
}

func TestARateOfTracesIsChecked(t *testing.T) {
	cfg := server.DefaultConfig(nil)
	cfg.Tracing = server.Tracing{Enabled: true, PerMillion: 1_000_001}
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "--distributed-tracing-sampling-rate") {
		t.Error(err)
	}
}
