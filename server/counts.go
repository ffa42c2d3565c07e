package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/server/keeper"
	"github.com/holdfast-db/holdfast/server/replica"
	"github.com/holdfast-db/holdfast/statemachine/alarm"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

// watchEvents registers what the hub counts.
func (m *metrics) watchEvents(c *core) {
	m.gauges(map[string]gauge{
		"etcd_debugging_mvcc_watch_stream_total":   {"Streams of watches.", func() float64 { return float64(c.hub.Stats().Streams) }},
		"etcd_debugging_mvcc_watcher_total":        {"Watches.", func() float64 { return float64(c.hub.Stats().Watchers) }},
		"holdfast_watch_waiting_bytes":             {"Bytes that wait for clients of watches to read.", func() float64 { return float64(c.hub.Stats().WaitingBytes) }},
		"holdfast_range_streams":                   {"Ranges that are being streamed to clients.", func() float64 { return float64(c.ranges.Load()) }},
		"etcd_debugging_mvcc_slow_watcher_total":   {"Watches that read history, as they began in the past or are slow.", func() float64 { return float64(c.hub.Stats().Slow) }},
		"etcd_debugging_mvcc_pending_events_total": {"Events that wait in the server: none, they are read from history when they can be sent.", func() float64 { return 0 }},
	})
	m.counters(map[string]gauge{
		"etcd_debugging_mvcc_events_total":        {"Events given to watches.", func() float64 { return float64(c.hub.Stats().Delivered) }},
		"holdfast_watch_history_read_bytes_total": {"Bytes of history read for watches that are behind.", func() float64 { s := c.hub.Stats(); return float64(s.ScannedBytes + s.LookedBytes) }},
	})
}

// watchCounts registers what is counted where it happens.
func (m *metrics) watchCounts(c *core) {
	whole := func(n interface{ Load() int64 }) func() float64 { return func() float64 { return float64(n.Load()) } }
	m.gauges(map[string]gauge{
		"etcd_disk_wal_write_bytes_total":               {"Bytes written to the Raft log.", whole(&m.walBytes)},
		"etcd_disk_defrag_inflight":                     {"1 during a defragmentation.", whole(&m.defragmenting)},
		"etcd_server_snapshot_apply_in_progress_total":  {"1 while a snapshot of another member takes the place of the state.", whole(&m.installing)},
		"etcd_mvcc_db_open_read_transactions":           {"Reads of the base file under way.", func() float64 { return 0 }},
		"etcd_debugging_mvcc_total_put_size_in_bytes":   {"Bytes of keys and values that were put.", whole(&c.replica.Machine.Counters.PutBytes)},
		"etcd_debugging_mvcc_keys_total":                {"Keys of clients.", (&keyCount{core: c}).now},
		"holdfast_disk_free_bytes":                      {"Bytes that the disk of the data directory can still take.", func() float64 { return diskFree(c) }},
		"os_fd_used":                                    {"Files and sockets that this process has open.", func() float64 { return descriptors(c) }},
		"os_fd_limit":                                   {"Files and sockets that it may have open.", descriptorLimit},
		"holdfast_certificate_expiry_timestamp_seconds": {"When the first certificate that this member shows ends; 0: it shows none.", func() float64 { return float64(c.certificateEnd()) }},
	})
	m.counters(map[string]gauge{
		"etcd_server_health_success":                {"Questions for /health that were answered with true.", whole(&m.healthGood)},
		"etcd_server_health_failures":               {"Questions for /health that were answered with false.", whole(&m.healthBad)},
		"etcd_server_slow_apply_total":              {"Batches of entries that took long to apply.", whole(&m.slowApplies)},
		"etcd_server_slow_read_indexes_total":       {"Reads that waited long for the quorum.", whole(&m.slowReads)},
		"etcd_server_read_indexes_failed_total":     {"Reads that the quorum did not confirm.", whole(&m.lostReads)},
		"etcd_server_learner_promote_successes":     {"Learners that got a vote here.", whole(&m.promoted)},
		"etcd_debugging_lease_granted_total":        {"Leases that were granted.", whole(&m.granted)},
		"etcd_debugging_lease_revoked_total":        {"Leases that ended.", whole(&m.revoked)},
		"etcd_debugging_lease_renewed_total":        {"Renewals of leases, by the leader.", whole(&m.renewed)},
		"etcd_debugging_server_lease_expired_total": {"Leases that ran out, by the leader.", whole(&m.expired)},
	})
}

