package server

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// requestTimes are the histograms of calls, found without a look-up of labels.
type requestTimes struct {
	all    *prometheus.HistogramVec
	ranges *prometheus.HistogramVec
	rows   map[string][2]prometheus.Observer // By method: when it fails, and when not.
	read   [2]prometheus.Observer
}

func newRequestTimes() *requestTimes {
	r := &requestTimes{
		all: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "etcd_server_request_duration_seconds", Help: "Time that a request took in this member.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}, []string{"type", "success"}),
		ranges: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "etcd_server_range_duration_seconds", Help: "Time that a range took in this member.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 20),
		}, []string{"success"}),
		rows: map[string][2]prometheus.Observer{},
	}
	for _, method := range []string{
		pb.KV_Range_FullMethodName, pb.KV_Put_FullMethodName, pb.KV_DeleteRange_FullMethodName, pb.KV_Txn_FullMethodName, pb.KV_Compact_FullMethodName,
		pb.Lease_LeaseGrant_FullMethodName, pb.Lease_LeaseRevoke_FullMethodName,
	} {
		name := method[strings.LastIndex(method, "/")+1:]
		r.rows[method] = [2]prometheus.Observer{r.all.WithLabelValues(name, "false"), r.all.WithLabelValues(name, "true")}
	}
	r.read = [2]prometheus.Observer{r.ranges.WithLabelValues("false"), r.ranges.WithLabelValues("true")}
	return r
}

func (r *requestTimes) observe(method string, took time.Duration, err error) {
	row, ok := r.rows[method]
	if !ok {
		return
	}
	i := 0
	if err == nil {
		i = 1
	}
	row[i].Observe(took.Seconds())
	if method == pb.KV_Range_FullMethodName {
		r.read[i].Observe(took.Seconds())
	}
}

// Describe implements prometheus.Collector.
func (r *requestTimes) Describe(out chan<- *prometheus.Desc) {
	r.all.Describe(out)
	r.ranges.Describe(out)
}

// Collect implements prometheus.Collector.
func (r *requestTimes) Collect(out chan<- prometheus.Metric) {
	r.all.Collect(out)
	r.ranges.Collect(out)
}
