package interop

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

// patience is how long anything may take on a busy machine.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	code := m.Run()
	member.Cleanup()
	os.Exit(code)
}

// need is the path of a program of Debian's.
func need(t *testing.T, program, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil && os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
		t.Fatalf("%s is not installed (package %s), and HOLDFAST_REQUIRE_ALL=1", program, pkg)
	}
	if err != nil {
		t.Skipf("%s is not installed: install package %s", program, pkg)
	}
	return path
}

// side is a running server of one kind or the other.
type side struct {
	t    *testing.T
	conn *grpc.ClientConn
	dir  string // Its data.
	peer string // URL.
}

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

const etcdName = "e1"

// etcd is a version of it that the tests can start and restore with.
type etcd struct {
	version string
	start   func(t *testing.T, dir string) *side
	restore func(t *testing.T, file, dir string)
}

// start37 runs an etcd 3.7 in this process. It writes to its database only when
// it ends, so that a copy of its directory is as a power cut leaves it.
func start37(t *testing.T, dir string) *side {
	t.Helper()
	ports := member.FreePorts(t, 2)
	local := func(port int) []url.URL { return []url.URL{{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}} }
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = etcdName, dir
	cfg.LogLevel, cfg.LogOutputs = "error", []string{filepath.Join(t.TempDir(), "log")}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = local(ports[0]), local(ports[0])
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = local(ports[1]), local(ports[1])
	cfg.InitialCluster = etcdName + "=" + cfg.ListenPeerUrls[0].String()
	cfg.BackendBatchInterval, cfg.BackendBatchLimit = time.Hour, 1<<30
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(patience):
		t.Fatal("etcd 3.7 is not ready")
	}
	return &side{t: t, conn: dial(t, cfg.ListenClientUrls[0].Host), dir: dir}
}

// start34 runs Debian's etcd 3.4, likewise.
func start34(t *testing.T, dir string) *side {
	t.Helper()
	program := need(t, "etcd", "etcd-server")
	ports := member.FreePorts(t, 2)
	client, peer := fmt.Sprintf("http://127.0.0.1:%d", ports[0]), fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--name", etcdName, "--data-dir", dir, "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", etcdName+"="+peer,
		"--backend-batch-interval", "1h", "--backend-batch-limit", "1000000000")
	cmd.Env = append(os.Environ(), "ETCD_UNSUPPORTED_ARCH=") // On amd64 and arm64 nothing has to be allowed.
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // It may have ended.
		_ = cmd.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("end of etcd 3.4's log:\n%s", text[max(0, len(text)-3000):])
		}
		_ = log.Close()
	})
	return &side{t: t, conn: dial(t, strings.TrimPrefix(client, "http://")), dir: dir}
}

func (s *side) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	s.t.Cleanup(cancel)
	return ctx
}

func (s *side) put(key, value string, lease int64) {
	s.t.Helper()
	if _, err := pb.NewKVClient(s.conn).Put(s.ctx(), &pb.PutRequest{Key: []byte(key), Value: []byte(value), Lease: lease}); err != nil {
		s.t.Fatal(err)
	}
}

// fill writes what a cluster has: leases, keys written often, transactions,
// deletions, a compaction; the newest change is a deletion.
func (s *side) fill() {
	s.t.Helper()
	kv, ctx := pb.NewKVClient(s.conn), s.ctx()
	must := func(_ any, err error) {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
	}
	for id := int64(100); id < 103; id++ {
		must(pb.NewLeaseClient(s.conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: 3000 + id}))
	}
	for i := range 300 {
		s.put(fmt.Sprintf("key-%02d", i*7%60), strings.Repeat("v", i)+fmt.Sprint(i), int64(i%2)*100)
	}
	s.put("large", strings.Repeat("large ", 100_000), 0)
	must(pb.NewLeaseClient(s.conn).LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 102}))
	must(kv.Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("key-07"), Target: pb.Compare_CREATE, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_CreateRevision{}}},
		Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("txn-b"), Value: []byte("1")}}},
			{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("txn-a"), Value: []byte{0, 0xff}}}},
			{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("key-1"), RangeEnd: []byte("key-2")}}},
		},
	}))
	must(kv.Compact(ctx, &pb.CompactionRequest{Revision: 150}))
	s.put("key-11", "again", 0) // After a deletion: its versions begin anew.
	must(kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("key-59")}))
}

// contents is what a client sees: each key as etcd's library prints it, leases,
// revision.
func (s *side) contents() string {
	s.t.Helper()
	r, err := pb.NewKVClient(s.conn).Range(s.ctx(), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := pb.NewLeaseClient(s.conn).LeaseLeases(s.ctx(), &pb.LeaseLeasesRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	text := fmt.Sprintf("revision %d, %d keys\n", r.Header.Revision, len(r.Kvs))
	for _, kv := range r.Kvs {
		text += fmt.Sprintf("%q %d %d %d %d %q\n", kv.Key, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease, kv.Value)
	}
	slices.SortFunc(l.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	for _, lease := range l.Leases {
		ttl, err := pb.NewLeaseClient(s.conn).LeaseTimeToLive(s.ctx(), &pb.LeaseTimeToLiveRequest{ID: lease.ID, Keys: true})
		if err != nil {
			s.t.Fatal(err)
		}
		slices.SortFunc(ttl.Keys, bytes.Compare) // Etcd tells them in the order of a map.
		text += fmt.Sprintf("lease %d: granted %d, keys %q\n", lease.ID, ttl.GrantedTTL, ttl.Keys)
	}
	return text
}

// save keeps what the Snapshot call sends: what 'etcdctl snapshot save' does.
func (s *side) save(file string) {
	s.t.Helper()
	stream, err := pb.NewMaintenanceClient(s.conn).Snapshot(s.ctx(), &pb.SnapshotRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := os.Create(file)
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return
		}
		if err == nil {
			_, err = out.Write(part.Blob)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// ctl runs holdfastctl.
func ctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(member.Program(t, "holdfastctl"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("holdfastctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// holdfastOn restores a snapshot and serves it.
func holdfastOn(t *testing.T, file string) *side {
	t.Helper()
	m := member.New(t, member.Config{})
	ctl(t, "snapshot", "restore", file, "--data-dir", m.DataDir, "--name", m.Name,
		"--initial-cluster", m.Name+"=http://"+m.Peer, "--initial-advertise-peer-urls", "http://"+m.Peer)
	m.Start()
	return &side{t: t, conn: dial(t, m.Client), dir: m.DataDir}
}
