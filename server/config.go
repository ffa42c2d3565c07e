package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/crypto/bcrypt"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/raftnode/transport"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot/archive"
)

// States of the cluster that a member without data is started into.
const (
	StateNew      = "new"
	StateExisting = "existing"
)

// TLS says which files secure one kind of connection.
type TLS struct {
	CertFile       string // Chain and key of the server, and of the client unless told apart.
	KeyFile        string
	ClientCertFile string // Shown when dialing other members, in place of CertFile.
	ClientKeyFile  string
	CAFile         string // Who may sign the other side.
	ClientCertAuth bool   // Demand a certificate of the other side. Implied by CAFile when accepting.
	CRLFile        string // Certificates of the other side that are good no more; read again when it changes.
	// AllowedNames are the common names that certificates of the other side may
	// have, AllowedHosts the hosts one of which they must be for. Default: any.
	AllowedNames []string
	AllowedHosts []string
	Auto         bool // Make a certificate without authority where CertFile is empty.
}

// Config says how a member runs. The zero value of a field means its default.
//
// It has many fields because it is the whole of what an operator can choose;
// each belongs to one flag of the same name.
type Config struct {
	Name    string // Of this member, unique in the cluster. Default "default".
	DataDir string // Default NAME.holdfast.
	WALDir  string // The Raft log, if it shall lie on another disk. Default DATADIR/wal.
	// WALSegmentBytes is the size of a file of the Raft log, which is written in full
	// before its first use, as is the next. Default 64 MiB; members that live for a
	// test want small ones.
	WALSegmentBytes int64

	ListenPeerURLs   []string // Default http://localhost:2380.
	ListenClientURLs []string // Default http://localhost:2379.
	// ListenClientHTTPURLs answer plain HTTP, and ListenClientURLs gRPC alone then.
	// Default: the latter answer both.
	ListenClientHTTPURLs []string
	ListenMetricsURLs    []string // More addresses for /metrics and /health.
	AdvertisePeerURLs    []string // How other members reach this one. Default: the listen URLs.
	AdvertiseClientURLs  []string // How clients reach this one. Default: the listen URLs.

	InitialCluster      string // NAME=URL,… of all first members. Default: this one alone.
	InitialClusterState string // StateNew or StateExisting. Ignored when there is data.
	InitialClusterToken string // Keeps two clusters with equal URLs apart. Default "etcd-cluster", as etcd.

	// DiscoverySRV is a domain whose SRV records name the first members, in place of
	// InitialCluster: _etcd-server-ssl._tcp and _etcd-server._tcp, with a dash and
	// DiscoverySRVName behind the service if there is one.
	DiscoverySRV     string
	DiscoverySRVName string
	Resolver         Resolver // Default: the system's.

	// Discovery is asked for the first members, in place of InitialCluster, where
	// there is no data yet.
	Discovery Discovery

	HeartbeatInterval time.Duration // Default 100 ms.
	ElectionTimeout   time.Duration // Default 1 s; at least five heartbeats.

	// RepairTimeout is how long a member whose state is damaged looks for a peer
	// that has one, before it gives up. Default 5 min.
	RepairTimeout time.Duration
	// ScrubInterval is the pause between two passes of the scrubber. Default 1 h.
	ScrubInterval time.Duration

	SnapshotCatchUpEntries uint64 // Entries kept for slow followers. Default 5000.
	QuotaBytes             int64  // Default 2 GiB. Negative: no quota.
	DefragmentAtStart      int64  // Defragment before serving where that frees as many bytes. Default: never.
	AwayOnDefragment       bool   // Say NOT_SERVING on gRPC's health service during a defragmentation.
	TxnOpsMax              int    // Default 128.
	RequestBytesMax        int    // Default 1.5 MiB.
	ConcurrentStreamsMax   uint32 // Per connection. Default: no limit.
	ClientBufferBytes      int64  // That may wait for clients that do not read, in watches and streams of ranges. Default ClientBufferBytesDefault.
	LearnersMax            int    // Default 1.
	StrictReconfigCheck    bool   // Set by DefaultConfig: refuse changes of members that would lose the quorum.

	// LearnerAutoPromote has the leader give each learner its vote once it keeps up.
	LearnerAutoPromote bool

	KeepAliveMinTime  time.Duration // How often clients may probe a connection. Default 5 s.
	KeepAliveInterval time.Duration // Silence after which this member does. Set by DefaultConfig: 2 h; 0: never.
	KeepAliveTimeout  time.Duration // For the answer to that. Default 20 s.

	InitialCorruptCheck  bool          // Refuse to serve with other keys than another member has.
	CorruptCheckTime     time.Duration // Between comparisons of all keys of the members. Default: never.
	CompactHashCheck     bool          // Compare all keys as of each compaction.
	CompactHashCheckTime time.Duration // Between looks whether there was one. Default 1 min.

	AutoCompactionMode      string        // "periodic" or "revision".
	AutoCompactionRetention string        // A duration or hours, or a number of revisions. "0": off.
	WatchProgressInterval   time.Duration // Default 10 min.
	SlowRequest             time.Duration // Longer ones are logged. Default 300 ms.
	SlowApply               time.Duration // Batches of entries that take longer to apply are logged. Default 100 ms.
	ExtensiveMetrics        bool          // Tell the time of each kind of call, too.

	// ArchiveURL is where the continuous archive is kept: file:///folder or
	// s3://bucket/prefix?…. Default: there is none.
	ArchiveURL string
	// ArchiveMode is ArchiveAsync, the default, or ArchiveSync: a write is answered
	// once it is in the archive, and an archive that is down stops writes.
	ArchiveMode string
	// ArchiveEpoch is EpochAuto, the default, EpochStrict or EpochOff: whether the
	// member stops to acknowledge when it can not see in the archive that its
	// cluster was not given up.
	ArchiveEpoch string
	// ArchivePolicy says what happens when more history waits than ArchiveLimitBytes
	// (default 4 GiB): "gap", the default, or "stop-writes".
	ArchivePolicy     string
	ArchiveLimitBytes int64
	ArchiveRecipients []string // age public keys that objects are encrypted for. Default: they are not.
	// ArchiveDrillInterval is how often the newest point is restored into a scratch
	// folder, by the member that archives. Default: never.
	ArchiveDrillInterval time.Duration

	ClientTLS TLS
	PeerTLS   TLS

	CipherSuites    []string // Of TLS 1.2, by name. Default: those of Go.
	TLSMinVersion   string   // "TLS1.2", the default, or "TLS1.3".
	TLSMaxVersion   string   // The same. Default: the newest of Go.
	SelfSignedYears int      // How long a certificate of TLS.Auto is valid. Default 1.

	Tracing Tracing // Default: off, which costs nothing.

	SocketReusePort bool // Let other processes listen on the same ports.
	EnablePprof     bool // /debug/pprof on the client URLs.

	EnableGateway bool     // Set by DefaultConfig: answer JSON on /v3 of the client URLs.
	CORS          []string // Origins whose pages may call. Default: all.
	HostWhitelist []string // Names by which cleartext HTTP may call, against DNS rebinding. Default: all.

	// AuthToken is what users get who log in: "simple", the default, or
	// "jwt,pub-key=FILE,priv-key=FILE,sign-method=METHOD,ttl=DURATION".
	AuthToken    string
	AuthTokenTTL time.Duration // Of a simple token that is not used. Default 300 s.
	BcryptCost   int           // Of hashes of new passwords; each step doubles the time. Default 10.

	// ProtocolVersion is the version of etcd that clients are told. Default: the one tested against.
	ProtocolVersion string

	Logger hclog.Logger // Required.
	FS     vfs.FS       // Default: the operating system's.
	Clock  clock.Clock  // Default: the real one.
	Rand   io.Reader    // Source of IDs and nonces. Default: the system's.

	// Listen opens a listener for an address of a URL; default net.Listen. Programs
	// that embed a member pass listeners of their own by it.
	Listen func(network, address string) (net.Listener, error)
}

