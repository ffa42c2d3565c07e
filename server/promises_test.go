package server_test

import (
	"bytes"
	"context"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/proto/authpb"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

func mustStatus(t *testing.T, conn *grpc.ClientConn) *pb.StatusResponse {
	t.Helper()
	r, err := pb.NewMaintenanceClient(conn).Status(t.Context(), &pb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What clients count on though the store is as empty as it was at first.
func TestARestartForgetsNeitherRevisionsNorAlarms(t *testing.T) {
	m := servertest.New(t, 1, nil).Members[0]
	conn := dial(t, m)
	if s := mustStatus(t, conn); s.DbSize <= 0 || s.DbSize >= 52<<10 || s.DbSizeQuota != 2<<30 {
		t.Errorf("an empty store has %d bytes of %d", s.DbSize, s.DbSizeQuota)
	}
	for range 20 {
		if id := grantLease(t, conn); id <= 0 {
			t.Errorf("a lease got ID %d", id)
		}
	}
	kv := pb.NewKVClient(conn)
	mustPut(t, conn, "a", "1")
	succeed(t)(kv.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: []byte("a")}))
	succeed(t)(kv.Compact(t.Context(), &pb.CompactionRequest{Revision: 3, Physical: true}))
	raise := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(m.MemberID()), Alarm: pb.AlarmType_NOSPACE}
	succeed(t)(pb.NewMaintenanceClient(conn).Alarm(t.Context(), raise))
	m.Stop()
	m.Start()
	m.WaitReady()
	conn = dial(t, m)
	kv = pb.NewKVClient(conn)
	if r, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("a")}); err != nil || r.Header.Revision != 3 {
		t.Errorf("all keys are gone, and the revision: %v, %v", r, err)
	}
	if _, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("a"), Revision: 2}); status.Code(err) != codes.OutOfRange {
		t.Errorf("a revision that was compacted: %v", err)
	}
	if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("a")}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a put under an alarm from before: %v", err)
	}
	raise.Action = pb.AlarmRequest_DEACTIVATE
	succeed(t)(pb.NewMaintenanceClient(conn).Alarm(t.Context(), raise))
	if r := mustPut(t, conn, "b", "1"); r.Header.Revision != 4 {
		t.Errorf("the next revision is %d", r.Header.Revision)
	}
}

func TestAnActionThatNobodyKnowsEndsNoAlarm(t *testing.T) {
	m := servertest.New(t, 1, nil).Members[0]
	alarms := pb.NewMaintenanceClient(dial(t, m))
	r := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 7, Alarm: pb.AlarmType_CORRUPT}
	succeed(t)(alarms.Alarm(t.Context(), r))
	r.Action = 7
	if _, err := alarms.Alarm(t.Context(), r); status.Code(err) != codes.InvalidArgument {
		t.Errorf("action 7: %v", err)
	}
	r.Action = pb.AlarmRequest_GET
	if got, err := alarms.Alarm(t.Context(), r); err != nil || len(got.Alarms) != 1 {
		t.Errorf("afterwards: %v, %v", got, err)
	}
}

func TestAnAnswerMayBeLargerThanAnyRequest(t *testing.T) {
	conn := dial(t, servertest.New(t, 1, nil).Members[0])
	value := strings.Repeat("v", 1<<20)
	for _, key := range strings.Split("abcdefgh", "") {
		mustPut(t, conn, key, value)
	}
	r, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, grpc.MaxCallRecvMsgSize(64<<20))
	if err != nil || len(r.Kvs) != 8 {
		t.Errorf("8 MiB: %d keys, %v", len(r.GetKvs()), err)
	}
}

func TestALearnerSaysSoAlsoAfterARestart(t *testing.T) {
	quick.LeaveOut(t)
	c := servertest.New(t, 1, func(_ int, c *server.Config) { c.StrictReconfigCheck = false })
	before := mustStatus(t, dial(t, c.Members[0])).Header.ClusterId
	joiner, added := join(t, c)
	says := func(when string) {
		t.Helper()
		s := mustStatus(t, dial(t, joiner))
		_, _, metrics := ask(t, "GET", joiner.Config.ListenClientURLs[0]+"/metrics")
		code, _, ready := ask(t, "GET", joiner.Config.ListenClientURLs[0]+"/readyz/non_learner")
		if !s.IsLearner || !strings.Contains(metrics, "\netcd_server_is_learner 1\n") || code != 503 || !strings.Contains(ready, "[-]non_learner failed: not supported for learner") {
			t.Errorf("%s: learner %v; %d %s", when, s.IsLearner, code, ready)
		}
		if s.Header.ClusterId != before || s.Header.MemberId != added.Member.ID {
			t.Errorf("%s: %v, of cluster %d", when, s.Header, before)
		}
	}
	says("at first")
	joiner.Stop()
	joiner.Start()
	joiner.WaitReady()
	says("after a restart")
}

