package main

import "fmt"

func memberRows() []row {
	return []row{
		{name: "name", kind: isText, initial: "default", says: "name of this member, unique in the cluster", state: done, at: func(o *options) any { return &o.cfg.Name }, example: "a"},
		{name: "data-dir", kind: isText, says: "folder for all data of this member; left out: NAME.holdfast", state: done, at: func(o *options) any { return &o.cfg.DataDir }, example: "d"},
		{name: "wal-dir", kind: isText, says: "folder for the Raft log, if it shall be on another disk", state: done, at: func(o *options) any { return &o.cfg.WALDir }, example: "w"},
		{name: "listen-peer-urls", kind: isList, initial: "http://localhost:2380", says: "URLs to listen on for other members", state: done, at: func(o *options) any { return &o.cfg.ListenPeerURLs }, example: "http://localhost:1"},
		{name: "listen-client-urls", kind: isList, initial: "http://localhost:2379", says: "URLs to listen on for clients: http, https, unix or unixs", state: done, at: func(o *options) any { return &o.cfg.ListenClientURLs }, example: "http://localhost:1"},
		{name: "heartbeat-interval", kind: isMillis, initial: "100", says: "time between heartbeats of the leader", state: done, at: func(o *options) any { return &o.cfg.HeartbeatInterval }, example: "50"},
		{name: "election-timeout", kind: isMillis, initial: "1000", says: "time without a leader until an election; at least five heartbeats", state: done, at: func(o *options) any { return &o.cfg.ElectionTimeout }, example: "2000"},
		{name: "quota-backend-bytes", kind: isNumber, says: "bytes that the store may reach before writes are refused; 0: 2 GiB; negative: no quota", state: done, at: func(o *options) any { return &o.cfg.QuotaBytes }, example: "1000000"},
		{name: "snapshot-catchup-entries", kind: isNumber, initial: "5000", says: "entries of the log that are kept for slow members, while they are less than 1 GiB", state: done, at: func(o *options) any { return &o.cfg.SnapshotCatchUpEntries }, example: "10"},
		{name: "socket-reuse-port", kind: isSwitch, says: "let other processes listen on the same ports", state: done, at: func(o *options) any { return &o.cfg.SocketReusePort }, example: "true"},
		{name: "socket-reuse-address", kind: isSwitch, says: "listen on an address in TIME_WAIT", state: accepted, why: "listeners always may", example: "true"},
		{name: "snapshot-count", kind: isNumber, initial: "10000", says: "entries between two snapshots", state: accepted, why: "checkpoints follow the bytes and the time since the last one", example: "1"},
		{name: "max-snapshots", kind: isNumber, initial: "5", says: "snapshot files to keep", state: accepted, why: "a state in force is kept, and nothing that it replaced", example: "1"},
		{name: "max-wals", kind: isNumber, initial: "5", says: "files of the log to keep", state: accepted, why: "what restart, slow members and the archive need is kept, and no more", example: "1"},
		{name: "backend-batch-interval", kind: isDuration, says: "time until a commit of the database", state: accepted, why: "the Raft log makes writes durable; the base follows in batches of its own", example: "1s"},
		{name: "backend-batch-limit", kind: isNumber, says: "operations until a commit of the database", state: accepted, why: "as for backend-batch-interval", example: "1"},
		{name: "backend-bbolt-freelist-type", kind: isText, says: "form of the list of free pages of the database", state: accepted, why: "the base has one form of it", example: "map"},
		{name: "initial-election-tick-advance", kind: isSwitch, initial: "true", says: "shorten the first election timeout", state: accepted, why: "a member that is alone campaigns at once, others wait for the leader they may have", example: "false"},
		{name: "raft-read-timeout", kind: isDuration, initial: "5s", says: "time for one read on a connection of members", state: accepted, why: "members ask on each connection whether it lives", example: "6s"},
		{name: "raft-write-timeout", kind: isDuration, initial: "5s", says: "time for one write on a connection of members", state: accepted, why: "as for raft-read-timeout", example: "6s"},
		{name: "memory-mlock", kind: isSwitch, says: "keep the memory of this process from being swapped out", state: done, at: func(o *options) any { return &o.lockMemory }, example: "true"},
		{name: "bootstrap-defrag-threshold-megabytes", kind: isNumber, says: "defragment at start where that frees as much; 0: never", state: done, at: func(o *options) any { return &o.defragMegabytes }, example: "1"},
	}
}

