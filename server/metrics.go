package server

import (
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc/mem"

	"github.com/holdfast-db/holdfast/internal/build"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/proto/codec"
	"github.com/holdfast-db/holdfast/raftnode"
)

// metrics is what a member tells monitoring. Names are etcd's where etcd has
// the thing, so that boards and alerts keep working; ours begin with holdfast_.
//
// Most values are read when somebody asks, from where they are kept anyway.
type metrics struct {
	registry *prometheus.Registry

	walSync         prometheus.Histogram
	baseCommit      prometheus.Histogram
	roundTrip       *prometheus.HistogramVec
	leaderChanges   atomic.Int64
	proposalsFailed atomic.Int64
	clientSent      atomic.Int64
	clientReceived  atomic.Int64

	healthGood, healthBad atomic.Int64
	probes                *prometheus.GaugeVec
	probesTotal           *prometheus.CounterVec

	walWrite             prometheus.Histogram
	walBytes             atomic.Int64
	applied              prometheus.Histogram
	slowApplies          atomic.Int64
	installing           atomic.Int64
	defragment, snapshot prometheus.Histogram
	defragmenting        atomic.Int64
	hashed, hashedRev    prometheus.Histogram
	requests             *requestTimes
	slowReads, lostReads atomic.Int64
	granted, revoked     atomic.Int64
	renewed, expired     atomic.Int64
	promoted             atomic.Int64
	notPromoted          *prometheus.CounterVec
	clients              clientVersions
}

func newMetrics() *metrics {
	m := &metrics{
		registry:   prometheus.NewRegistry(),
		walSync:    times("etcd_disk_wal_fsync_duration_seconds", "Time that one sync of the Raft log took.", 0.001, 14),
		walWrite:   times("etcd_disk_wal_write_duration_seconds", "Time that one write to the Raft log took.", 0.001, 14),
		baseCommit: times("etcd_disk_backend_commit_duration_seconds", "Time that one commit of the base file took.", 0.001, 14),
		defragment: times("etcd_disk_backend_defrag_duration_seconds", "Time that one defragmentation took.", 0.1, 13),
		snapshot:   times("etcd_disk_backend_snapshot_duration_seconds", "Time that a snapshot for a client took, until it was sent.", 0.01, 17),
		hashed:     times("etcd_mvcc_hash_duration_seconds", "Time that hashing the whole store took.", 0.01, 15),
		hashedRev:  times("etcd_mvcc_hash_rev_duration_seconds", "Time that hashing the store at a revision took.", 0.01, 15),
		applied:    times("holdfast_apply_batch_duration_seconds", "Time that applying one batch of entries took.", 0.0001, 20),
		requests:   newRequestTimes(),
		roundTrip: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "etcd_network_peer_round_trip_time_seconds",
			Help:    "Round trips between this member and another.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}, []string{"To"}),
		probes:      gaugeVec("etcd_server_healthcheck", "1 where a health check passed the last time.", "type", "name"),
		probesTotal: counterVec("etcd_server_healthchecks_total", "Health checks that were made.", "type", "name", "status"),
		notPromoted: counterVec("etcd_server_learner_promote_failures", "Learners that did not get a vote, by reason.", "Reason"),
		clients:     clientVersions{all: counterVec("etcd_server_client_requests_total", "Calls of clients, by the version of their library.", "type", "client_api_version")},
	}
	m.registry.MustRegister(m.walSync, m.walWrite, m.baseCommit, m.defragment, m.snapshot, m.hashed, m.hashedRev, m.applied, m.requests, m.roundTrip,
		m.probes, m.probesTotal, m.notPromoted, m.clients.all,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// times is a histogram of seconds with buckets that double from least on.
func times(name, help string, least float64, count int) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(least, 2, count)})
}

func gaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
}

func counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func (m *metrics) probed(kind, name string, good bool) {
	result := "error"
	if good {
		result = "success"
	}
	m.probes.WithLabelValues(kind, name).Set(truth(good))
	m.probesTotal.WithLabelValues(kind, name, result).Inc()
}

func stuckFollowers(s raftnode.Status) (n float64) {
	for _, p := range s.Progress {
		n += truth(p.Stuck)
	}
	return n
}

