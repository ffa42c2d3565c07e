package kube_test

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

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/api"
	kubecontext "github.com/holdfast-db/holdfast/kube/context"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func startDev(t *testing.T, flags ...string) (*process, *world) {
	t.Helper()
	dir := folder(t)
	ports := freePorts(t, 3)
	p := &process{
		t: t, name: "controlplane", says: "The cluster is ready", env: []string{"HOME=" + filepath.Join(dir, "home"), "SUDO_UID=", "HOLDFAST_CONFIG="},
		args: append([]string{
			filepath.Join(dir, "dev"), "dev", "--data-dir=" + filepath.Join(dir, "data"), "--listen-api=" + ports[0],
			"--listen-client-url=https://" + ports[1], "--listen-peer-url=https://" + ports[2], "--auto-compaction-retention=0",
		}, flags...),
	}
	p.start()
	p.awaitReady()
	t.Cleanup(p.kill)
	return p, look(t, filepath.Join(dir, "data", "certs"), []string{ports[0]}, []string{"https://" + ports[1]}, dialHere)
}

// A cluster on one machine, whose only process is killed, goes on with the same pods.
func TestADevClusterIsKilledAndFindsAllAsItWas(t *testing.T) {
	metrics := "http://" + freePorts(t, 1)[0]
	p, w := startDev(t, "--runtime=sim", "--listen-metrics-url="+metrics)
	w.create(deployment("web", 6, "500m"))
	w.eventually(30*time.Second, "six pods run", func(ctx context.Context) error { return w.rolledOut(ctx, "web", 6) })
	before, err := w.pods(w.ctx, "web")
	if err != nil {
		t.Fatal(err)
	}

	p.kill()
	p.start()
	p.awaitReady()
	w.eventually(30*time.Second, "three nodes are ready again", func(ctx context.Context) error { return w.nodesReady(ctx, 3) })
	if _, err := w.api.Scale(w.ctx, &kubepb.ScaleRequest{Object: &kubepb.Ref{Kind: api.Deployment.Name, Namespace: "default", Name: "web"}, Replicas: 9}); err != nil {
		t.Fatal(err)
	}
	w.eventually(30*time.Second, "nine pods run", func(ctx context.Context) error { return w.rolledOut(ctx, "web", 9) })
	after, err := w.pods(w.ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	for name, was := range before {
		is := after[name]
		if is == nil || is.UID != was.UID || is.Spec.NodeName != was.Spec.NodeName || is.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("pod %s on node %s is now %v", name, was.Spec.NodeName, is)
		}
	}
	for _, line := range []string{ // Who lost its office to a pause takes it again.
		"controlplane_pods_bound_total 3\n", "controlplane_schedule_seconds_count 3\n", `controlplane_leader{of="scheduler"} 1` + "\n", `controlplane_leader{of="controllers"} 1` + "\n",
	} {
		w.eventually(10*time.Second, "/metrics tells "+line, func(context.Context) error {
			if told := read(t, metrics+"/metrics"); !strings.Contains(told, line) {
				return errors.New(told)
			}
			return nil
		})
	}
	w.replay()
}

func read(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func (w *world) nodesReady(ctx context.Context, n int) error {
	nodes, _, err := objects.List[*corev1.Node](ctx, w.api, objects.ListOptions{})
	if err != nil {
		return err
	}
	ready := 0
	for _, node := range nodes {
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				ready++
			}
		}
	}
	if ready != n {
		return fmt.Errorf("%d nodes of %d are ready", ready, n)
	}
	return nil
}

// The file that a dev cluster writes is all that a client needs, and nobody else can
// read it.
func TestADevClusterWritesTheContextThatClientsNeed(t *testing.T) {
	p, _ := startDev(t, "--runtime=sim", "--nodes=1", "--context=mine")
	path := filepath.Join(p.env[0][len("HOME="):], ".holdfast", "config")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode of %s is %v", path, info.Mode())
	}
	f, err := kubecontext.Load(vfs.OS(), path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.Context("")
	if err != nil || c.Name != "mine" {
		t.Fatalf("context %v, %v", c, err)
	}
	secure, err := c.TLS(vfs.OS(), clock.Real())
	if err != nil {
		t.Fatal(err)
	}
	w := dialAPI(t, c.Server[0], secure, dialHere)
	w.eventually(20*time.Second, "the node is there", func(ctx context.Context) error { return w.nodesReady(ctx, 1) })
	secure.Certificates = nil
	if err := dialAPI(t, c.Server[0], secure, dialHere).nodesReady(t.Context(), 1); !errors.Is(err, objects.ErrDenied) {
		t.Errorf("without a certificate: %v", err)
	}
}