func clusterRows() []row {
	return []row{
		{name: "initial-advertise-peer-urls", kind: isList, says: "URLs by which other members reach this one; left out: those listened on", state: done, at: func(o *options) any { return &o.cfg.AdvertisePeerURLs }, example: "http://h:1"},
		{name: "advertise-client-urls", kind: isList, says: "URLs by which clients reach this one; left out: those listened on", state: done, at: func(o *options) any { return &o.cfg.AdvertiseClientURLs }, example: "http://h:1"},
		{name: "initial-cluster", kind: isText, says: "NAME=URL,… of all first members; left out: this one alone", state: done, at: func(o *options) any { return &o.cfg.InitialCluster }, example: "default=http://localhost:2380"},
		{name: "initial-cluster-state", kind: isText, initial: "new", says: "new, or existing to join a running cluster; ignored where there is data", state: done, at: func(o *options) any { return &o.cfg.InitialClusterState }, example: "existing"},
		{name: "initial-cluster-token", kind: isText, initial: "etcd-cluster", says: "keeps two clusters with equal URLs apart", state: done, at: func(o *options) any { return &o.cfg.InitialClusterToken }, example: "t"},
		{name: "strict-reconfig-check", kind: isSwitch, initial: "true", says: "refuse changes of members that would lose the quorum", state: done, at: func(o *options) any { return &o.cfg.StrictReconfigCheck }, example: "false"},
		{name: "pre-vote", kind: isSwitch, initial: "true", says: "ask before an election whether it could be won", state: accepted, why: "a member always asks: one that comes back would depose a leader that is well", example: "false"},
		{name: "max-learners", kind: isNumber, initial: "1", says: "members without a vote at a time", state: done, at: func(o *options) any { return &o.cfg.LearnersMax }, example: "2"},
		{name: "learner-auto-promote", kind: isSwitch, says: "give a learner its vote once it has caught up", state: done, at: func(o *options) any { return &o.cfg.LearnerAutoPromote }, example: "true", ours: true},
		{name: "force-new-cluster", kind: isSwitch, says: "start as the only member of a new cluster, with all that this member's log holds; the old directory is kept", state: done, at: func(o *options) any { return &o.forceNew }, example: "true"},
		{name: "v2-deprecation", kind: isText, initial: "gone", says: "stage of the old store", state: accepted, why: "the protocol of version 2 is not spoken; etcd ignores it too", example: "write-only"},
		{name: "downgrade-check-time", kind: isDuration, initial: "5s", says: "time between two looks at a downgrade", state: accepted, why: "the state of a downgrade is in the log, nothing looks for it", example: "1s"},
	}
}

func discoveryRows() []row {
	service := func(name string, k kind, initial, says, example string, at func(*discovery) any) row {
		return row{name: name, kind: k, initial: initial, says: says, state: done, at: func(o *options) any { return at(&o.discovery) }, example: example}
	}
	return []row{
		{name: "discovery-srv", kind: isText, says: "domain whose SRV records name the first members", state: done, at: func(o *options) any { return &o.cfg.DiscoverySRV }, example: "example.com"},
		{name: "discovery-srv-name", kind: isText, says: "suffix of the service in these records", state: done, at: func(o *options) any { return &o.cfg.DiscoverySRVName }, example: "x"},
		service("discovery-endpoints", isList, "", "endpoints of a cluster in which the first members find each other, in place of --initial-cluster", "h:1", func(d *discovery) any { return &d.endpoints }),
		service("discovery-token", isText, "", "token of the new cluster there; also its --initial-cluster-token", "t", func(d *discovery) any { return &d.token }),
		service("discovery-dial-timeout", isDuration, "2s", "time to reach the discovery service", "1s", func(d *discovery) any { return &d.dialTimeout }),
		service("discovery-request-timeout", isDuration, "5s", "time for one request to it", "1s", func(d *discovery) any { return &d.requestTimeout }),
		service("discovery-keepalive-time", isDuration, "2s", "silence after which the connection to it is probed", "1s", func(d *discovery) any { return &d.keepAliveTime }),
		service("discovery-keepalive-timeout", isDuration, "6s", "time for the answer to that", "1s", func(d *discovery) any { return &d.keepAliveTimeout }),
		service("discovery-insecure-transport", isSwitch, "true", "reach the discovery service without TLS", "false", func(d *discovery) any { return &d.insecureTransport }),
		service("discovery-insecure-skip-tls-verify", isSwitch, "", "do not check its certificate", "true", func(d *discovery) any { return &d.insecureVerify }),
		service("discovery-cert", isText, "", "certificate file shown to it", "f", func(d *discovery) any { return &d.cert }),
		service("discovery-key", isText, "", "key file of that certificate", "f", func(d *discovery) any { return &d.key }),
		service("discovery-cacert", isText, "", "file with the authority of its certificate", "f", func(d *discovery) any { return &d.caCert }),
		service("discovery-user", isText, "", "user there, or USER:PASSWORD", "u", func(d *discovery) any { return &d.user }),
		service("discovery-password", isText, "", "password there", "p", func(d *discovery) any { return &d.password }),
		{name: "discovery-fallback", kind: isText, initial: "exit", says: "what to do when discovery fails", state: refused, why: "a member that does not find its cluster exits; there is no proxy mode", example: "proxy"},
	}
}