// watchMember registers what is read from a running member.
func (m *metrics) watchMember(c *core) {
	status := func(f func(raftnode.Status) float64) func() float64 {
		return func() float64 { return f(c.node.Status()) }
	}
	m.gauges(map[string]gauge{
		"etcd_server_proposals_committed_total":   {"Entries of the log that are committed.", status(func(s raftnode.Status) float64 { return float64(s.Commit) })},
		"etcd_server_proposals_applied_total":     {"Entries of the log that are applied.", status(func(s raftnode.Status) float64 { return float64(s.Applied) })},
		"etcd_server_has_leader":                  {"1 while this member knows a leader.", status(func(s raftnode.Status) float64 { return truth(s.Leader != 0) })},
		"etcd_server_is_leader":                   {"1 while this member leads.", status(func(s raftnode.Status) float64 { return truth(s.Leader == s.ID) })},
		"etcd_server_is_learner":                  {"1 while this member has no vote.", func() float64 { return truth(c.learner()) }},
		"etcd_server_proposals_pending":           {"Requests that wait for their answer.", func() float64 { return float64(c.node.Pending()) }},
		"holdfast_clock_ahead_seconds":            {"How far the wall clock of this member is ahead of the middle of all that are known.", status(func(s raftnode.Status) float64 { return s.ClockAhead.Seconds() })},
		"holdfast_disk_stalled":                   {"1 while the disk of this member ends no write to the log.", status(func(s raftnode.Status) float64 { return truth(s.Stalled) })},
		"holdfast_apply_stalled":                  {"1 while this member applies nothing although another has applied the same.", status(func(s raftnode.Status) float64 { return truth(s.ApplyStalled) })},
		"holdfast_followers_stuck":                {"Members that answer this leader and store nothing of what it sends.", status(stuckFollowers)},
		"etcd_server_quota_backend_bytes":         {"Size that the store may reach.", func() float64 { return float64(c.cfg.QuotaBytes) }},
		"etcd_mvcc_db_total_size_in_bytes":        {"Bytes of the store on disk.", func() float64 { return float64(c.replica.Sizes().Total) }},
		"etcd_mvcc_db_total_size_in_use_in_bytes": {"Bytes of the store that hold something.", func() float64 { return float64(c.replica.Sizes().InUse) }},
		"etcd_debugging_mvcc_current_revision":    {"Revision of the store.", func() float64 { return float64(c.replica.Store().Head()) }},
		"etcd_debugging_auth_revision":            {"Revision of users and roles.", func() float64 { return float64(c.replica.Machine.Auth.State().Revision) }},
		"etcd_debugging_mvcc_compact_revision":    {"Revision up to which history is gone.", func() float64 { return float64(c.replica.Store().Compacted()) }},
	})
	m.gauges(map[string]gauge{
		"holdfast_scrub_last_end_timestamp_seconds": {"When the scrubber last came to the end of the state; 0: not since the start.", func() float64 { return float64(c.scrubs.ended.Load()) }},
	})
	m.counters(map[string]gauge{
		"holdfast_scrub_passes_total":                   {"How often the scrubber has read all of the state again.", func() float64 { return float64(c.scrubs.passes.Load()) }},
		"holdfast_scrub_read_bytes_total":               {"Bytes of the state that the scrubber has read.", func() float64 { return float64(c.scrubs.bytes.Load()) }},
		"holdfast_scrub_damages_total":                  {"Damages that the scrubber has found.", func() float64 { return float64(c.scrubs.damages.Load()) }},
		"etcd_server_leader_changes_seen_total":         {"Leaders that this member has seen come.", func() float64 { return float64(m.leaderChanges.Load()) }},
		"etcd_server_proposals_failed_total":            {"Requests that got no answer.", func() float64 { return float64(m.proposalsFailed.Load()) }},
		"etcd_mvcc_put_total":                           {"Puts of clients.", func() float64 { return float64(c.replica.Machine.Counters.Puts.Load()) }},
		"etcd_mvcc_delete_total":                        {"Deletes of clients.", func() float64 { return float64(c.replica.Machine.Counters.Deletes.Load()) }},
		"etcd_mvcc_txn_total":                           {"Transactions of clients.", func() float64 { return float64(c.replica.Machine.Counters.Txns.Load()) }},
		"etcd_mvcc_range_total":                         {"Ranges of clients.", func() float64 { return float64(c.replica.Machine.Counters.Ranges.Load()) }},
		"etcd_network_client_grpc_sent_bytes_total":     {"Bytes sent to clients.", func() float64 { return float64(m.clientSent.Load()) }},
		"etcd_network_client_grpc_received_bytes_total": {"Bytes received from clients.", func() float64 { return float64(m.clientReceived.Load()) }},
	})
	m.registry.MustRegister(&peerCollector{c}, &alarmCollector{c}, c.calls)
	m.watchEvents(c)
	m.watchCounts(c)
	m.unused()
	m.constant("etcd_server_version", "The version of etcd that this member behaves as.", prometheus.Labels{"server_version": c.cfg.ProtocolVersion})
	m.constant("etcd_cluster_version", "The version of etcd that the cluster behaves as.", prometheus.Labels{"cluster_version": strings.TrimSuffix(majorMinor(c.cfg.ProtocolVersion), ".0")})
	m.constant("holdfast_build_info", "The holdfast that this member runs.", prometheus.Labels{"version": build.Version()})
	m.constant("etcd_server_go_version", "The Go that built this member.", prometheus.Labels{"server_go_version": runtime.Version()})
	m.constant("etcd_server_id", "The ID of this member.", prometheus.Labels{"server_id": c.id.Member.String()})
}

