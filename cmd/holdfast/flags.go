package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/server"
)

// options is what the command line and the environment say.
type options struct {
	cfg         server.Config
	logLevel    string
	logOutputs  string
	logFormat   string
	showVersion bool
	forceNew    bool
	failpoints
}

// flagSet declares every flag. A flag is named as in etcd where etcd has it;
// its default stands here and nowhere else.
func flagSet(o *options) *flag.FlagSet {
	fs := flag.NewFlagSet("holdfast", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // An error is told once, without the whole list.
	c := &o.cfg
	*c = server.DefaultConfig(nil)

	fs.StringVar(&c.Name, "name", "default", "`name` of this member, unique in the cluster")
	fs.StringVar(&c.DataDir, "data-dir", "", "`folder` for all data of this member (default NAME.holdfast)")
	fs.StringVar(&c.WALDir, "wal-dir", "", "`folder` for the Raft log, if it shall be elsewhere")
	urlsVar(fs, &c.ListenPeerURLs, "listen-peer-urls", "http://localhost:2380", "`URLs` to listen on for other members, comma-separated")
	urlsVar(fs, &c.ListenClientURLs, "listen-client-urls", "http://localhost:2379", "`URLs` to listen on for clients")
	urlsVar(fs, &c.ListenMetricsURLs, "listen-metrics-urls", "", "more `URLs` that answer /metrics and /health")
	urlsVar(fs, &c.AdvertisePeerURLs, "initial-advertise-peer-urls", "", "`URLs` by which other members reach this one (default: those listened on)")
	urlsVar(fs, &c.AdvertiseClientURLs, "advertise-client-urls", "", "`URLs` by which clients reach this one (default: those listened on)")
	fs.StringVar(&c.InitialCluster, "initial-cluster", "", "`NAME=URL,…` of all first members (default: this one alone)")
	fs.StringVar(&c.InitialClusterState, "initial-cluster-state", server.StateNew, "`new`, or existing to join a running cluster; ignored when there is data")
	fs.StringVar(&c.InitialClusterToken, "initial-cluster-token", "etcd-cluster", "`token` that keeps two clusters with equal URLs apart")

	fs.BoolVar(&o.forceNew, "force-new-cluster", false, "start as the only member of a new cluster, with all that this member's log holds; the old directory is kept")

	millisVar(fs, &c.HeartbeatInterval, "heartbeat-interval", 100*time.Millisecond, "`milliseconds` between heartbeats of the leader")
	millisVar(fs, &c.ElectionTimeout, "election-timeout", time.Second, "`milliseconds` without a leader until an election")
	fs.BoolVar(&c.PreVote, "pre-vote", true, "ask before an election whether it could be won")
	fs.Uint64Var(&c.SnapshotCatchUpEntries, "snapshot-catchup-entries", 5000, "log `entries` kept for slow members after a checkpoint")
	fs.Uint64("snapshot-count", 10000, "accepted without effect: checkpoints follow `entries`' bytes and time")
	fs.Int64Var(&c.QuotaBytes, "quota-backend-bytes", 0, "`bytes` that the store may reach (0: 2 GiB; negative: no quota)")
	fs.IntVar(&c.TxnOpsMax, "max-txn-ops", server.TxnOpsMaxDefault, "`operations` in one transaction")
	fs.IntVar(&c.RequestBytesMax, "max-request-bytes", server.RequestBytesMaxDefault, "`bytes` of one request")
	fs.IntVar(&c.LearnersMax, "max-learners", server.LearnersMaxDefault, "`learners` at a time")
	fs.BoolVar(&c.StrictReconfigCheck, "strict-reconfig-check", true, "refuse changes of members that would lose the quorum")
	fs.StringVar(&c.AutoCompactionMode, "auto-compaction-mode", "periodic", "`mode`: periodic, or revision")
	fs.StringVar(&c.AutoCompactionRetention, "auto-compaction-retention", "0", "how much history auto-compaction keeps: hours or a `duration`, or a number of revisions; 0 turns it off")
	fs.DurationVar(&c.WatchProgressInterval, "watch-progress-notify-interval", 10*time.Minute, "`duration` between progress notices on idle watches")
	fs.DurationVar(&c.SlowRequest, "warning-unary-request-duration", 300*time.Millisecond, "log requests that take longer than this `duration`")
	fs.BoolVar(&c.EnablePprof, "enable-pprof", false, "serve /debug/pprof on the client URLs")

	fs.StringVar(&c.ArchiveURL, "archive-url", "", "`URL` of the continuous archive: file:///folder or s3://bucket/prefix?region=…&endpoint=…")
	fs.StringVar(&c.ArchiveMode, "archive-mode", server.ArchiveAsync, "`mode`: async, or sync, where a write is answered once it is in the archive")
	fs.StringVar(&c.ArchivePolicy, "archive-policy", "gap", "`policy` when too much waits for the archive: gap, or stop-writes")
	fs.Int64Var(&c.ArchiveLimitBytes, "archive-limit-bytes", 4<<30, "`bytes` of history that may wait for the archive")
	fs.DurationVar(&c.ArchiveDrillInterval, "archive-drill-interval", 0, "`duration` between two drills, which restore the archive into a scratch folder; 0 turns them off")
	urlsVar(fs, &c.ArchiveRecipients, "archive-recipients", "", "age public `keys` that the archive is encrypted for, comma-separated")

	tlsVars(fs, &c.ClientTLS, "", "clients")
	tlsVars(fs, &c.PeerTLS, "peer-", "other members")

	fs.StringVar(&c.AuthToken, "auth-token", "simple", "`kind` of token for users: simple, or jwt,pub-key=FILE,priv-key=FILE,sign-method=METHOD,ttl=DURATION")
	secondsVar(fs, &c.AuthTokenTTL, "auth-token-ttl", server.AuthTokenTTLDefault, "`seconds` that a simple token lives without use")
	fs.IntVar(&c.BcryptCost, "bcrypt-cost", 10, "`cost` of a password's hash, 4 to 31: each step doubles the time")

	fs.StringVar(&o.logLevel, "log-level", "info", "`level`: debug, info, warn or error")
	fs.StringVar(&o.logOutputs, "log-outputs", "stderr", "`where` logs go: stderr, stdout or a file")
	fs.StringVar(&o.logFormat, "log-format", "json", "`format` of logs: json, or console for people")
	fs.BoolVar(&o.showVersion, "version", false, "print the version and exit")
	return fs
}

func tlsVars(fs *flag.FlagSet, t *server.TLS, prefix, who string) {
	fs.StringVar(&t.CertFile, prefix+"cert-file", "", "certificate `file` shown to "+who)
	fs.StringVar(&t.KeyFile, prefix+"key-file", "", "key `file` of that certificate")
	fs.StringVar(&t.CAFile, prefix+"trusted-ca-file", "", "`file` with the authorities that may sign certificates of "+who)
	fs.BoolVar(&t.ClientCertAuth, prefix+"client-cert-auth", false, "demand a certificate of "+who)
	if prefix != "" {
		fs.StringVar(&t.ClientCertFile, prefix+"client-cert-file", "", "certificate `file` for dialing, in place of "+prefix+"cert-file")
		fs.StringVar(&t.ClientKeyFile, prefix+"client-key-file", "", "key `file` of that certificate")
	}
}

// later names flags of etcd that this version does not know yet, so that a
// unit file is refused by name rather than run without what it asks for.
var later = []string{
	"auto-tls", "peer-auto-tls", "client-crl-file", "peer-crl-file",
	"client-cert-allowed-hostname", "peer-cert-allowed-cn", "peer-cert-allowed-hostname", "cipher-suites",
	"tls-min-version", "tls-max-version", "listen-client-http-urls", "config-file",
	"corrupt-check-time", "compact-hash-check-time", "compact-hash-check-enabled", "feature-gates", "cors",
	"host-whitelist", "metrics", "max-concurrent-streams", "grpc-keepalive-min-time", "grpc-keepalive-interval",
	"grpc-keepalive-timeout", "compaction-batch-limit", "discovery-srv", "discovery-token", "socket-reuse-port",
	"socket-reuse-address", "distributed-tracing-address", "enable-distributed-tracing", "logger", "max-snapshots",
	"max-wals", "compaction-sleep-interval", "downgrade-check-time", "max-concurrent-requests",
}

// parse reads flags, then the environment for what the flags left out.
func parse(args []string, environ []string, help io.Writer) (*options, error) {
	o := &options{}
	fs := flagSet(o)
	o.failpointFlags(fs)
	for _, arg := range args {
		name := strings.TrimLeft(arg, "-")
		name, _, _ = strings.Cut(name, "=")
		if strings.HasPrefix(arg, "-") && slices.Contains(unbuilt, name) {
			return nil, fmt.Errorf("flag --%s is in builds for tests alone: leave it out, or build with go build -tags failpoints ./cmd/holdfast", name)
		}
		if strings.HasPrefix(arg, "-") && slices.Contains(later, name) {
			return nil, fmt.Errorf("flag --%s is not supported by this version: leave it out", name)
		}
	}
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fs.SetOutput(help)
		fmt.Fprintln(help, "holdfast runs a member of a cluster; holdfast dev runs three on this machine. Flags, also as variables HOLDFAST_NAME or ETCD_NAME:")
		fs.PrintDefaults()
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: see holdfast --help", err)
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag: flags begin with --, see holdfast --help", fs.Arg(0))
	}
	return o, fromEnvironment(fs, environ)
}

