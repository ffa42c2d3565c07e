package server_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/pki"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// compactsTo waits until a revision can not be read any more.
func compactsTo(t *testing.T, conn *grpc.ClientConn, revision int64) {
	t.Helper()
	eventually(t, fmt.Sprint("revision ", revision, " is compacted"), func() bool {
		_, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("a"), Revision: revision})
		return status.Code(err) == codes.OutOfRange
	})
}

// setting is what a flag says, and whether whoever acts on it has heard.
type setting struct {
	name  string
	set   func(*server.Config)
	holds func(t *testing.T, m *servertest.Member, conn *grpc.ClientConn)
}

// settings are those that have no tests of their own.
var settings = []setting{
	{"max-txn-ops", func(c *server.Config) { c.TxnOpsMax = 2 }, func(t *testing.T, _ *servertest.Member, conn *grpc.ClientConn) {
		_, err := pb.NewKVClient(conn).Txn(t.Context(), &pb.TxnRequest{Success: []*pb.RequestOp{put("a"), put("b")}})
		must(t, err)
		_, err = pb.NewKVClient(conn).Txn(t.Context(), &pb.TxnRequest{Success: []*pb.RequestOp{put("a"), put("b"), put("c")}})
		if status.Convert(err).Message() != "etcdserver: too many operations in txn request" {
			t.Errorf("three operations: %v", err)
		}
	}},
	{"max-learners", func(c *server.Config) { c.LearnersMax = 2 }, func(t *testing.T, _ *servertest.Member, conn *grpc.ClientConn) {
		for i, want := range []string{"", "", "etcdserver: too many learner members in cluster"} {
			r := &pb.MemberAddRequest{PeerURLs: []string{fmt.Sprint("http://127.0.0.1:", i+1)}, IsLearner: true}
			if _, err := pb.NewClusterClient(conn).MemberAdd(t.Context(), r); status.Convert(err).Message() != want {
				t.Errorf("learner %d: %v", i, err)
			}
		}
	}},
	{"max-concurrent-streams", func(c *server.Config) { c.ConcurrentStreamsMax = 1 }, func(t *testing.T, _ *servertest.Member, conn *grpc.ClientConn) {
		mustPut(t, conn, "a", "1") // The client has heard of the limit.
		watch, err := pb.NewWatchClient(conn).Watch(t.Context())
		must(t, err)
		must(t, watch.Send(createWatch("a", "")))
		_, err = watch.Recv()
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte("a")}); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("a second call on the connection: %v", err)
		}
	}},
	{"auto-compaction-retention", func(c *server.Config) { c.AutoCompactionRetention = "200ms" }, func(t *testing.T, _ *servertest.Member, conn *grpc.ClientConn) {
		for range 3 {
			mustPut(t, conn, "a", "1")
		}
		compactsTo(t, conn, 3)
	}},
	{"grpc-keepalive-interval, -timeout", func(c *server.Config) { c.KeepAliveInterval, c.KeepAliveTimeout = time.Second, 100*time.Millisecond }, func(t *testing.T, m *servertest.Member, _ *grpc.ClientConn) {
		conn, err := net.Dial("tcp", m.ClientAddrs()[0])
		must(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00") // And no answer to any ping.
		must(t, err)
		must(t, conn.SetReadDeadline(time.Now().Add(readyMax)))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("one who does not answer is not left")
		}
	}},
	{"grpc-keepalive-min-time, shorter", func(c *server.Config) { c.KeepAliveMinTime = 1 }, func(t *testing.T, m *servertest.Member, _ *grpc.ClientConn) {
		if pings := pingsAtOnce(t, m); pings != pingsMax {
			t.Errorf("one who probes often is left after %d probes", pings)
		}
	}},
	{"grpc-keepalive-min-time, left out", func(*server.Config) {}, func(t *testing.T, m *servertest.Member, _ *grpc.ClientConn) {
		if pings := pingsAtOnce(t, m); pings == pingsMax {
			t.Errorf("one who probes without a pause is answered %d times", pings)
		}
	}},
	{"self-signed-cert-validity", func(c *server.Config) {
		c.ClientTLS.Auto, c.SelfSignedYears = true, 3
		c.ListenClientURLs[0] = secured(c.ListenClientURLs[0])
	}, func(t *testing.T, m *servertest.Member, _ *grpc.ClientConn) {
		conn, err := tls.Dial("tcp", m.ClientAddrs()[0], &tls.Config{InsecureSkipVerify: true})
		must(t, err)
		defer conn.Close()
		if years := time.Until(conn.ConnectionState().PeerCertificates[0].NotAfter).Hours() / 24 / 365; years < 2.9 || years > 3.1 {
			t.Errorf("the certificate ends in %.1f years", years)
		}
	}},
}

