package kube_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/leader"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// three is three control planes and fleets of nodes, each a process.
type three struct {
	*world
	planes []*process // Named c1 to c3.
	each   []*world   // As world, through one of them.
	fleets []*process
}

func startThree(t *testing.T, nodes ...int) *three {
	t.Helper()
	dir := folder(t)
	certs := filepath.Join(dir, "certs")
	makeCertificates(t, certs, len(nodes))
	ports := freePorts(t, 9)
	var initial, apis, stores []string
	for i := range 3 {
		initial = append(initial, fmt.Sprintf("c%d=https://%s", i+1, ports[3*i+1]))
		apis = append(apis, ports[3*i+2])
		stores = append(stores, "https://"+ports[3*i])
	}
	c := &three{}
	for i := range 3 {
		name := fmt.Sprintf("c%d", i+1)
		p := &process{t: t, name: "controlplane", says: "ready to serve the API", args: []string{
			filepath.Join(dir, name), "--name=" + name, "--data-dir=" + filepath.Join(dir, name), "--certs-dir=" + certs,
			"--listen-client-urls=" + stores[i], "--listen-peer-urls=https://" + ports[3*i+1], "--initial-cluster=" + strings.Join(initial, ","),
			"--listen-api=" + apis[i], "--auto-compaction-retention=0", "--pod-range=10.128.0.0/9",
		}}
		p.start()
		t.Cleanup(p.kill)
		c.planes = append(c.planes, p)
	}
	for _, p := range c.planes {
		p.awaitReady()
	}
	c.world = look(t, certs, apis, stores)
	for _, address := range apis {
		c.each = append(c.each, dialAPI(t, address, clientTLS(t, certs, "admin")))
	}
	total := 0
	for i, n := range nodes {
		total += n
		name := fmt.Sprintf("fleet%d", i+1)
		p := &process{t: t, name: "kubelet", says: "fleet starts", args: []string{
			filepath.Join(dir, name), "--server=" + strings.Join(apis, ","), "--dir=" + filepath.Join(dir, name), "--certs-dir=" + certs, "--cert=" + name,
			fmt.Sprintf("--count=%d", n), "--cpu=4", "--memory=4Gi",
		}}
		p.start()
		t.Cleanup(p.kill)
		p.awaitReady()
		c.fleets = append(c.fleets, p)
	}
	c.eventually(60*time.Second, "all nodes are ready", func(ctx context.Context) error { return c.nodesReady(ctx, total) })
	return c
}

func makeCertificates(t *testing.T, dir string, fleets int) {
	t.Helper()
	s := pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: dir}
	ca, _, err := s.CreateAuthority(pki.AuthorityRequest{CommonName: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Set(ca, pki.SetRequest{Hosts: []string{"127.0.0.1"}}); err != nil {
		t.Fatal(err)
	}
	makeFleets(t, dir, fleets)
}

// makeFleets makes the certificates of fleets, and returns their names.
func makeFleets(t *testing.T, dir string, fleets int) (names []string) {
	t.Helper()
	s := pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: dir}
	ca, err := s.Authority()
	if err != nil {
		t.Fatal(err)
	}
	for i := range fleets {
		name := fmt.Sprintf("fleet%d", i+1)
		names = append(names, name)
		_, err := s.Issue(ca, name, pki.Request{Profile: pki.Client, CommonName: auth.FleetPrefix + name, Organizations: []string{auth.FleetGroup}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// leads is the control plane that leads a part.
func (c *three) leads(ctx context.Context, part string) (*process, error) {
	claims, err := c.store.Get(ctx, client.Get{Range: client.Prefix(leader.Prefix + part + "/")})
	if err != nil {
		return nil, err
	}
	var first *process
	var at int64
	for _, kv := range claims.Kvs {
		for i, p := range c.planes {
			if leader.ParseClaim(string(kv.Value)).Name == fmt.Sprintf("c%d", i+1) && (first == nil || kv.CreateRevision < at) {
				first, at = p, kv.CreateRevision
			}
		}
	}
	if first == nil {
		return nil, fmt.Errorf("nobody leads the %s", part)
	}
	return first, nil
}

func (w *world) scale(name string, replicas int32) error {
	_, err := w.api.Scale(w.ctx, &kubepb.ScaleRequest{Object: &kubepb.Ref{Kind: api.Deployment.Name, Namespace: "default", Name: name}, Replicas: replicas})
	return err
}

// known says why some control plane does not tell what only a leader knows: what nodes
// use, and why a pod is where it is.
func (c *three) known(ctx context.Context, nodes int, pod string) error {
	for i, w := range c.each {
		used, err := w.api.Usage(ctx, &kubepb.UsageRequest{})
		if err != nil || len(used.Nodes) != nodes {
			return fmt.Errorf("c%d tells what %d nodes of %d use: %v", i+1, len(used.GetNodes()), nodes, err)
		}
		why, err := w.api.Explain(ctx, "default", pod)
		if err != nil || len(why.Decisions) == 0 {
			return fmt.Errorf("c%d explains pod %s with %v: %v", i+1, pod, why, err)
		}
	}
	return nil
}

// With its leader killed, a cluster of three schedules on within fifteen seconds.
func TestTheLeadingControlPlaneIsKilledAndPodsAreScheduledOn(t *testing.T) {
	c := startThree(t, 5)
	c.create(deployment("web", 6, "500m"))
	c.eventually(30*time.Second, "six pods run", func(ctx context.Context) error { return c.rolledOut(ctx, "web", 6) })
	pods, err := c.pods(c.ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	for name := range pods {
		c.eventually(45*time.Second, "each control plane tells what the leaders know", func(ctx context.Context) error { return c.known(ctx, 5, name) })
		break
	}
	leading, err := c.leads(c.ctx, "scheduler")
	if err != nil {
		t.Fatal(err)
	}
	leading.kill()
	c.eventually(10*time.Second, "the store takes writes again", func(context.Context) error { return c.scale("web", 12) })
	c.eventually(15*time.Second, "twelve pods run", func(ctx context.Context) error { return c.rolledOut(ctx, "web", 12) })
	leading.start()
	leading.awaitReady()
	c.replay()
}
