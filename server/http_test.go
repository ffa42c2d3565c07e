package server_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/quick"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// ask makes one HTTP request: METHOD, URL.
func ask(t *testing.T, method, url string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

type page struct {
	method, path string
	code         int
	body         string
}

func check(t *testing.T, base, when string, pages []page) {
	t.Helper()
	for _, p := range pages {
		code, header, body := ask(t, p.method, base+p.path)
		if code != p.code || strings.TrimSpace(body) != p.body {
			t.Errorf("%s: %s %s: %d %q, want %d %q", when, p.method, p.path, code, body, p.code, p.body)
		}
		if code == http.StatusMethodNotAllowed && header.Get("Allow") != "GET" {
			t.Errorf("%s %s: no header Allow", p.method, p.path)
		}
	}
}

const healthy = `{"health":"true","reason":""}`

const allReady = "[+]data_corruption ok\n[+]linearizable_read ok\n[+]non_learner ok\n[+]serializable_read ok\nok"

func TestHealthIsToldAsInEtcd(t *testing.T) {
	c := servertest.New(t, 1, func(_ int, c *server.Config) { c.ListenMetricsURLs = []string{"http://" + servertest.Hold(t)} })
	m := c.Members[0]
	for _, base := range []string{m.Config.ListenClientURLs[0], m.Config.ListenMetricsURLs[0]} {
		check(t, base, "all is well", []page{
			{"GET", "/health", 200, healthy},
			{"GET", "/health?serializable=true", 200, healthy},
			{"POST", "/health", 405, "Method Not Allowed"},
			{"HEAD", "/health", 405, ""},
			{"GET", "/livez", 200, "ok"},
			{"GET", "/livez?verbose", 200, "[+]serializable_read ok\nok"},
			{"GET", "/livez/serializable_read", 200, "ok"},
			{"GET", "/livez/linearizable_read", 404, "404 page not found"},
			{"PUT", "/livez", 405, "Method Not Allowed"},
			{"GET", "/readyz", 200, "ok"},
			{"GET", "/readyz?verbose", 200, allReady},
			{"GET", "/readyz?verbose&exclude=non_learner&exclude=nothing", 200, strings.Replace(allReady, "[+]non_learner ok\n", "", 1)},
			{"GET", "/readyz/data_corruption?verbose=true", 200, "[+]data_corruption ok\nok"},
			{"GET", "/readyz/serializable_read", 200, "ok"},
			{"GET", "/readyz/linearizable_read", 200, "ok"},
			{"GET", "/readyz/non_learner", 200, "ok"},
			{"GET", "/version", 200, `{"etcdcluster":"3.7.0","etcdserver":"3.7.3","storage":"3.7.0"}`},
			{"DELETE", "/version", 405, "Method Not Allowed"},
		})
	}
	base := m.Config.ListenClientURLs[0]
	alarm := func(action pb.AlarmRequest_AlarmAction, kind pb.AlarmType) {
		t.Helper()
		if _, err := pb.NewMaintenanceClient(dial(t, m)).Alarm(t.Context(), &pb.AlarmRequest{Action: action, MemberID: uint64(m.MemberID()), Alarm: kind}); err != nil {
			t.Fatal(err)
		}
	}
	alarm(pb.AlarmRequest_ACTIVATE, pb.AlarmType_NOSPACE)
	check(t, base, "NOSPACE", []page{
		{"GET", "/health", 503, `{"health":"false","reason":"ALARM NOSPACE"}`},
		{"GET", "/health?exclude=NOSPACE", 200, healthy},
		{"GET", "/health?exclude=CORRUPT", 503, `{"health":"false","reason":"ALARM NOSPACE"}`},
		{"GET", "/livez", 200, "ok"},
		{"GET", "/readyz", 200, "ok"},
	})
	alarm(pb.AlarmRequest_DEACTIVATE, pb.AlarmType_NOSPACE)
	alarm(pb.AlarmRequest_ACTIVATE, pb.AlarmType_CORRUPT)
	reason := "[-]data_corruption failed: alarm activated: CORRUPT, of member " + m.MemberID().String()
	check(t, base, "CORRUPT", []page{
		{"GET", "/health", 503, `{"health":"false","reason":"ALARM CORRUPT"}`},
		{"GET", "/livez", 200, "ok"},
		{"GET", "/readyz", 503, reason + "\n" + strings.TrimSuffix(strings.SplitN(allReady, "\n", 2)[1], "\nok")},
		{"GET", "/readyz/data_corruption", 503, reason},
		{"GET", "/readyz?exclude=data_corruption", 200, "ok"},
	})
}

func TestHealthWithoutAQuorum(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	c := servertest.New(t, 3, nil)
	c.Members[1].Stop()
	c.Members[2].Stop()
	base := c.Members[0].Config.ListenClientURLs[0]
	// A read that comes before the member has noticed waits until its own time is up.
	eventually(t, "the member has noticed", func() bool {
		r, err := pb.NewMaintenanceClient(dial(t, c.Members[0])).Status(t.Context(), &pb.StatusRequest{})
		must(t, err)
		return r.Leader == 0
	})
	if code, _, body := ask(t, "GET", base+"/health"); code != 503 || !strings.Contains(body, "RAFT NO LEADER") {
		t.Fatalf("%d %s", code, body)
	}
	check(t, base, "no quorum", []page{
		{"GET", "/health?serializable=true", 200, healthy},
		{"GET", "/livez", 200, "ok"},
		{"GET", "/readyz/serializable_read", 200, "ok"},
	})
	if code, _, body := ask(t, "GET", base+"/readyz"); code != 503 || !strings.Contains(body, "[-]linearizable_read failed: etcdserver: ") {
		t.Errorf("%d %s", code, body)
	}
}

func TestPagesOfOneMember(t *testing.T) {
	c := servertest.New(t, 1, func(_ int, c *server.Config) { c.EnablePprof, c.ExtensiveMetrics = true, true })
	m := c.Members[0]
	base := m.Config.ListenClientURLs[0]
	mustPut(t, dial(t, m), "k", "value")
	_, header, body := ask(t, "GET", base+"/debug/vars")
	var vars map[string]any
	if err := json.Unmarshal([]byte(body), &vars); err != nil || vars["memstats"] == nil || vars["raft.status"] == nil || vars["file_descriptor_limit"] == nil {
		t.Errorf("/debug/vars: %v: %s", err, header)
	}
	for path, want := range map[string]string{"/debug/pprof/": "goroutine", "/debug/pprof/cmdline": "", "/debug/pprof/goroutine?debug=1": "goroutine profile"} {
		if code, _, body := ask(t, "GET", base+path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d", path, code)
		}
	}
	peer := m.Config.ListenPeerURLs[0]
	code, header, body := ask(t, "GET", peer+"/members")
	var members []map[string]any
	if err := json.Unmarshal([]byte(body), &members); err != nil || code != 200 || len(members) != 1 || members[0]["name"] != "m0" || members[0]["peerURLs"] == nil ||
		members[0]["clientURLs"] == nil || members[0]["id"] == nil || header.Get("X-Etcd-Cluster-ID") == "" {
		t.Errorf("/members: %d %s %v", code, body, err)
	}
	check(t, peer, "peer port", []page{
		{"GET", "/version", 200, `{"etcdcluster":"3.7.0","etcdserver":"3.7.3","storage":"3.7.0"}`},
		{"POST", "/members", 405, "Method Not Allowed"},
		{"GET", "/metrics", 404, "404 page not found"},
	})
	_, _, metrics := ask(t, "GET", base+"/metrics")
	for _, want := range []string{
		"etcd_debugging_mvcc_total_put_size_in_bytes 6", "etcd_mvcc_put_total 1",
		`grpc_server_handling_seconds_count{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1`,
		`etcd_server_request_duration_seconds_count{success="true",type="Put"} 1`,
		`etcd_server_version{server_version="3.7.3"} 1`, `etcd_cluster_version{cluster_version="3.7"} 1`,
		"etcd_server_is_learner 0", "etcd_debugging_mvcc_keys_total 1",
	} {
		if !strings.Contains(metrics, "\n"+want+"\n") {
			t.Errorf("/metrics does not have %s", want)
		}
	}
	var names []string
	for _, line := range strings.Split(metrics, "\n") {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	golden.File(t, "testdata/metrics.txt", strings.Join(names, "\n")+"\n")
}

// Clients look at the version to learn what they may use.
func TestTheVersionThatIsToldCanBeChosen(t *testing.T) {
	m := servertest.New(t, 1, func(_ int, c *server.Config) { c.ProtocolVersion = "3.6.9" }).Members[0]
	base := m.Config.ListenClientURLs[0]
	check(t, base, "another version", []page{{"GET", "/version", 200, `{"etcdcluster":"3.6.0","etcdserver":"3.6.9","storage":"3.7.0"}`}})
	if s := mustStatus(t, dial(t, m)); s.Version != "3.6.9" {
		t.Errorf("Status tells %s", s.Version)
	}
	_, _, metrics := ask(t, "GET", base+"/metrics")
	for _, want := range []string{`etcd_server_version{server_version="3.6.9"} 1`, `etcd_cluster_version{cluster_version="3.6"} 1`} {
		if !strings.Contains(metrics, "\n"+want+"\n") {
			t.Errorf("/metrics does not have %s", want)
		}
	}
}

func TestPprofNeedsItsFlag(t *testing.T) {
	c := servertest.New(t, 1, nil)
	if code, _, _ := ask(t, "GET", c.Members[0].Config.ListenClientURLs[0]+"/debug/pprof/"); code != 404 {
		t.Errorf("/debug/pprof/ without --enable-pprof: %d", code)
	}
}

func TestHTTPHasAPortOfItsOwn(t *testing.T) {
	t.Parallel() // It mostly waits.
	c := servertest.New(t, 1, func(_ int, c *server.Config) { c.ListenClientHTTPURLs = []string{"http://" + servertest.Hold(t)} })
	m := c.Members[0]
	check(t, m.Config.ListenClientHTTPURLs[0], "HTTP port", []page{{"GET", "/health", 200, healthy}})
	if _, err := http.Get(m.Config.ListenClientURLs[0] + "/health"); err == nil {
		t.Error("the port of gRPC answers HTTP")
	}
	a := &authority{t: t}
	if err := a.plainPut(m.Config.ListenClientURLs[0]); err != nil {
		t.Errorf("gRPC: %v", err)
	}
	if err := a.plainPut(m.Config.ListenClientHTTPURLs[0]); err == nil {
		t.Error("the port of HTTP answers gRPC")
	}
}

func TestAMemberIsAwayDuringADefragmentationIfAskedFor(t *testing.T) {
	c := servertest.New(t, 1, func(_ int, c *server.Config) { c.AwayOnDefragment = true })
	m := c.Members[0]
	watch, err := healthpb.NewHealthClient(dial(t, m)).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	said := func() healthpb.HealthCheckResponse_ServingStatus {
		t.Helper()
		r, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return r.Status
	}
	if s := said(); s != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("before: %s", s)
	}
	if _, err := pb.NewMaintenanceClient(dial(t, m)).Defragment(t.Context(), &pb.DefragmentRequest{}); err != nil {
		t.Fatal(err)
	}
	r, err := healthpb.NewHealthClient(dial(t, m)).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("afterwards: %v, %v", r, err)
	}
}