// fromEnvironment sets each flag that was not given from HOLDFAST_NAME or
// ETCD_NAME. Variables without a flag are nobody's business.
func fromEnvironment(fs *flag.FlagSet, environ []string) error {
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var bad error
	fs.VisitAll(func(f *flag.Flag) {
		if given[f.Name] || bad != nil {
			return
		}
		name := strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		for _, prefix := range []string{"HOLDFAST_", "ETCD_"} {
			value, ok := lookup(environ, prefix+name)
			if !ok {
				continue
			}
			if err := fs.Set(f.Name, value); err != nil {
				bad = fmt.Errorf("environment variable %s is %q: %w", prefix+name, value, err)
			}
			return
		}
	})
	return bad
}

func lookup(environ []string, name string) (string, bool) {
	for _, kv := range environ {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// urls is a comma-separated list; the last one given wins.
type urls struct{ list *[]string }

func urlsVar(fs *flag.FlagSet, p *[]string, name, def, usage string) {
	v := urls{p}
	v.Set(def) // Cannot fail.
	fs.Var(v, name, usage)
}

func (u urls) String() string {
	if u.list == nil {
		return ""
	}
	return strings.Join(*u.list, ",")
}

func (u urls) Set(s string) error {
	*u.list = nil
	for _, part := range strings.Split(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*u.list = append(*u.list, part)
		}
	}
	return nil
}

// millis is a number of milliseconds, as etcd's timing flags are.
type millis struct{ d *time.Duration }

func millisVar(fs *flag.FlagSet, p *time.Duration, name string, def time.Duration, usage string) {
	*p = def
	fs.Var(millis{p}, name, usage)
}

func (m millis) String() string {
	if m.d == nil {
		return ""
	}
	return strconv.FormatInt(m.d.Milliseconds(), 10)
}

func (m millis) Set(s string) error {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 {
		return fmt.Errorf("%q is not a positive number of milliseconds", s)
	}
	*m.d = time.Duration(n) * time.Millisecond
	return nil
}

// seconds is a number of seconds, as etcd's flags about tokens are.
type seconds struct{ d *time.Duration }

func secondsVar(fs *flag.FlagSet, p *time.Duration, name string, def time.Duration, usage string) {
	*p = def
	fs.Var(seconds{p}, name, usage)
}

func (s seconds) String() string {
	if s.d == nil {
		return ""
	}
	return strconv.FormatInt(int64(*s.d/time.Second), 10)
}

func (s seconds) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return fmt.Errorf("%q is not a number of seconds", text)
	}
	*s.d = time.Duration(n) * time.Second
	return nil
}

// logOutput opens where logs go.
func (o *options) logOutput() (io.Writer, error) {
	switch o.logOutputs {
	case "stderr", "default", "":
		return os.Stderr, nil
	case "stdout":
		return os.Stdout, nil
	}
	f, err := os.OpenFile(o.logOutputs, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--log-outputs: %w", err)
	}
	return f, nil
}