// pingsMax without a pause are more than a client is forgiven.
const pingsMax = 10

// pingsAtOnce is how many probes one connection gets answers to, while a stream is open on it.
func pingsAtOnce(t *testing.T, m *servertest.Member) (answered int) {
	t.Helper()
	conn, err := net.Dial("tcp", m.ClientAddrs()[0])
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(readyMax)))
	_, err = io.WriteString(conn, http2.ClientPreface)
	must(t, err)
	frames := http2.NewFramer(conn, conn)
	must(t, frames.WriteSettings())
	var head bytes.Buffer
	encoder := hpack.NewEncoder(&head)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", pb.Watch_Watch_FullMethodName}, {":authority", "m"}, {"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		must(t, encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	must(t, frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true}))
	for answered < pingsMax {
		must(t, frames.WritePing(false, [8]byte{byte(answered)}))
		for acknowledged := false; !acknowledged; {
			frame, err := frames.ReadFrame()
			must(t, err)
			switch f := frame.(type) {
			case *http2.GoAwayFrame:
				if f.ErrCode != http2.ErrCodeEnhanceYourCalm {
					t.Errorf("left with %s %s", f.ErrCode, f.DebugData())
				}
				return answered
			case *http2.PingFrame:
				acknowledged = f.IsAck()
			}
		}
		answered++
	}
	return answered
}

func TestSettingsHold(t *testing.T) {
	for _, s := range settings {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel() // Some wait.
			m := servertest.New(t, 1, func(_ int, c *server.Config) { s.set(c) }).Members[0]
			s.holds(t, m, dial(t, m))
		})
	}
}

// A log that is kept for slow members is one of entries: with few of them, who was
// away gets the state.
func TestEntriesAreKeptForSlowMembersAsManyAsIsSet(t *testing.T) {
	t.Parallel() // It mostly waits.
	log := &lines{}
	c := servertest.New(t, 3, func(_ int, c *server.Config) {
		c.SnapshotCatchUpEntries, c.Logger = 3, hclog.New(&hclog.LoggerOptions{Output: log})
	})
	leader := c.Leader()
	away := c.Members[(slices.Index(c.Members, leader)+1)%3]
	away.Stop()
	conn := dial(t, leader)
	for range 3 { // Each has base written, which notes how far the log may go.
		var last int64
		for range 20 {
			last = mustPut(t, conn, "a", "1").Header.Revision
		}
		_, err := pb.NewKVClient(conn).Compact(t.Context(), &pb.CompactionRequest{Revision: last, Physical: true})
		must(t, err)
	}
	away.Start()
	log.await(t, "member is too far behind for the log, sending it a snapshot")
	away.WaitReady()
}

