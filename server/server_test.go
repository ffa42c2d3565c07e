package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/clock"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

func dial(t testing.TB, m *servertest.Member) *grpc.ClientConn {
	t.Helper()
	conn, err := m.DialInside()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func mustPut(t testing.TB, conn *grpc.ClientConn, key, value string) *pb.PutResponse {
	t.Helper()
	r, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return r
}

func mustGet(t testing.TB, conn *grpc.ClientConn, key string) string {
	t.Helper()
	r, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte(key)})
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	if len(r.Kvs) == 0 {
		return ""
	}
	return string(r.Kvs[0].Value)
}

func TestOneMemberFindsItsDataAgain(t *testing.T) {
	c := servertest.New(t, 1, nil)
	m := c.Members[0]
	if r := mustPut(t, dial(t, m), "a", "1"); r.Header.Revision != 2 || r.Header.RaftTerm < 2 {
		t.Fatalf("the first put of a fresh store: %v", r.Header)
	}
	m.Stop()
	m.Start()
	m.WaitReady()
	conn := dial(t, m)
	if got := mustGet(t, conn, "a"); got != "1" {
		t.Fatalf("after a restart a is %q", got)
	}
	if r := mustPut(t, conn, "b", "2"); r.Header.Revision != 3 {
		t.Fatalf("revision after a restart: %v", r.Header)
	}
}

func TestTwoServersLiveInOneProcess(t *testing.T) {
	a, b := servertest.New(t, 1, nil), servertest.New(t, 1, nil)
	mustPut(t, dial(t, a.Members[0]), "k", "of a")
	if got := mustGet(t, dial(t, b.Members[0]), "k"); got != "" {
		t.Fatalf("the second cluster sees %q of the first", got)
	}
}

func TestAMinorityMayDie(t *testing.T) {
	t.Parallel() // It mostly waits.
	c := servertest.New(t, 3, nil)
	for i, m := range c.Members {
		mustPut(t, dial(t, m), fmt.Sprintf("k%d", i), "v")
	}
	for i, m := range c.Members {
		for j := range c.Members {
			if got := mustGet(t, dial(t, m), fmt.Sprintf("k%d", j)); got != "v" {
				t.Fatalf("member %d reads %q of what member %d wrote", i, got, j)
			}
		}
	}
	leader := c.Leader()
	leader.Stop()
	var alive *servertest.Member
	for _, m := range c.Members {
		if m != leader {
			alive = m
		}
	}
	for { // A request that was under way to the old leader ends with an error that says so.
		_, err := pb.NewKVClient(dial(t, alive)).Put(t.Context(), &pb.PutRequest{Key: []byte("after"), Value: []byte("1")})
		if err == nil {
			break
		}
		if status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
	}
	leader.Start()
	leader.WaitReady()
	if got := mustGet(t, dial(t, leader), "after"); got != "1" {
		t.Fatalf("the member that was away reads %q", got)
	}
}

func TestAWatchSeesEveryRevisionOnce(t *testing.T) {
	c := servertest.New(t, 1, nil)
	conn := dial(t, c.Members[0])
	mustPut(t, conn, "a", "0")
	w, err := pb.NewWatchClient(conn).Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte("a"), StartRevision: 2, PrevKv: true,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := w.Recv(); err != nil || !r.Created || r.Header.Revision != 2 {
		t.Fatalf("created: %v, %v", r, err)
	}
	for i := 1; i < 20; i++ {
		mustPut(t, conn, "a", fmt.Sprint(i))
	}
	for next := 0; next < 20; {
		r, err := w.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range r.Events {
			if string(ev.Kv.Value) != fmt.Sprint(next) || next > 0 && string(ev.PrevKv.GetValue()) != fmt.Sprint(next-1) {
				t.Fatalf("event %d is %v", next, ev)
			}
			next++
		}
	}
}

