package main

import (
	"context"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/state"
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

	// standing is asked for by each reader; until it is set, and while it fails, there are
	// no such metrics: a number that nobody knows would be believed.
	standing atomic.Pointer[func() (standing, error)]
}

// standing is what an operator wants to know of the layer at a glance.
type standing struct {
	state.Overview
	heldUntil time.Time // Evictions, by the controllers that lead here. Zero: they are not.
}

// How the layer stands. "holdfastctl status" shows them.
var (
	nodesIn = prometheus.NewDesc("controlplane_nodes", "Nodes, by what they are ready.", []string{"ready"}, nil)
	holdIs  = prometheus.NewDesc("controlplane_recovery_hold", "What waits for a decision after a restore: 0 nothing, 1 singletons, 2 also what is not recorded, 3 everything.", nil, nil)
	heldTo  = prometheus.NewDesc("controlplane_evictions_held_until_timestamp_seconds", "Until when nobody is evicted from silent nodes; 0 if they are, or others lead the controllers.", nil, nil)
)

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
	to <- nodesIn
	to <- holdIs
	to <- heldTo
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(to)
	}
	look := m.standing.Load()
	if look == nil {
		return
	}
	is, err := (*look)()
	if err != nil {
		return
	}
	for _, ready := range []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown} {
		to <- prometheus.MustNewConstMetric(nodesIn, prometheus.GaugeValue, float64(is.Nodes[ready]), strings.ToLower(string(ready)))
	}
	to <- prometheus.MustNewConstMetric(holdIs, prometheus.GaugeValue, float64(is.Hold))
	held := 0.0
	if !is.heldUntil.IsZero() {
		held = float64(is.heldUntil.Unix())
	}
	to <- prometheus.MustNewConstMetric(heldTo, prometheus.GaugeValue, held)
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
