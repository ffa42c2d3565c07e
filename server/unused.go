package server

import "github.com/prometheus/client_golang/prometheus"

// unused registers what boards of etcd ask for and nothing here does: a panel
// without data looks like a member that is down.
func (m *metrics) unused() {
	none := func() float64 { return 0 }
	for _, name := range []string{
		"etcd_debugging_mvcc_db_compaction_keys_total", "etcd_debugging_store_expires_total", "etcd_debugging_store_watch_requests_total",
		"etcd_grpc_proxy_events_coalescing_total", "etcd_server_heartbeat_send_failures_total",
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: "Of etcd; always 0 here."}, none))
	}
	for _, name := range []string{
		"etcd_debugging_mvcc_db_compaction_last", "etcd_debugging_store_watchers",
		"etcd_grpc_proxy_cache_hits_total", "etcd_grpc_proxy_cache_keys_total", "etcd_grpc_proxy_cache_misses_total", "etcd_grpc_proxy_watchers_coalescing_total",
	} {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: "Of etcd; always 0 here."}, none))
	}
	for _, h := range []struct {
		name  string
		least float64
		count int
	}{
		{"etcd_debugging_disk_backend_commit_rebalance_duration_seconds", 0.001, 14},
		{"etcd_debugging_disk_backend_commit_spill_duration_seconds", 0.001, 14},
		{"etcd_debugging_disk_backend_commit_write_duration_seconds", 0.001, 14},
		{"etcd_debugging_lease_ttl_total", 1, 24},
		{"etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", 1, 13},
		{"etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", 100, 14},
		{"etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds", 0.5, 14},
		{"etcd_debugging_server_watch_send_loop_control_stream_duration_seconds", 0.001, 14},
		{"etcd_debugging_server_watch_send_loop_progress_duration_seconds", 0.001, 14},
		{"etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds", 0.001, 14},
		{"etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds", 0.001, 14},
		{"etcd_debugging_snap_save_marshalling_duration_seconds", 0.001, 14},
		{"etcd_debugging_snap_save_total_duration_seconds", 0.001, 14},
		{"etcd_snap_db_fsync_duration_seconds", 0.001, 14},
		{"etcd_snap_db_save_total_duration_seconds", 0.1, 10},
		{"etcd_snap_fsync_duration_seconds", 0.001, 14},
	} {
		m.registry.MustRegister(times(h.name, "Of etcd; nothing here is measured so.", h.least, h.count))
	}
}