func TestWhatIsSlowIsToldWithoutKeysAndValues(t *testing.T) {
	log := &lines{}
	m := servertest.New(t, 1, func(_ int, c *server.Config) {
		c.SlowRequest, c.SlowApply, c.Logger = 1, 1, hclog.New(&hclog.LoggerOptions{Output: log})
	}).Members[0]
	mustPut(t, dial(t, m), "precious", "secret")
	log.await(t, "request was slow: method=/etcdserverpb.KV/Put ")
	log.await(t, "applying was slow: ")
	if text := log.String(); strings.Contains(text, "precious") || strings.Contains(text, "secret") {
		t.Errorf("keys and values of users are logged:\n%s", text)
	}
}

func TestRevisionsAreCompactedByTheirNumber(t *testing.T) {
	quick.LeaveOut(t)
	conn := dial(t, servertest.New(t, 1, func(_ int, c *server.Config) {
		c.Clock = hasty{clock.Real()} // It is looked at every five minutes.
		c.AutoCompactionMode, c.AutoCompactionRetention = "revision", "2"
	}).Members[0])
	for range 5 {
		mustPut(t, conn, "a", "1")
	}
	compactsTo(t, conn, 3) // Of six.
	if _, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("a"), Revision: 4}); err != nil {
		t.Errorf("two revisions below the head: %v", err)
	}
}

func TestATokenIsGoodForAsLongAsIsSet(t *testing.T) {
	g := newGuarded(t, 1, func(_ int, c *server.Config) { c.AuthTokenTTL = 1 })
	if _, err := pb.NewKVClient(g.conn).Range(g.as("alice", "wonder"), &pb.RangeRequest{Key: []byte("a1")}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("after its time: %v", err)
	}
}

func TestAMemberIsDefragmentedAtItsStartIfAskedFor(t *testing.T) {
	log := &lines{}
	m := servertest.New(t, 1, func(_ int, c *server.Config) { c.Logger = hclog.New(&hclog.LoggerOptions{Output: log}) }).Members[0]
	conn := dial(t, m)
	kv := pb.NewKVClient(conn)
	compact := func(revision int64) {
		t.Helper()
		_, err := kv.Compact(t.Context(), &pb.CompactionRequest{Revision: revision, Physical: true}) // Into base.
		must(t, err)
	}
	value := make([]byte, 10<<10) // That can not be compressed.
	for i := range 100 {
		rand.Read(value)
		mustPut(t, conn, fmt.Sprint(i), string(value))
	}
	compact(101)
	_, err := kv.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	must(t, err)
	compact(102)
	before := mustStatus(t, conn).DbSize
	m.Stop()
	m.Config.DefragmentAtStart = 1 << 30
	if m.Start(); strings.Contains(log.String(), "defragmenting") {
		t.Error("more was asked for than could be freed")
	}
	m.Stop()
	m.Config.DefragmentAtStart = 256 << 10
	m.Start()
	log.await(t, "defragmented: ")
	m.WaitReady()
	if after := mustStatus(t, dial(t, m)).DbSize; after >= before {
		t.Errorf("%d bytes before, %d after", before, after)
	}
}

// onEachListener is a member all of whose listeners are under TLS, and where they are.
func onEachListener(t *testing.T, a *authority, set func(*server.Config)) map[string]string {
	t.Helper()
	c := servertest.New(t, 1, func(_ int, c *server.Config) {
		c.ClientTLS, c.PeerTLS = a.tls(), a.tls()
		c.ListenPeerURLs[0], c.ListenClientURLs[0] = secured(c.ListenPeerURLs[0]), secured(c.ListenClientURLs[0])
		c.InitialCluster = secured(c.InitialCluster)
		c.ListenMetricsURLs = []string{"https://" + servertest.Hold(t)}
		set(c)
	}).Members[0].Config
	return map[string]string{"client": host(c.ListenClientURLs[0]), "peer": host(c.ListenPeerURLs[0]), "metrics": host(c.ListenMetricsURLs[0])}
}