// gate is a disk on which the next new file waits.
type gate struct {
	vfs.FS
	mu      sync.Mutex
	arrived chan struct{}
	open    chan struct{}
}

func (g *gate) shut() (arrived, open chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.arrived, g.open = make(chan struct{}), make(chan struct{})
	return g.arrived, g.open
}

func (g *gate) Create(name string) (vfs.File, error) {
	g.mu.Lock()
	arrived, open := g.arrived, g.open
	g.arrived = nil
	g.mu.Unlock()
	if arrived != nil {
		close(arrived)
		<-open
	}
	return g.FS.Create(name)
}

func TestAMemberThatIsDefragmentedSaysThatItDoesNotServe(t *testing.T) {
	disk := &gate{FS: vfs.OS()}
	m := servertest.New(t, 1, func(_ int, c *server.Config) { c.AwayOnDefragment, c.FS = true, disk }).Members[0]
	conn := dial(t, m)
	arrived, open := disk.shut()
	done := make(chan error, 1)
	go func() {
		_, err := pb.NewMaintenanceClient(conn).Defragment(context.Background(), &pb.DefragmentRequest{})
		done <- err
	}()
	<-arrived
	r, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || r.Status != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("meanwhile: %v, %v", r, err)
	}
	close(open)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if r, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("afterwards: %v, %v", r, err)
	}
}

// lines is a log that may be read while it is written.
type lines struct {
	mu   sync.Mutex
	all  bytes.Buffer
	more chan struct{} // Somebody waits for more. Closed with the next line.
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return l.all.Write(b)
}

// await waits until words are there.
func (l *lines) await(t *testing.T, words string) {
	t.Helper()
	for deadline := time.After(readyMax); ; {
		l.mu.Lock()
		if l.more == nil {
			l.more = make(chan struct{})
		}
		there, more := strings.Contains(l.all.String(), words), l.more
		l.mu.Unlock()
		if there {
			return
		}
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("no word of %q in\n%s", words, l)
		}
	}
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

func TestAFailedHandshakeIsLoggedWithItsEndpoint(t *testing.T) {
	a := newAuthority(t)
	a.revoke()
	log := &lines{}
	m := servertest.New(t, 1, func(_ int, c *server.Config) {
		c.Logger = hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Info})
		c.ClientTLS, c.PeerTLS = a.tls(), a.tls()
		c.ListenClientURLs[0], c.ListenPeerURLs[0] = secured(c.ListenClientURLs[0]), secured(c.ListenPeerURLs[0])
		c.AdvertisePeerURLs, c.AdvertiseClientURLs = c.ListenPeerURLs, c.ListenClientURLs
		c.InitialCluster = secured(c.InitialCluster)
	}).Members[0]
	for endpoint, url := range map[string]string{"client": m.Config.ListenClientURLs[0], "peer": m.Config.ListenPeerURLs[0]} {
		conn, err := net.Dial("tcp", host(url))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("this is no TLS at all")); err != nil {
			t.Fatal(err)
		}
		log.await(t, "rejected connection on "+endpoint+" endpoint: remote-addr="+conn.LocalAddr().String())
		conn.Close()
	}
}

func TestAWatchGoesOnThoughItsPermissionIsTakenBack(t *testing.T) {
	g := newGuarded(t, 1, nil)
	alice, boss := g.as("alice", "wonder"), g.as("root", "secret")
	w, err := pb.NewWatchClient(g.conn).Watch(alice)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Send(createWatch("a1", "")); err != nil {
		t.Fatal(err)
	}
	if r, err := w.Recv(); err != nil || !r.Created || r.Canceled {
		t.Fatal(r, err)
	}
	succeed(t)(pb.NewAuthClient(g.conn).UserRevokeRole(boss, &pb.AuthUserRevokeRoleRequest{Name: "alice", Role: "letters"}))
	succeed(t)(pb.NewKVClient(g.conn).Put(boss, &pb.PutRequest{Key: []byte("a1"), Value: []byte("2")}))
	if r, err := w.Recv(); err != nil || len(r.Events) != 1 {
		t.Errorf("a watch from before: %v, %v", r, err)
	}
	if err := w.Send(createWatch("a1", "")); err != nil {
		t.Fatal(err)
	}
	if r, err := w.Recv(); err != nil || !r.Created || !r.Canceled || r.WatchId != -1 || r.CancelReason != "rpc error: code = PermissionDenied desc = etcdserver: permission denied" {
		t.Errorf("another over the same stream: %v, %v", r, err)
	}
}

