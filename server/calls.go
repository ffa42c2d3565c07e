package server

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// calls counts what clients call. Names and labels are those of the middleware
// that etcd uses; that one looks its counters up for each call.
type calls struct {
	took *prometheus.HistogramVec // Nil unless metrics are extensive.
	rows map[string]*callRow      // By full method name. Filled before anybody is served, then only read.
}

func newCalls(extensive bool) *calls {
	c := &calls{rows: make(map[string]*callRow)}
	if extensive {
		c.took = prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grpc_server_handling_seconds", Help: "Time that calls took.", Buckets: prometheus.DefBuckets,
		}, callLabels)
	}
	return c
}

// codesMax is the number of codes that gRPC knows.
const codesMax = int(codes.Unauthenticated) + 1

// callRow is one method.
type callRow struct {
	labels   [3]string           // Method, service, type, as in callLabels.
	took     prometheus.Observer // Nil unless metrics are extensive.
	started  atomic.Int64
	received atomic.Int64
	sent     atomic.Int64
	handled  [codesMax]atomic.Int64
}

var (
	callLabels    = []string{"grpc_method", "grpc_service", "grpc_type"}
	callsStarted  = prometheus.NewDesc("grpc_server_started_total", "Calls that began.", callLabels, nil)
	callsReceived = prometheus.NewDesc("grpc_server_msg_received_total", "Messages received in calls.", callLabels, nil)
	callsSent     = prometheus.NewDesc("grpc_server_msg_sent_total", "Messages sent in calls.", callLabels, nil)
	callsHandled  = prometheus.NewDesc("grpc_server_handled_total", "Calls that ended, by outcome.", append(callLabels[:3:3], "grpc_code"), nil)
)

// addServices makes a row for every method of a server.
func (c *calls) addServices(services map[string]grpc.ServiceInfo) {
	for service, info := range services { //tidy:ordered a map is filled
		for _, m := range info.Methods {
			name := "/" + service + "/" + m.Name
			if c.rows[name] == nil {
				r := &callRow{labels: [3]string{m.Name, service, callType(m)}}
				if c.took != nil {
					r.took = c.took.WithLabelValues(r.labels[:]...)
				}
				c.rows[name] = r
			}
		}
	}
}

func callType(m grpc.MethodInfo) string {
	switch {
	case m.IsClientStream && m.IsServerStream:
		return "bidi_stream"
	case m.IsClientStream:
		return "client_stream"
	case m.IsServerStream:
		return "server_stream"
	}
	return "unary"
}

// begin of a call. The guard has a row for each method, and so has this.
func (c *calls) begin(method string) *callRow {
	r := c.rows[method]
	r.started.Add(1)
	return r
}

// start and stop measure a call, where somebody wants to know.
func (r *callRow) start(c clock.Clock) time.Duration {
	if r.took == nil {
		return 0
	}
	return c.Mono()
}

func (r *callRow) stop(c clock.Clock, start time.Duration) {
	if r.took != nil {
		r.took.Observe((c.Mono() - start).Seconds())
	}
}

func (r *callRow) end(err error) {
	code := codes.OK
	if err != nil {
		s, ok := status.FromError(err)
		if !ok {
			s = status.FromContextError(err)
		}
		code = s.Code()
	}
	if int(code) >= codesMax {
		code = codes.Unknown
	}
	r.handled[code].Add(1)
}

// counted is a stream whose messages are counted.
type counted struct {
	grpc.ServerStream
	row *callRow
}

// SendMsg implements grpc.ServerStream.
func (s *counted) SendMsg(m any) error {
	err := s.ServerStream.SendMsg(m)
	if err == nil {
		s.row.sent.Add(1)
	}
	return err
}

// RecvMsg implements grpc.ServerStream.
func (s *counted) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil {
		s.row.received.Add(1)
	}
	return err
}

// Describe implements prometheus.Collector.
func (c *calls) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{callsStarted, callsReceived, callsSent, callsHandled} {
		out <- d
	}
	if c.took != nil {
		c.took.Describe(out)
	}
}

// Collect implements prometheus.Collector.
func (c *calls) Collect(out chan<- prometheus.Metric) {
	if c.took != nil {
		c.took.Collect(out)
	}
	send := func(d *prometheus.Desc, n *atomic.Int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.Load()), labels...)
	}
	for _, r := range c.rows { //tidy:ordered the registry orders them
		send(callsStarted, &r.started, r.labels[:]...)
		send(callsReceived, &r.received, r.labels[:]...)
		send(callsSent, &r.sent, r.labels[:]...)
		for code := range r.handled {
			send(callsHandled, &r.handled[code], append(r.labels[:3:3], codes.Code(code).String())...)
		}
	}
}