func TestVersionsAndSuitesOfTLSHoldOnEveryListener(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	a := newAuthority(t)
	a.revoke()
	const weak, strong = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
	for _, c := range []struct {
		name string
		set  func(*server.Config)
		tls  *tls.Config // Of who dials.
		want uint16      // The version spoken; 0: none.
	}{
		{"new alone, old client", func(c *server.Config) { c.TLSMinVersion = "TLS1.3" }, &tls.Config{MaxVersion: tls.VersionTLS12}, 0},
		{"new alone, new client", func(c *server.Config) { c.TLSMinVersion = "TLS1.3" }, &tls.Config{}, tls.VersionTLS13},
		{"old alone, new client", func(c *server.Config) { c.TLSMaxVersion = "TLS1.2" }, &tls.Config{}, tls.VersionTLS12},
		{"one suite, another client", func(c *server.Config) { c.CipherSuites = []string{tls.CipherSuiteName(strong)} }, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{weak}}, 0},
		{"one suite, its client", func(c *server.Config) { c.CipherSuites = []string{tls.CipherSuiteName(strong)} }, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{weak, strong}}, tls.VersionTLS12},
	} {
		for name, address := range onEachListener(t, a, c.set) {
			c.tls.InsecureSkipVerify, c.tls.Certificates = true, []tls.Certificate{a.pair("bob")}
			conn, err := tls.Dial("tcp", address, c.tls)
			got := uint16(0)
			if err == nil {
				got = conn.ConnectionState().Version
				conn.Close()
			}
			if got != c.want {
				t.Errorf("%s, on %s: version %x, want %x: %v", c.name, name, got, c.want, err)
			}
		}
	}
}

func TestOnlyAllowedCertificatesComeInOnEveryListener(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	a := newAuthority(t)
	a.revoke()
	a.issue("app", pki.Request{Profile: pki.Client, CommonName: "app", Hosts: []string{"app.example"}})
	for _, c := range []struct {
		name string
		set  func(*server.Config)
		in   map[string]string // By listener.
	}{
		{"hosts", func(c *server.Config) {
			c.ClientTLS.AllowedHosts, c.PeerTLS.AllowedHosts = []string{"app.example"}, []string{"127.0.0.1"}
		}, map[string]string{"client": "app", "metrics": "app", "peer": "peer"}},
		{"names", func(c *server.Config) {
			c.ClientTLS.AllowedNames, c.PeerTLS.AllowedNames = []string{"alice"}, []string{"member"}
		}, map[string]string{"client": "alice", "metrics": "alice", "peer": "peer"}},
	} {
		for name, address := range onEachListener(t, a, c.set) {
			for _, who := range []string{"app", "alice", "bob", "peer"} {
				if err := a.reaches(who, address); (err == nil) != (who == c.in[name]) {
					t.Errorf("%s, on %s: %s: %v", c.name, name, who, err)
				}
			}
		}
	}
}

// A certificate that is good for servers alone can not be shown when dialing.
func TestMembersShowAnotherCertificateWhenTheyDial(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	a := newAuthority(t)
	a.issue("serving", pki.Request{Profile: pki.Server, CommonName: "member", Hosts: []string{"127.0.0.1"}})
	a.issue("dialing", pki.Request{Profile: pki.Client, CommonName: "member"})
	serving, dialing := a.store.Files("serving"), a.store.Files("dialing")
	c := servertest.New(t, 2, func(_ int, c *server.Config) {
		c.PeerTLS = server.TLS{
			CertFile: serving.Cert, KeyFile: serving.Key, CAFile: serving.CA, ClientCertAuth: true, ClientCertFile: dialing.Cert, ClientKeyFile: dialing.Key,
		}
		c.ListenPeerURLs[0] = secured(c.ListenPeerURLs[0])
		c.InitialCluster = strings.ReplaceAll(c.InitialCluster, "http://", "https://")
	})
	mustPut(t, dial(t, c.Members[0]), "k", "v")
	if got := mustGet(t, dial(t, c.Members[1]), "k"); got != "v" {
		t.Errorf("read %q", got)
	}
}