func TestAuthenticationReachesTheGatewayAndNotTheHealthPages(t *testing.T) {
	g := newGuarded(t, 1, nil)
	m := g.Members[0]
	token := func() string {
		md, _ := metadata.FromOutgoingContext(g.as("alice", "wonder"))
		return md["token"][0]
	}()
	for _, c := range []struct {
		header []string
		key    string
		status int
		answer string
	}{
		{nil, "YTE=", 400, `"message":"etcdserver:usernameisempty"`},
		{[]string{"Authorization", token}, "YTE=", 200, `"kvs":[{"key":"YTE="`},
		{[]string{"Authorization", "Bearer " + token}, "YTE=", 200, `"kvs":[{"key":"YTE="`},
		{[]string{"Authorization", token}, "c2VjcmV0", 403, `"message":"etcdserver:permissiondenied"`},
		{[]string{"Authorization", "garbage"}, "YTE=", 401, `"message":"etcdserver:invalidauthtoken"`},
	} {
		if code, answer := post(t, m, "/v3/kv/range", `{"key":"`+c.key+`"}`, c.header...); code != c.status || !strings.Contains(answer, c.answer) {
			t.Errorf("%q reads %s: %d %s", c.header, c.key, code, answer)
		}
	}
	check(t, m.Config.ListenClientURLs[0], "with authentication on", []page{
		{http.MethodGet, "/health", 200, healthy}, {http.MethodGet, "/readyz", 200, "ok"}, {http.MethodGet, "/livez", 200, "ok"},
	})
	m.Stop()
	m.Start()
	m.WaitReady()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "token", token)
	if _, err := pb.NewKVClient(dial(t, m)).Range(ctx, &pb.RangeRequest{Key: []byte("a1")}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a token from before a restart: %v", err)
	}
}

// A token of this kind is good for one revision of users and roles.
func TestASignedTokenIsOldOnceUsersChange(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("0123456789abcdef0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := newGuarded(t, 1, func(_ int, c *server.Config) { c.AuthToken = "jwt,sign-method=HS256,priv-key=" + key })
	alice, boss := g.as("alice", "wonder"), g.as("root", "secret")
	read := &pb.RangeRequest{Key: []byte("a1")}
	succeed(t)(pb.NewKVClient(g.conn).Range(alice, read))
	succeed(t)(pb.NewAuthClient(g.conn).RoleAdd(boss, &pb.AuthRoleAddRequest{Name: "more"}))
	for name, err := range map[string]error{
		"read": func() error { _, err := pb.NewKVClient(g.conn).Range(alice, read); return err }(),
		"write": func() error {
			_, err := pb.NewKVClient(g.conn).Put(alice, &pb.PutRequest{Key: []byte("a1")})
			return err
		}(),
	} {
		if s := status.Convert(err); s.Code() != codes.InvalidArgument || s.Message() != "etcdserver: revision of auth store is old" {
			t.Errorf("%s: %v", name, err)
		}
	}
	succeed(t)(pb.NewKVClient(g.conn).Range(g.as("alice", "wonder"), read))
}

func TestPasswordsAreNeitherLoggedNorStored(t *testing.T) {
	const first, second = "correct-horse-battery", "staple-of-the-second-kind"
	log := &lines{}
	g := newGuarded(t, 1, func(_ int, c *server.Config) {
		c.Logger = hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Trace})
	})
	boss, a := g.as("root", "secret"), pb.NewAuthClient(g.conn)
	succeed(t)(a.UserAdd(boss, &pb.AuthUserAddRequest{Name: "carol", Password: first}))
	g.as("carol", first)
	if _, err := a.Authenticate(t.Context(), &pb.AuthenticateRequest{Name: "carol", Password: second}); err == nil {
		t.Error("a wrong password is right")
	}
	succeed(t)(a.UserChangePassword(boss, &pb.AuthUserChangePasswordRequest{Name: "carol", Password: second}))
	g.as("carol", second)
	succeed(t)(a.RoleGrantPermission(boss, &pb.AuthRoleGrantPermissionRequest{Name: "letters", Perm: &authpb.Permission{Key: []byte("x")}}))
	m := g.Members[0]
	m.Stop()
	where := map[string]string{"the log": log.String()}
	err := filepath.WalkDir(m.Config.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		where[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for name, text := range where {
		seen = seen || name != "the log" && strings.Contains(text, "carol")
		for _, password := range []string{first, second} {
			if strings.Contains(text, password) {
				t.Errorf("%s has the password %s", name, password)
			}
		}
	}
	if !seen {
		t.Error("no file has the user's name: this looks at the wrong ones")
	}
}