// One encoding is sent by all streams that are alike, and those that compress are not
// like those that do not.
func TestStreamsOfBothKindsGetTheSameEvents(t *testing.T) {
	c := servertest.New(t, 1, nil)
	conn := dial(t, c.Members[0])
	var streams []pb.Watch_WatchClient
	for i := range 6 {
		var options []grpc.CallOption
		if i%2 == 0 {
			options = append(options, grpc.UseCompressor(gzip.Name))
		}
		w, err := pb.NewWatchClient(conn).Watch(t.Context(), options...)
		if err != nil {
			t.Fatal(err)
		}
		ask := &pb.WatchCreateRequest{Key: []byte("a"), WatchId: int64(7 + i/4), Fragment: i == 1, ProgressNotify: i == 2}
		if err := w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: ask}}); err != nil {
			t.Fatal(err)
		}
		if r, err := w.Recv(); err != nil || !r.Created || r.WatchId != ask.WatchId {
			t.Fatalf("created: %v, %v", r, err)
		}
		streams = append(streams, w)
	}
	for i := range 20 {
		mustPut(t, conn, "a", fmt.Sprint(i, strings.Repeat("x", 100*i)))
	}
	for i, w := range streams {
		for next := 0; next < 20; {
			r, err := w.Recv()
			if err != nil {
				t.Fatal(err)
			}
			for _, ev := range r.Events {
				if want := fmt.Sprint(next, strings.Repeat("x", 100*next)); string(ev.Kv.Value) != want || r.WatchId != int64(7+i/4) {
					t.Fatalf("stream %d, watch %d, event %d is %v", i, r.WatchId, next, ev)
				}
				next++
			}
		}
	}
}

func TestALeaseEndsByItself(t *testing.T) {
	now := &halted{Clock: clock.Real()} // So that it does not end before all are there to see it.
	c := servertest.New(t, 1, func(_ int, cfg *server.Config) { cfg.Clock = now })
	conn := dial(t, c.Members[0])
	leases := pb.NewLeaseClient(conn)
	l, err := leases.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("leased"), Lease: l.ID})
	if err != nil {
		t.Fatal(err)
	}
	ttl, err := leases.LeaseTimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: l.ID, Keys: true})
	if err != nil || ttl.GrantedTTL != 1 || len(ttl.Keys) != 1 {
		t.Fatalf("time to live: %v, %v", ttl, err)
	}
	w, err := pb.NewWatchClient(conn).Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Send(createWatch("leased", "")); err != nil {
		t.Fatal(err)
	}
	if r, err := w.Recv(); err != nil || !r.Created {
		t.Fatalf("created: %v, %v", r, err)
	}
	now.mono.Add(int64(time.Minute))
	for {
		r, err := w.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Events) > 0 {
			if r.Events[0].Type.String() != "DELETE" {
				t.Fatalf("event %v", r.Events[0])
			}
			break
		}
	}
	ttl, err = leases.LeaseTimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: l.ID})
	if err != nil || ttl.TTL != -1 {
		t.Fatalf("after its end: %v, %v", ttl, err)
	}
}

func TestAMemberWithoutAQuorumAnswersOnlyWhatNeedsNone(t *testing.T) {
	t.Parallel() // It mostly waits.
	c := servertest.New(t, 2, nil)
	mustPut(t, dial(t, c.Members[0]), "a", "1")
	c.Members[1].Stop()
	conn := dial(t, c.Members[0])
	kv := pb.NewKVClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if r, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")}); err == nil {
		t.Fatalf("a linearizable read without a quorum: %v", r)
	}
	r, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("a"), Serializable: true})
	if err != nil || len(r.Kvs) != 1 {
		t.Fatalf("a serializable read: %v, %v", r, err)
	}
}