// DefaultConfig is what a member runs with when nothing is said.
func DefaultConfig(log hclog.Logger) Config {
	return Config{
		Logger: log, StrictReconfigCheck: true, EnableGateway: true,
		KeepAliveInterval: keepaliveInterval,
	}
}

// withDefaults fills in what was left out.
func (c Config) withDefaults() Config {
	set(&c.CompactHashCheckTime, compactHashCheckDefault)
	set(&c.KeepAliveMinTime, keepaliveMin)
	set(&c.KeepAliveTimeout, keepaliveTimeout)
	set(&c.Name, "default")
	set(&c.DataDir, c.Name+".holdfast")
	if len(c.ListenPeerURLs) == 0 {
		c.ListenPeerURLs = []string{"http://localhost:2380"}
	}
	if len(c.ListenClientURLs) == 0 {
		c.ListenClientURLs = []string{"http://localhost:2379"}
	}
	if len(c.AdvertisePeerURLs) == 0 {
		c.AdvertisePeerURLs = c.ListenPeerURLs
	}
	if len(c.AdvertiseClientURLs) == 0 {
		c.AdvertiseClientURLs = c.ListenClientURLs
	}
	if c.DiscoverySRV == "" && c.Discovery == nil {
		set(&c.InitialCluster, initialOf(c.Name, c.AdvertisePeerURLs))
	}
	set(&c.SelfSignedYears, 1)
	set(&c.Tracing.Address, "localhost:4317")
	set(&c.Tracing.Service, "etcd")
	set(&c.InitialClusterState, StateNew)
	set(&c.InitialClusterToken, "etcd-cluster")
	set(&c.HeartbeatInterval, 100*time.Millisecond)
	set(&c.ElectionTimeout, time.Second)
	set(&c.SnapshotCatchUpEntries, 5000)
	set(&c.RepairTimeout, repairTimeoutDefault)
	set(&c.ScrubInterval, scrubIntervalDefault)
	set(&c.QuotaBytes, QuotaBytesDefault)
	set(&c.TxnOpsMax, TxnOpsMaxDefault)
	set(&c.RequestBytesMax, RequestBytesMaxDefault)
	set(&c.LearnersMax, LearnersMaxDefault)
	set(&c.AutoCompactionMode, compactPeriodic)
	set(&c.AutoCompactionRetention, "0")
	set(&c.WatchProgressInterval, watchProgressIntervalDefault)
	set(&c.SlowRequest, 300*time.Millisecond)
	set(&c.SlowApply, 100*time.Millisecond)
	set(&c.ProtocolVersion, ProtocolVersion)
	set(&c.AuthToken, tokenSimple)
	set(&c.AuthTokenTTL, AuthTokenTTLDefault)
	set(&c.BcryptCost, bcrypt.DefaultCost)
	set(&c.ArchiveMode, ArchiveAsync)
	set(&c.ArchiveEpoch, EpochAuto)
	set(&c.ArchivePolicy, string(archive.PolicyGap))
	set(&c.ArchiveLimitBytes, archive.LimitBytesDefault)
	set(&c.ClientBufferBytes, ClientBufferBytesDefault)
	if c.FS == nil {
		c.FS = vfs.OS()
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Rand == nil {
		c.Rand = systemRand
	}
	if c.Listen == nil {
		c.Listen = listenOf(c.SocketReusePort)
	}
	if c.Resolver == nil {
		c.Resolver = net.DefaultResolver
	}
	return c
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func initialOf(name string, urls []string) string {
	parts := make([]string, len(urls))
	for i, u := range urls {
		parts[i] = name + "=" + u
	}
	return strings.Join(parts, ",")
}

// Validate reports all that is wrong, each with its mend.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Logger == nil {
		bad("Logger is missing: set Config.Logger")
	}
	for _, l := range []struct {
		flag  string
		urls  []string
		check func(string) error
	}{
		{"listen-peer-urls", c.ListenPeerURLs, checkURL}, {"listen-client-urls", c.ListenClientURLs, checkClientURL},
		{"listen-client-http-urls", c.ListenClientHTTPURLs, checkClientURL}, {"listen-metrics-urls", c.ListenMetricsURLs, checkClientURL},
		{"initial-advertise-peer-urls", c.AdvertisePeerURLs, checkURL}, {"advertise-client-urls", c.AdvertiseClientURLs, checkClientURL},
	} {
		for _, u := range l.urls {
			if err := l.check(u); err != nil {
				bad("--%s: %w", l.flag, err)
			}
		}
	}
	if c.ElectionTimeout < 5*c.HeartbeatInterval {
		bad("--election-timeout[%v] should be at least as 5 times as --heartbeat-interval[%v]", c.ElectionTimeout, c.HeartbeatInterval)
	}
	if c.ElectionTimeout > 50*time.Second {
		bad("--election-timeout[%v] is too long, and should be set less than 50s", c.ElectionTimeout)
	}
	if most := c.requestBytesMost(); c.RequestBytesMax > most {
		bad("--max-request-bytes[%d] is more than the Raft log and the way to other members take: use at most %d", c.RequestBytesMax, most)
	}
	if c.InitialClusterState != StateNew && c.InitialClusterState != StateExisting {
		bad("--initial-cluster-state is %q: use %q or %q", c.InitialClusterState, StateNew, StateExisting)
	}
	if ways := c.waysToMembers(); len(ways) > 1 {
		bad("%s all name the first members: give one of them", strings.Join(ways, " and "))
	}
	if c.Discovery != nil && c.InitialClusterState == StateExisting {
		bad("--discovery-token makes a new cluster, --initial-cluster-state=existing joins one that runs: name its members by --initial-cluster")
	}
	if _, err := parseInitialCluster(c.InitialCluster); err != nil {
		bad("--initial-cluster: %w", err)
	}
	if _, err := parseRetention(c.AutoCompactionMode, c.AutoCompactionRetention); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, c.checkSigns(), c.checkClients(), c.checkAuth(), c.checkArchive(), c.checkTLS(), c.Tracing.check())
	return errors.Join(errs...)
}

