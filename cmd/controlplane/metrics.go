package main

import (
	"context"
	"path"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// metrics are what /metrics of the member tells of the layer over it.
type metrics struct {
	clock clock.Clock

	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	streams  *prometheus.GaugeVec
	bound    prometheus.Counter
	refused  prometheus.Counter
	bind     prometheus.Histogram
	leading  *prometheus.GaugeVec
}

func newMetrics() *metrics {
	const space = "controlplane"
	buckets := prometheus.ExponentialBuckets(0.0005, 2, 15)
	return &metrics{
		clock:    clock.Real(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: space, Name: "api_requests_total", Help: "Calls of the API over the network, by method and outcome."}, []string{"method", "code"}),
		seconds:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: space, Name: "api_request_seconds", Help: "Time of calls of the API that are no streams.", Buckets: buckets}, []string{"method"}),
		streams:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: space, Name: "api_streams", Help: "Watches and heartbeats that are open."}, []string{"method"}),
		bound:    prometheus.NewCounter(prometheus.CounterOpts{Namespace: space, Name: "pods_bound_total", Help: "Pods that this scheduler has given a node."}),
		refused:  prometheus.NewCounter(prometheus.CounterOpts{Namespace: space, Name: "binds_refused_total", Help: "Binds that were refused: the pod, the node or the leadership was another by then."}),
		bind:     prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: space, Name: "bind_seconds", Help: "Time from a decision of the scheduler until it is in the store.", Buckets: buckets}),
		leading:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: space, Name: "leader", Help: "1 while this control plane leads the part."}, []string{"of"}),
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.seconds, m.streams, m.bound, m.refused, m.bind, m.leading}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(to)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(to)
	}
}

// leads says that this control plane leads a part, until what it returns is called.
func (m *metrics) leads(name string) (over func()) {
	g := m.leading.WithLabelValues(name)
	g.Set(1)
	return func() { g.Set(0) }
}

func (m *metrics) unary(ctx context.Context, r any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	began := m.clock.Mono()
	answer, err := handle(ctx, r)
	method := path.Base(info.FullMethod)
	m.requests.WithLabelValues(method, status.Code(err).String()).Inc()
	m.seconds.WithLabelValues(method).Observe((m.clock.Mono() - began).Seconds())
	return answer, err
}

func (m *metrics) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	method := path.Base(info.FullMethod)
	open := m.streams.WithLabelValues(method)
	open.Inc()
	defer open.Dec()
	err := handle(srv, s)
	m.requests.WithLabelValues(method, status.Code(err).String()).Inc()
	return err
}

// counting counts the binds of a scheduler's connection.
func (m *metrics) counting(conn grpc.ClientConnInterface) grpc.ClientConnInterface {
	return &countedBinds{conn, m}
}

type countedBinds struct {
	grpc.ClientConnInterface
	metrics *metrics
}

// Invoke implements grpc.ClientConnInterface.
func (c *countedBinds) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if method != kubepb.ClusterState_Bind_FullMethodName {
		return c.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
	}
	began := c.metrics.clock.Mono()
	err := c.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
	if err != nil {
		c.metrics.refused.Inc()
		return err
	}
	c.metrics.bound.Inc()
	c.metrics.bind.Observe((c.metrics.clock.Mono() - began).Seconds())
	return nil
}