func TestBadDataDirectoriesAreRefusedWithOneClearLine(t *testing.T) {
	c := servertest.New(t, 1, nil)
	m := c.Members[0]
	second := m.Config
	second.ListenClientURLs, second.ListenPeerURLs = []string{"http://127.0.0.1:0"}, []string{"http://127.0.0.1:0"}
	second.Listen = nil
	if _, err := server.Start(t.Context(), second); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Fatalf("a directory that is locked: %v", err)
	}
	m.Stop()
	identity := filepath.Join(m.Config.DataDir, "IDENTITY")
	data, err := os.ReadFile(identity)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{identity, identity + ".copy"} {
		if err := os.WriteFile(name, []byte(strings.Replace(string(data), `"Format":1`, `"Format":2`, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := server.Start(t.Context(), m.Config); err == nil || !strings.Contains(err.Error(), "IDENTITY") {
		t.Fatalf("a damaged identity: %v", err)
	}
}

func TestPlainHTTPIsAnsweredOnTheClientPort(t *testing.T) {
	c := servertest.New(t, 1, nil)
	base := "http://" + c.Members[0].ClientAddrs()[0]
	for path, want := range map[string]string{
		"/health":  `{"health":"true","reason":""}`,
		"/version": `"etcdcluster":"3.7.0"`,
		"/metrics": "etcd_server_has_leader 1",
	} {
		r, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if err := errors.Join(err, r.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d, no %q in %.300s", path, r.StatusCode, want, body)
		}
	}
	r, err := http.Post(base+"/health", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST /health: %d", r.StatusCode)
	}
}

// A program that embeds a member.
func Example() {
	cfg := server.DefaultConfig(hclog.NewNullLogger())
	dir, err := os.MkdirTemp("", "holdfast")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	cfg.DataDir = dir
	cfg.ListenClientURLs = []string{"http://127.0.0.1:0"}
	cfg.ListenPeerURLs = []string{"http://127.0.0.1:0"}
	ctx := context.Background()
	s, err := server.Start(ctx, cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	conn, err := s.DialInside()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	r, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte("hello"), Value: []byte("world")}, grpc.WaitForReady(true))
	fmt.Println(r.GetHeader().GetRevision(), err)
	// Output: 2 <nil>
}

// join adds a learner to a cluster and starts it.
func join(t *testing.T, c *servertest.Cluster) (*servertest.Member, *pb.MemberAddResponse) {
	t.Helper()
	first := c.Members[0]
	more := servertest.New(t, 1, nil) // For its ports and folders only.
	joiner := more.Members[0]
	joiner.Stop()
	if err := os.RemoveAll(joiner.Config.DataDir); err != nil {
		t.Fatal(err)
	}
	joiner.Config.Name = "joiner"
	joiner.Config.InitialCluster = "by-another-name=" + first.PeerURL + ",joiner=" + joiner.PeerURL // Members are known by their URLs.
	joiner.Config.InitialClusterState = server.StateExisting
	added, err := pb.NewClusterClient(dial(t, first)).MemberAdd(t.Context(), &pb.MemberAddRequest{PeerURLs: []string{joiner.PeerURL}, IsLearner: true})
	if err != nil {
		t.Fatal(err)
	}
	joiner.Start()
	joiner.WaitReady()
	return joiner, added
}

// A member is added, learns everything, votes, is restarted, and is removed.
func TestAMemberComesAndGoes(t *testing.T) {
	c := servertest.New(t, 1, func(_ int, c *server.Config) { c.StrictReconfigCheck = false }) // It wants seconds of calm between the steps.
	first := c.Members[0]
	conn := dial(t, first)
	for i := range 50 {
		mustPut(t, conn, fmt.Sprintf("k%02d", i), "v")
	}
	joiner, added := join(t, c)
	cluster := pb.NewClusterClient(conn)
	var err error
	for {
		_, err = cluster.MemberPromote(t.Context(), &pb.MemberPromoteRequest{ID: added.Member.ID})
		if err == nil {
			break
		}
		if !strings.Contains(err.Error(), "in sync with leader") {
			t.Fatal(err)
		}
	}
	for { // It learns of its promotion a little later.
		r, err := pb.NewKVClient(dial(t, joiner)).Range(t.Context(), &pb.RangeRequest{Key: []byte("k49")})
		if err == nil && len(r.Kvs) == 1 {
			break
		}
		if err == nil || !strings.Contains(err.Error(), "not supported for learner") {
			t.Fatalf("the new member reads %v, %v", r, err)
		}
	}
	joiner.Stop()
	joiner.Start() // Out of what the snapshot and the log after it have left.
	joiner.WaitReady()
	mustPut(t, dial(t, joiner), "after", "1")
	if got := mustGet(t, conn, "after"); got != "1" {
		t.Fatalf("the first member reads %q", got)
	}
	if _, err := cluster.MemberRemove(t.Context(), &pb.MemberRemoveRequest{ID: added.Member.ID}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-joiner.Done():
	case <-time.After(readyMax):
		t.Fatal("the removed member goes on")
	}
	if err := joiner.Err(); err == nil || !strings.Contains(err.Error(), "removed") {
		t.Fatalf("the removed member ends with %v", err)
	}
	mustPut(t, conn, "alone", "1")
}