type gauge struct {
	help string
	read func() float64
}

func (m *metrics) gauges(all map[string]gauge) {
	for name, g := range all { //tidy:ordered the registry orders them
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: g.help}, g.read))
	}
}

func (m *metrics) counters(all map[string]gauge) {
	for name, g := range all { //tidy:ordered the registry orders them
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: g.help}, g.read))
	}
}

func (m *metrics) constant(name, help string, labels prometheus.Labels) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 { return 1 }))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// peerCollector tells what the links to the other members have done.
type peerCollector struct{ core *core }

var (
	toPeer       = []string{"To"}
	fromPeer     = []string{"From"}
	peerSent     = prometheus.NewDesc("etcd_network_peer_sent_bytes_total", "Bytes sent to another member.", toPeer, nil)
	peerReceived = prometheus.NewDesc("etcd_network_peer_received_bytes_total", "Bytes received from another member.", fromPeer, nil)
	peerFailures = prometheus.NewDesc("etcd_network_peer_sent_failures_total", "Messages to another member that were dropped.", toPeer, nil)
	peerBroken   = prometheus.NewDesc("etcd_network_peer_received_failures_total", "Streams of another member that ended with an error.", fromPeer, nil)
	peerActive   = prometheus.NewDesc("etcd_network_active_peers", "1 while there is a connection to another member.", []string{"Local", "Remote"}, nil)
	peerKnown    = prometheus.NewDesc("etcd_network_known_peers", "1 for each member.", []string{"Local", "Remote"}, nil)
	snapSent     = prometheus.NewDesc("etcd_network_snapshot_send_success", "Snapshots sent to another member.", toPeer, nil)
	snapFailed   = prometheus.NewDesc("etcd_network_snapshot_send_failures", "Snapshots to another member that failed.", toPeer, nil)
)

// Describe implements prometheus.Collector.
func (p *peerCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{peerSent, peerReceived, peerFailures, peerBroken, peerActive, peerKnown, snapSent, snapFailed} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (p *peerCollector) Collect(out chan<- prometheus.Metric) {
	local := p.core.id.Member.String()
	out <- prometheus.MustNewConstMetric(peerKnown, prometheus.GaugeValue, 1, local, local) // As etcd.
	for _, s := range p.core.transport.Stats() {
		id := s.ID.String()
		count := func(d *prometheus.Desc, n uint64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), id)
		}
		count(peerSent, s.SentBytes)
		count(peerReceived, s.ReceivedBytes)
		count(peerFailures, s.SendFailures)
		count(peerBroken, s.ReceiveFailures)
		count(snapSent, s.SnapshotsSent)
		count(snapFailed, s.SnapshotsFailed)
		out <- prometheus.MustNewConstMetric(peerActive, prometheus.GaugeValue, truth(s.Connected), local, id)
		out <- prometheus.MustNewConstMetric(peerKnown, prometheus.GaugeValue, 1, local, id)
	}
}

func (m *metrics) roundTripOf(to ident.MemberID, d time.Duration) {
	m.roundTrip.WithLabelValues(to.String()).Observe(d.Seconds())
}

// counting is the codec of clients' connections: it sees every message anyway.
type counting struct {
	*codec.Codec
	m *metrics
}

// Marshal implements encoding.CodecV2.
func (c counting) Marshal(v any) (mem.BufferSlice, error) {
	out, err := c.Codec.Marshal(v)
	c.m.clientSent.Add(int64(out.Len()))
	return out, err
}

// Unmarshal implements encoding.CodecV2.
func (c counting) Unmarshal(data mem.BufferSlice, v any) error {
	c.m.clientReceived.Add(int64(data.Len()))
	return c.Codec.Unmarshal(data, v)
}
