package main

import (
	"context"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// metrics are what /metrics of the member tells of the layer over it.
type metrics struct {
	clock clock.Clock

	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	streams  *prometheus.GaugeVec
	bound    prometheus.Counter
	waited   prometheus.Histogram
	leading  *prometheus.GaugeVec
	expiry   prometheus.GaugeFunc
}

// newMetrics asks when the certificate of the API ends, in seconds, whenever somebody reads.
func newMetrics(certificateEnd func() float64) *metrics {
	const space = "controlplane"
	buckets := prometheus.ExponentialBuckets(0.0005, 2, 15)
	return &metrics{
		clock:    clock.Real(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: space, Name: "api_requests_total", Help: "Calls of the API over the network, by method and outcome."}, []string{"method", "code"}),
		seconds:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: space, Name: "api_request_seconds", Help: "Time of calls of the API that are no streams.", Buckets: buckets}, []string{"method"}),
		streams:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: space, Name: "api_streams", Help: "Watches and heartbeats that are open."}, []string{"method"}),
		bound:    prometheus.NewCounter(prometheus.CounterOpts{Namespace: space, Name: "pods_bound_total", Help: "Pods that this scheduler has given a node."}),
		waited:   prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: space, Name: "schedule_seconds", Help: "Time from when the scheduler heard of a pod until its node was in the store.", Buckets: buckets}),
		leading:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: space, Name: "leader", Help: "1 while this control plane leads the part."}, []string{"of"}),
		expiry:   prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: space, Name: "certificate_expiry_timestamp_seconds", Help: "When the certificate of the API ends."}, certificateEnd),
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.seconds, m.streams, m.bound, m.waited, m.leading, m.expiry}
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

// podBound is told of each pod that this scheduler has given a node.
func (m *metrics) podBound(waited time.Duration) {
	m.bound.Inc()
	m.waited.Observe(waited.Seconds())
}