func requestRows() []row {
	return []row{
		{name: "max-txn-ops", kind: isNumber, initial: "128", says: "operations in one transaction", state: done, at: func(o *options) any { return &o.cfg.TxnOpsMax }, example: "7"},
		{name: "max-request-bytes", kind: isNumber, initial: "1572864", says: "bytes of one request", state: done, at: func(o *options) any { return &o.cfg.RequestBytesMax }, example: "7"},
		{name: "max-concurrent-streams", kind: isNumber, initial: "4294967295", says: "calls at a time on one connection", state: done, at: func(o *options) any { return &o.cfg.ConcurrentStreamsMax }, example: "7"},
		{name: "client-buffer-bytes", kind: isNumber, initial: fmt.Sprint(512 << 20), says: "bytes that may wait for clients which do not read: half for watches, half for streams of ranges", state: done, ours: true, at: func(o *options) any { return &o.cfg.ClientBufferBytes }, example: "67108864"},
		{name: "grpc-keepalive-min-time", kind: isDuration, initial: "5s", says: "how often a client may probe its connection", state: done, at: func(o *options) any { return &o.cfg.KeepAliveMinTime }, example: "1s"},
		{name: "grpc-keepalive-interval", kind: isDuration, initial: "2h0m0s", says: "silence after which this member probes one; 0: never", state: done, at: func(o *options) any { return &o.cfg.KeepAliveInterval }, example: "1h"},
		{name: "grpc-keepalive-timeout", kind: isDuration, initial: "20s", says: "time for the answer to that", state: done, at: func(o *options) any { return &o.cfg.KeepAliveTimeout }, example: "1s"},
		{name: "auto-compaction-mode", kind: isText, initial: "periodic", says: "what auto-compaction counts: periodic (time) or revision", state: done, at: func(o *options) any { return &o.cfg.AutoCompactionMode }, example: "revision"},
		{name: "auto-compaction-retention", kind: isText, initial: "0", says: "history that auto-compaction keeps: hours or a duration, or a number of revisions; 0: off", state: done, at: func(o *options) any { return &o.cfg.AutoCompactionRetention }, example: "1h"},
		{name: "compaction-batch-limit", kind: isNumber, says: "revisions that compaction removes at a time", state: accepted, why: "old versions go when the base is merged, which yields to requests", example: "1"},
		{name: "compaction-sleep-interval", kind: isDuration, says: "pause between two of these", state: accepted, why: "as for compaction-batch-limit", example: "1s"},
		{name: "watch-progress-notify-interval", kind: isDuration, says: "time between progress notices on idle watches; 0: 10m", state: done, at: func(o *options) any { return &o.cfg.WatchProgressInterval }, example: "1s"},
		{name: "warning-unary-request-duration", kind: isDuration, initial: "300ms", says: "log requests that take longer", state: done, at: func(o *options) any { return &o.cfg.SlowRequest }, example: "1s"},
		{name: "warning-apply-duration", kind: isDuration, initial: "100ms", says: "log entries that take longer to apply", state: done, at: func(o *options) any { return &o.cfg.SlowApply }, example: "1s"},
	}
}