// checkSigns reports what is negative and means nothing then.
func (c Config) checkSigns() error {
	var errs []error
	for _, f := range []struct {
		flag  string
		value int64
	}{
		{"max-txn-ops", int64(c.TxnOpsMax)}, {"max-request-bytes", int64(c.RequestBytesMax)}, {"max-learners", int64(c.LearnersMax)},
		{"watch-progress-notify-interval", int64(c.WatchProgressInterval)}, {"grpc-keepalive-min-time", int64(c.KeepAliveMinTime)},
		{"grpc-keepalive-interval", int64(c.KeepAliveInterval)}, {"grpc-keepalive-timeout", int64(c.KeepAliveTimeout)},
		{"warning-unary-request-duration", int64(c.SlowRequest)}, {"warning-apply-duration", int64(c.SlowApply)},
		{"corrupt-check-time", int64(c.CorruptCheckTime)}, {"compact-hash-check-time", int64(c.CompactHashCheckTime)},
	} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("--%s is negative: leave it out for its default", f.flag))
		}
	}
	return errors.Join(errs...)
}

// requestBytesMost is the largest request that fits a file of the Raft log, and a
// frame to another member: a larger one would end every member that tries.
func (c *Config) requestBytesMost() int {
	segment := c.WALSegmentBytes
	if segment == 0 {
		segment = wal.SegmentBytesDefault
	}
	return min(int(segment)-entryOverheadBytes, transport.FrameBytesMaxDefault-frameOverheadBytes)
}