func diskFree(c *core) float64 {
	n, err := c.cfg.FS.Free(c.cfg.DataDir)
	if err != nil {
		return 0
	}
	return float64(n)
}

// descriptors counts what this process has open, where the system tells.
func descriptors(c *core) float64 {
	list, err := c.cfg.FS.List("/proc/self/fd")
	if err != nil {
		return 0
	}
	return float64(len(list))
}

func descriptorLimit() float64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0
	}
	return float64(l.Cur)
}

// alarmCollector tells which alarms are on.
type alarmCollector struct{ core *core }

var alarmsOn = prometheus.NewDesc("etcd_debugging_server_alarms", "1 for each alarm that is on.", []string{"server_id", "alarm_type"}, nil)

// Describe implements prometheus.Collector.
func (a *alarmCollector) Describe(out chan<- *prometheus.Desc) { out <- alarmsOn }

// Collect implements prometheus.Collector.
func (a *alarmCollector) Collect(out chan<- prometheus.Metric) {
	for _, on := range a.core.replica.Machine.Alarms.List(alarm.None) {
		out <- prometheus.MustNewConstMetric(alarmsOn, prometheus.GaugeValue, 1, on.Member.String(), pb.AlarmType(on.Kind).String())
	}
}

// leaseCounts counts on the way to the keeper.
type leaseCounts struct {
	*keeper.Keeper
	m *metrics
}

// Granted implements lease.Watcher.
func (l leaseCounts) Granted(id ident.LeaseID, ttlSeconds int64) {
	l.m.granted.Add(1)
	l.Keeper.Granted(id, ttlSeconds)
}

// Revoked implements lease.Watcher.
func (l leaseCounts) Revoked(id ident.LeaseID) {
	l.m.revoked.Add(1)
	l.Keeper.Revoked(id)
}

// timedLog measures writes and syncs of the Raft log.
type timedLog struct {
	raftnode.Log
	clock clock.Clock
	m     *metrics
	late  *atomic.Int64 // What a sync takes of late, in nanoseconds. Written by who appends.
}

// syncsRemembered is how many syncs it takes to forget an old one.
const syncsRemembered = 16

// Append implements raftnode.Log.
func (l *timedLog) Append(entries []*raftpb.Entry, hs *wal.HardState) error {
	start := l.clock.Mono()
	err := l.Log.Append(entries, hs)
	l.m.walWrite.Observe((l.clock.Mono() - start).Seconds())
	for _, e := range entries {
		l.m.walBytes.Add(int64(len(e.Data)))
	}
	return err
}

// Sync implements raftnode.Log.
func (l *timedLog) Sync() error {
	start := l.clock.Mono()
	err := l.Log.Sync()
	took := l.clock.Mono() - start
	l.m.walSync.Observe(took.Seconds())
	late := l.late.Load()
	l.late.Store(late + (int64(took)-late)/syncsRemembered)
	return err
}

// timedMachine measures what the state machine does.
type timedMachine struct {
	*replica.Replica
	s *Server
}