func securityRows() []row {
	rows := append(tlsRows("", "clients"), tlsRows("peer-", "other members")...)
	return append(rows, []row{
		{name: "client-cert-file", kind: isText, says: "certificate file for dialing clients' port, in place of cert-file", state: accepted, why: "a member does not dial itself: JSON becomes calls inside the process", example: "f"},
		{name: "client-key-file", kind: isText, says: "key file of that certificate", state: accepted, why: "as for client-cert-file", example: "f"},
		{name: "peer-client-cert-file", kind: isText, says: "certificate file for dialing other members, in place of peer-cert-file", state: done, at: func(o *options) any { return &o.cfg.PeerTLS.ClientCertFile }, example: "f"},
		{name: "peer-client-key-file", kind: isText, says: "key file of that certificate", state: done, at: func(o *options) any { return &o.cfg.PeerTLS.ClientKeyFile }, example: "f"},
		{name: "auto-tls", kind: isSwitch, says: "make a certificate for clients where none is given", state: done, at: func(o *options) any { return &o.cfg.ClientTLS.Auto }, example: "true"},
		{name: "peer-auto-tls", kind: isSwitch, says: "make a certificate for other members where none is given", state: done, at: func(o *options) any { return &o.cfg.PeerTLS.Auto }, example: "true"},
		{name: "self-signed-cert-validity", kind: isNumber, initial: "1", says: "years that such a certificate is valid", state: done, at: func(o *options) any { return &o.cfg.SelfSignedYears }, example: "2"},
		{name: "client-crl-file", kind: isText, says: "file with revoked certificates of clients", state: done, at: func(o *options) any { return &o.cfg.ClientTLS.CRLFile }, example: "f"},
		{name: "peer-crl-file", kind: isText, says: "file with revoked certificates of members", state: done, at: func(o *options) any { return &o.cfg.PeerTLS.CRLFile }, example: "f"},
		{name: "client-cert-allowed-cn", kind: isList, says: "common names that certificates of clients may have", state: done, at: func(o *options) any { return &o.cfg.ClientTLS.AllowedNames }, example: "a", ours: true},
		{name: "client-cert-allowed-hostname", kind: isList, says: "host names, one of which a certificate of a client must be for", state: done, at: func(o *options) any { return &o.cfg.ClientTLS.AllowedHosts }, example: "h"},
		{name: "peer-cert-allowed-cn", kind: isList, says: "common names that certificates of members may have", state: done, at: func(o *options) any { return &o.cfg.PeerTLS.AllowedNames }, example: "a"},
		{name: "peer-cert-allowed-hostname", kind: isList, says: "host names, one of which a certificate of a member must be for", state: done, at: func(o *options) any { return &o.cfg.PeerTLS.AllowedHosts }, example: "h"},
		{name: "peer-skip-client-san-verification", kind: isSwitch, says: "do not compare the address that a member comes from with its certificate", state: accepted, why: "it is never compared: behind address translation it is another one, and members say in each handshake who they are", example: "true"},
		{name: "cipher-suites", kind: isList, says: "cipher suites of TLS 1.2; left out: those of Go", state: done, at: func(o *options) any { return &o.cfg.CipherSuites }, example: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"},
		{name: "tls-min-version", kind: isText, initial: "TLS1.2", says: "oldest TLS that is spoken: TLS1.2 or TLS1.3", state: done, at: func(o *options) any { return &o.cfg.TLSMinVersion }, example: "TLS1.3"},
		{name: "tls-max-version", kind: isText, says: "newest TLS that is spoken; left out: the newest of Go", state: done, at: func(o *options) any { return &o.cfg.TLSMaxVersion }, example: "TLS1.2"},
	}...)
}

func tlsRows(prefix, who string) []row {
	at := func(o *options) *tlsFiles {
		if prefix == "" {
			return &o.cfg.ClientTLS
		}
		return &o.cfg.PeerTLS
	}
	return []row{
		{name: prefix + "cert-file", kind: isText, says: "certificate file shown to " + who, state: done, at: func(o *options) any { return &at(o).CertFile }, example: "f"},
		{name: prefix + "key-file", kind: isText, says: "key file of that certificate", state: done, at: func(o *options) any { return &at(o).KeyFile }, example: "f"},
		{name: prefix + "trusted-ca-file", kind: isText, says: "file with the authorities that may sign certificates of " + who, state: done, at: func(o *options) any { return &at(o).CAFile }, example: "f"},
		{name: prefix + "client-cert-auth", kind: isSwitch, says: "demand a certificate of " + who, state: done, at: func(o *options) any { return &at(o).ClientCertAuth }, example: "true"},
	}
}

func authRows() []row {
	return []row{
		{name: "auth-token", kind: isText, initial: "simple", says: "what tokens of users are: simple, or jwt,pub-key=FILE,priv-key=FILE,sign-method=METHOD,ttl=DURATION", state: done, at: func(o *options) any { return &o.cfg.AuthToken }, example: "jwt"},
		{name: "bcrypt-cost", kind: isNumber, initial: "10", says: "work to hash a password, 4 to 31: each step doubles the time", state: done, at: func(o *options) any { return &o.cfg.BcryptCost }, example: "4"},
		{name: "auth-token-ttl", kind: isSeconds, initial: "300", says: "how long a simple token is good for without use", state: done, at: func(o *options) any { return &o.cfg.AuthTokenTTL }, example: "1"},
	}
}

func httpRows() []row {
	return []row{
		{name: "listen-client-http-urls", kind: isList, says: "URLs that answer plain HTTP; those of listen-client-urls answer gRPC alone then", state: done, at: func(o *options) any { return &o.cfg.ListenClientHTTPURLs }, example: "http://localhost:1"},
		{name: "listen-metrics-urls", kind: isList, says: "more URLs that answer /metrics and /health", state: done, at: func(o *options) any { return &o.cfg.ListenMetricsURLs }, example: "http://localhost:1"},
		{name: "enable-grpc-gateway", kind: isSwitch, initial: "true", says: "answer JSON on /v3", state: done, at: func(o *options) any { return &o.cfg.EnableGateway }, example: "false"},
		{name: "cors", kind: isList, initial: "*", says: "origins whose pages may call", state: done, at: func(o *options) any { return &o.cfg.CORS }, example: "https://h"},
		{name: "host-whitelist", kind: isList, initial: "*", says: "names by which cleartext HTTP may call this member", state: done, at: func(o *options) any { return &o.cfg.HostWhitelist }, example: "h"},
	}
}

func monitoringRows() []row {
	return []row{
		{name: "enable-pprof", kind: isSwitch, says: "serve /debug/pprof on the client URLs", state: done, at: func(o *options) any { return &o.cfg.EnablePprof }, example: "true"},
		{name: "metrics", kind: isText, initial: "basic", says: "metrics to tell: basic, or extensive with the times of all calls", state: done, at: func(o *options) any { return &o.metrics }, example: "extensive"},
		{name: "enable-distributed-tracing", kind: isSwitch, says: "send traces of calls to a collector", state: done, at: func(o *options) any { return &o.cfg.Tracing.Enabled }, example: "true"},
		{name: "distributed-tracing-address", kind: isText, initial: "localhost:4317", says: "address of that collector, which speaks OTLP over gRPC", state: done, at: func(o *options) any { return &o.cfg.Tracing.Address }, example: "h:1"},
		{name: "distributed-tracing-service-name", kind: isText, initial: "etcd", says: "name of the service in traces, equal on all members", state: done, at: func(o *options) any { return &o.cfg.Tracing.Service }, example: "s"},
		{name: "distributed-tracing-instance-id", kind: isText, says: "name of this member in traces", state: done, at: func(o *options) any { return &o.cfg.Tracing.Instance }, example: "i"},
		{name: "distributed-tracing-sampling-rate", kind: isNumber, says: "traces to begin here, of a million calls; those begun by clients come beside", state: done, at: func(o *options) any { return &o.cfg.Tracing.PerMillion }, example: "1"},
	}
}

func loggingRows() []row {
	return []row{
		{name: "logger", kind: isText, initial: "zap", says: "who writes the log", state: refused, why: "there is one logger, and its lines look like zap's", example: "capnslog"},
		{name: "log-level", kind: isText, initial: "info", says: "debug, info, warn or error; SIGUSR1 changes to debug and back", state: done, at: func(o *options) any { return &o.logLevel }, example: "warn"},
		{name: "log-format", kind: isText, initial: "json", says: "json, or console for people", state: done, at: func(o *options) any { return &o.logFormat }, example: "console"},
		{name: "log-outputs", kind: isList, initial: "default", says: "where logs go: default (stderr), stderr, stdout and files", state: done, at: func(o *options) any { return &o.logOutputs }, example: "stdout"},
		{name: "enable-log-rotation", kind: isSwitch, says: "begin a new log file when one is full", state: done, at: func(o *options) any { return &o.rotateLogs }, example: "true"},
		{name: "log-rotation-config-json", kind: isText, initial: `{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}`, says: "when that is: megabytes, days, files kept, local time in their names, gzip", state: done, at: func(o *options) any { return &o.rotationConfig }, example: "{}"},
	}
}

func corruptionRows() []row {
	return []row{
		{name: "corrupt-check-time", kind: isDuration, says: "time between two comparisons of the members' states; 0: none but those of every second", state: done, at: func(o *options) any { return &o.cfg.CorruptCheckTime }, example: "1s"},
		{name: "compact-hash-check-time", kind: isDuration, initial: "1m0s", says: "time between two comparisons after compactions", state: done, at: func(o *options) any { return &o.cfg.CompactHashCheckTime }, example: "1s"},
	}
}

func archiveRows() []row {
	rows := []row{
		{name: "archive-url", kind: isText, says: "continuous archive: file:///folder or s3://bucket/prefix?region=…&endpoint=…", at: func(o *options) any { return &o.cfg.ArchiveURL }, example: "file:///a"},
		{name: "archive-mode", kind: isText, initial: "async", says: "async, or sync, where a write is answered once it is in the archive", at: func(o *options) any { return &o.cfg.ArchiveMode }, example: "sync"},
		{name: "archive-epoch", kind: isText, initial: "auto", says: "strict acknowledges nothing unless the archive told in the last 10 s that no operator has recovered this cluster elsewhere; off; auto is strict with --archive-mode sync, else off", at: func(o *options) any { return &o.cfg.ArchiveEpoch }, example: "strict"},
		{name: "archive-policy", kind: isText, initial: "gap", says: "when too much waits for the archive: gap, or stop-writes", at: func(o *options) any { return &o.cfg.ArchivePolicy }, example: "stop-writes"},
		{name: "archive-limit-bytes", kind: isNumber, initial: fmt.Sprint(4 << 30), says: "bytes of history that may wait for the archive", at: func(o *options) any { return &o.cfg.ArchiveLimitBytes }, example: "1000000"},
		{name: "archive-drill-interval", kind: isDuration, says: "time between two drills, which restore the archive into a scratch folder; 0: none", at: func(o *options) any { return &o.cfg.ArchiveDrillInterval }, example: "1h"},
		{name: "archive-recipients", kind: isList, says: "age public keys that the archive is encrypted for", at: func(o *options) any { return &o.cfg.ArchiveRecipients }, example: "age1"},
	}
	for i := range rows {
		rows[i].state, rows[i].ours = done, true
	}
	return rows
}

func otherRows() []row {
	return []row{
		{name: "config-file", kind: isText, says: "YAML file with all settings; other flags and variables are ignored then, as in etcd, and named in the log", state: done, at: func(o *options) any { return &o.configFile }, example: "f"},
		{name: "feature-gates", kind: isText, says: "NAME=true,… of features that are tried out", state: done, at: func(o *options) any { return &o.featureGates }, example: "FastLeaseKeepAlive=false"},
		{name: "unsafe-no-fsync", kind: isSwitch, says: "do not wait for the disk", state: refused, why: "a write that is answered is durable; for a cluster to throw away use a --data-dir in memory", example: "true"},
		{name: "version", kind: isSwitch, says: "print the version and exit", state: done, at: func(o *options) any { return &o.showVersion }, example: "true"},
	}
}

// oldRows are switches that etcd has taken and ignored for long.
func oldRows() []row {
	var rows []row
	for _, name := range []string{
		"cluster-active-size", "cluster-remove-delay", "cluster-sync-interval", "config", "force", "max-result-buffer", "max-retry-attempts",
		"peer-heartbeat-interval", "peer-election-timeout", "retry-interval", "snapshot", "v", "vv", "test.coverprofile", "test.outputdir",
	} {
		rows = append(rows, row{
			name: name, kind: isSwitch, says: "nothing any more", state: accepted, why: "etcd ignores it too",
			at: func(*options) any { return new(string) }, example: "anything",
		})
	}
	return rows
}