// checkClientURL is checkURL for what clients reach: a socket of this host, too.
func checkClientURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || !isUnix(u) {
		return checkURL(raw)
	}
	if n := len(u.Host + u.Path); n == 0 || n > socketPathMax {
		return fmt.Errorf("%q needs the path of a socket of at most %d bytes, as in unix:///run/holdfast.sock", raw, socketPathMax)
	}
	return nil
}

// isUnix tells whether a URL names a socket of this host: its path is all that
// follows unix://, as in etcd.
func isUnix(u *url.URL) bool { return u.Scheme == "unix" || u.Scheme == "unixs" }

func checkURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return fmt.Errorf("%q is not a URL: %w", raw, err)
	}
	switch u.Scheme {
	case "http", "https":
	case "unix", "unixs":
		return fmt.Errorf("%q names a socket of one host: members reach each other by http or https", raw)
	default:
		return fmt.Errorf("%q has scheme %q: use http or https", raw, u.Scheme)
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		return fmt.Errorf("%q needs a host and a port, as in http://127.0.0.1:2379: %w", raw, err)
	}
	if u.Path != "" && u.Path != "/" {
		return fmt.Errorf("%q has a path: leave it out", raw)
	}
	return nil
}

// waysToMembers are the settings that name the first members.
func (c *Config) waysToMembers() (ways []string) {
	if c.InitialCluster != "" {
		ways = append(ways, "--initial-cluster")
	}
	if c.DiscoverySRV != "" {
		ways = append(ways, "--discovery-srv")
	}
	if c.Discovery != nil {
		ways = append(ways, "--discovery-token")
	}
	return ways
}

// parseInitialCluster reads NAME=URL,NAME=URL,…; a name may come more than once.
func parseInitialCluster(s string) (map[string][]string, error) {
	members := map[string][]string{}
	for _, part := range strings.Split(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		name, u, ok := strings.Cut(part, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q is not NAME=URL", part)
		}
		if err := checkURL(u); err != nil {
			return nil, err
		}
		members[name] = append(members[name], u)
	}
	var seen []string
	for _, urls := range members { //tidy:ordered only whether one comes twice matters
		for _, u := range urls {
			if slices.Contains(seen, u) {
				return nil, fmt.Errorf("%s belongs to two members: each needs a peer URL of its own", u)
			}
			seen = append(seen, u)
		}
	}
	return members, nil
}