// Apply implements raftnode.StateMachine.
func (t *timedMachine) Apply(entries []entry.Entry) ([]entry.Answer, error) {
	start := t.s.cfg.Clock.Mono()
	answers, err := t.Replica.Apply(entries)
	took := t.s.cfg.Clock.Mono() - start
	t.s.metrics.applied.Observe(took.Seconds())
	if took > t.s.cfg.SlowApply {
		t.s.metrics.slowApplies.Add(1)
		requests, size := 0, 0
		for i := range entries {
			requests += len(entries[i].Requests)
			for _, r := range entries[i].Requests {
				size += len(r.Data)
			}
		}
		t.s.log.Warn("applying was slow", "took", took, "limit", t.s.cfg.SlowApply, "entries", len(entries), "requests", requests, "bytes", size)
	}
	return answers, err
}

// Install implements raftnode.StateMachine.
func (t *timedMachine) Install(staged raftnode.Staged) error {
	t.s.metrics.installing.Add(1)
	defer t.s.metrics.installing.Add(-1)
	return t.Replica.Install(staged)
}

// Receive implements raftnode.StateMachine.
func (t *timedMachine) Receive(r io.Reader) (raftnode.Staged, error) { return t.Replica.Receive(r) }

// slowRead is how long a read may wait for the quorum before it is counted.
const slowRead = time.Second

// readIndexed counts how waiting for the quorum ended.
func (m *metrics) readIndexed(took time.Duration, err error) {
	if took > slowRead {
		m.slowReads.Add(1)
	}
	if err != nil && !errors.Is(err, raftnode.ErrStopped) {
		m.lostReads.Add(1)
	}
}

// clientVersionsMax and clientVersionBytesMax bound a label whose values clients choose.
const (
	clientVersionsMax     = 16
	clientVersionBytesMax = 32
)

// clientVersions counts calls by what clients say they are.
type clientVersions struct {
	all   *prometheus.CounterVec
	found sync.Map // Kind and version to prometheus.Counter, so that a call looks up no labels.
	known atomic.Int64
}

type clientVersion struct{ kind, version string }

func (v *clientVersions) count(kind, version string) {
	key := clientVersion{kind, version}
	if c, ok := v.found.Load(key); ok {
		c.(prometheus.Counter).Inc()
		return
	}
	if len(version) > clientVersionBytesMax || v.known.Add(1) > clientVersionsMax {
		v.all.WithLabelValues(kind, "other").Inc()
		return
	}
	c := v.all.WithLabelValues(kind, version)
	v.found.Store(clientVersion{kind, version}, c)
	c.Inc()
}

func (c *core) promoted(err error) {
	if err == nil {
		c.metrics.promoted.Add(1)
		return
	}
	reason := "Other"
	for _, r := range []struct {
		err  error
		name string
	}{{errLearnerNotReady, "LearnerNotReady"}, {member.ErrNotLearner, "NotLearner"}, {member.ErrNotFound, "MemberNotFound"}} {
		if errors.Is(err, r.err) {
			reason = r.name
		}
	}
	c.metrics.notPromoted.WithLabelValues(reason).Inc()
}

// keyCount is how many keys there are. They are counted when somebody asks:
// always, while that is quick, else so seldom that it takes a hundredth of a CPU.
type keyCount struct {
	core *core

	mu   sync.Mutex
	last float64
	at   ident.Revision
	due  time.Duration // By clock.Mono: not counted again before.
}

func (k *keyCount) now() float64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	clock := k.core.cfg.Clock
	start := clock.Mono()
	store, err := k.core.replica.Use()
	if err != nil {
		return k.last
	}
	defer store.Release()
	if head := store.Head(); head == k.at || start < k.due {
		return k.last
	}
	v := store.View()
	defer v.Release()
	r, err := v.Range(context.Background(), mvcc.RangeArgs{Key: []byte{0}, End: []byte{0}, CountOnly: true})
	if err != nil {
		return k.last // What is wrong with the store is told elsewhere.
	}
	k.last, k.at = float64(r.Count), r.Revision
	if took := clock.Mono() - start; took > keyCountQuick {
		k.due = clock.Mono() + 100*took
	}
	return k.last
}

// keyCountQuick is what counting the keys may take at each look.
const keyCountQuick = 10 * time.Millisecond
