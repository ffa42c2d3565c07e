// Package monitoring holds our metrics against those of a running etcd, and
// what contrib ships against ours.
package monitoring

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

func TestMain(m *testing.M) {
	code := m.Run()
	member.Cleanup()
	os.Exit(code)
}

// series is a metric as a page of metrics tells it.
type series struct {
	kind   string
	labels []string // Without le and quantile.
}

var sample = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$`)

var label = regexp.MustCompile(`([a-zA-Z_]\w*)="`)

// read reads a page of metrics.
func read(t *testing.T, url string) map[string]series {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]series{}
	for _, line := range strings.Split(string(body), "\n") {
		if words := strings.Fields(line); len(words) == 4 && words[1] == "TYPE" {
			all[words[2]] = series{kind: words[3]}
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		name := m[1]
		if _, ok := all[name]; !ok {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if base, cut := strings.CutSuffix(name, suffix); cut && all[base].kind != "" {
					name = base
				}
			}
		}
		s := all[name]
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			if l[1] != "le" && l[1] != "quantile" && !slices.Contains(s.labels, l[1]) {
				s.labels = append(s.labels, l[1])
			}
		}
		slices.Sort(s.labels)
		all[name] = s
	}
	return all
}

// startEtcd runs an etcd inside this test.
func startEtcd(t *testing.T) (endpoint string) {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	ports := member.FreePorts(t, 2)
	at := func(port int) []url.URL {
		return []url.URL{{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", fmt.Sprint(port))}}
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = at(ports[0]), at(ports[0])
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = at(ports[1]), at(ports[1])
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.Metrics = "extensive"
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	return cfg.ListenClientUrls[0].String()
}

// use makes some requests, so that metrics which begin with the first are there.
func use(t *testing.T, endpoint string) {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: time.Minute, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	w := c.Watch(ctx, "k")
	lease, err := c.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	for _, do := range []func() error{
		func() error { _, err := c.Put(ctx, "k", "v", clientv3.WithLease(lease.ID)); return err },
		func() error { <-w; return nil },
		func() error { _, err := c.Get(ctx, "k"); return err },
		func() error { _, err := c.Txn(ctx).Then(clientv3.OpPut("k", "w")).Commit(); return err },
		func() error { _, err := c.Delete(ctx, "k"); return err },
		func() error { _, err := c.Put(ctx, "l", "v", clientv3.WithLease(lease.ID)); return err },
		func() error {
			_, err := c.Txn(ctx).Then(clientv3.OpPut("t1", "v"), clientv3.OpPut("t2", "v"), clientv3.OpDelete("k", clientv3.WithPrefix())).Commit()
			return err
		},
		func() error { _, err := c.Revoke(ctx, lease.ID); return err },
		func() error { _, err := c.HashKV(ctx, endpoint, 0); return err },
		func() error { _, err := c.Defragment(ctx, endpoint); return err },
		func() error { return get(endpoint + "/health") },
		func() error { return get(endpoint + "/readyz") },
		func() error { return get(endpoint + "/livez") },
		func() error { return get(endpoint + "/metrics") }, // It counts itself.
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
}

func get(url string) error {
	resp, err := http.Get(url)
	if err == nil {
		err = resp.Body.Close()
	}
	return err
}

// notOurs are metrics that we do not tell, and why.
var notOurs = map[string]string{
	"etcd_server_apply_duration_seconds":        "entries are applied in batches: holdfast_apply_batch_duration_seconds",
	"etcd_debugging_store_reads_total":          "of the store of version 2",
	"etcd_debugging_store_reads_failed_total":   "of the store of version 2",
	"etcd_debugging_store_writes_total":         "of the store of version 2",
	"etcd_debugging_store_writes_failed_total":  "of the store of version 2",
	"etcd_server_feature_enabled":               "features have no stages here",
	"etcd_network_server_stream_failures_total": "grpc_server_handled_total tells how streams end",
}

// ofRuntime is what differs by version of the Go runtime and of a library.
func ofRuntime(name string) bool {
	return strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_")
}

func TestMetricsHaveEtcdsNamesKindsAndLabels(t *testing.T) {
	endpoint := startEtcd(t)
	m := member.New(t, member.Config{Args: []string{"--metrics=extensive"}})
	m.Start()
	ours := "http://" + m.Client
	use(t, endpoint)
	use(t, ours)
	compareCounts(t, endpoint+"/metrics", ours+"/metrics")
	etcd, holdfast := read(t, endpoint+"/metrics"), read(t, ours+"/metrics")
	if len(etcd) < 100 {
		t.Fatalf("etcd tells only %d metrics", len(etcd))
	}
	for _, name := range slices.Sorted(maps.Keys(etcd)) {
		want, got := etcd[name], holdfast[name]
		switch {
		case got.kind == "" && (notOurs[name] != "" || ofRuntime(name)):
		case got.kind == "":
			t.Errorf("%s (%s, labels %v) is missing", name, want.kind, want.labels)
		case notOurs[name] != "":
			t.Errorf("%s is there, though the list says it is not", name)
		case got.kind != want.kind:
			t.Errorf("%s is a %s, in etcd a %s", name, got.kind, want.kind)
		case !slices.Equal(got.labels, want.labels) && len(want.labels) > 0:
			t.Errorf("%s has labels %v, in etcd %v", name, got.labels, want.labels)
		}
	}
}

// counted are series whose values follow from what clients did, and from nothing
// that a member does by itself.
var counted = []string{
	"etcd_mvcc_put_total", "etcd_mvcc_delete_total",
	"etcd_debugging_mvcc_keys_total", "etcd_debugging_mvcc_total_put_size_in_bytes",
	"etcd_debugging_lease_granted_total", "etcd_debugging_lease_revoked_total",
	"etcd_server_is_learner", "etcd_server_has_leader", "etcd_server_proposals_pending", "etcd_server_quota_backend_bytes",
	`etcd_server_version{server_version="3.7.3"}`, `etcd_cluster_version{cluster_version="3.7"}`,
	`grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}`,
	`grpc_server_handled_total{grpc_code="OK",grpc_method="Txn",grpc_service="etcdserverpb.KV",grpc_type="unary"}`,
	`grpc_server_handled_total{grpc_code="Canceled",grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}`,
	`grpc_server_started_total{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}`,
}

// compareCounts of two members of which the same was asked. Streams end a moment
// after their clients.
func compareCounts(t *testing.T, etcd, ours string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		want, got := values(t, etcd), values(t, ours)
		if maps.Equal(want, got) {
			if len(got) != len(counted) {
				t.Errorf("%d of %d series are there: %v", len(got), len(counted), got)
			}
			return
		}
		if time.Now().After(deadline) {
			for _, name := range counted {
				if want[name] != got[name] {
					t.Errorf("%s is %q, in etcd %q", name, got[name], want[name])
				}
			}
			return
		}
	}
}

// values of those that are on a page.
func values(t *testing.T, url string) map[string]string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(body)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if value == "" {
			name, value, _ = strings.Cut(strings.TrimSpace(line), " ")
		} else {
			name += "}"
		}
		if slices.Contains(counted, name) {
			all[name] = value
		}
	}
	return all
}
