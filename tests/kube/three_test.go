package kube_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/leader"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/proto/kubepb"
	"github.com/holdfast-db/holdfast/tests/network"
)

// three is three control planes and fleets of nodes, each a process.
type three struct {
	*world
	planes []*process // Named c1 to c3.
	each   []*world   // As world, through one of them.
	fleets []*process
	mesh   *network.Mesh // Nil: they are on loopback.
}

func startThree(t *testing.T, nodes ...int) *three { return startThreeOn(t, nil, nodes...) }

// startThreeOn starts them where their traffic can be cut: members 0 to 2 of the mesh
// are the control planes, the next ones the fleets. Without a mesh: on loopback.
func startThreeOn(t *testing.T, mesh *network.Mesh, nodes ...int) *three {
	t.Helper()
	return startThreeWith(t, mesh, nil, nodes...)
}

// startThreeWith gives the control planes more flags.
func startThreeWith(t *testing.T, mesh *network.Mesh, flags []string, nodes ...int) *three {
	t.Helper()
	dir := folder(t)
	certs := filepath.Join(dir, "certs")
	c := &three{mesh: mesh}
	at := c.addresses(t)
	makeCertificates(t, certs, len(nodes), at.hosts)
	for i := range 3 {
		name := fmt.Sprintf("c%d", i+1)
		p := &process{t: t, name: "controlplane", says: "ready to serve the API", launch: at.launch(i), args: append([]string{
			filepath.Join(dir, name), "--name=" + name, "--data-dir=" + filepath.Join(dir, name), "--certs-dir=" + certs,
			"--listen-client-urls=" + at.stores[i], "--listen-peer-urls=" + at.peers[i], "--initial-cluster=" + strings.Join(at.initial, ","),
			"--listen-api=" + at.apis[i], "--auto-compaction-retention=0", "--pod-range=10.128.0.0/9",
		}, flags...)}
		p.start()
		t.Cleanup(p.kill)
		c.planes = append(c.planes, p)
	}
	for _, p := range c.planes {
		p.awaitReady()
	}
	c.world = look(t, certs, at.apis, at.stores, at.dial)
	for _, address := range at.apis {
		c.each = append(c.each, dialAPI(t, address, clientTLS(t, certs, "admin"), at.dial))
	}
	total := 0
	for i, n := range nodes {
		total += n
		name := fmt.Sprintf("fleet%d", i+1)
		p := &process{t: t, name: "kubelet", says: "fleet starts", launch: at.launch(3 + i), args: []string{
			filepath.Join(dir, name), "--server=" + strings.Join(at.apis, ","), "--dir=" + filepath.Join(dir, name), "--certs-dir=" + certs, "--cert=" + name,
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

// addresses are where three control planes are, and how one gets there.
type addresses struct {
	apis, stores, peers, initial []string // Of each control plane; the last is what all are told of all.
	hosts                        []string // Of certificates.
	dial                         dialer
	launch                       func(member int) func(*exec.Cmd) error
}

func (c *three) addresses(t *testing.T) *addresses {
	a := &addresses{dial: dialHere, launch: func(int) func(*exec.Cmd) error { return nil }, hosts: []string{"127.0.0.1"}}
	if c.mesh != nil {
		places := c.mesh.Places()
		for _, p := range places[:3] {
			host := strings.TrimSuffix(strings.TrimPrefix(p.ClientURL, "https://"), ":2379")
			a.hosts = append(a.hosts, host)
			a.apis, a.stores, a.peers = append(a.apis, host+":6443"), append(a.stores, p.ClientURL), append(a.peers, p.PeerURL)
		}
		a.dial, a.launch = c.mesh.Dial, func(member int) func(*exec.Cmd) error { return places[member].Launch }
	} else {
		ports := freePorts(t, 9)
		for i := range 3 {
			a.apis, a.stores, a.peers = append(a.apis, ports[3*i]), append(a.stores, "https://"+ports[3*i+1]), append(a.peers, "https://"+ports[3*i+2])
		}
	}
	for i, url := range a.peers {
		a.initial = append(a.initial, fmt.Sprintf("c%d=%s", i+1, url))
	}
	return a
}

func makeCertificates(t *testing.T, dir string, fleets int, hosts []string) {
	t.Helper()
	s := pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: dir}
	ca, _, err := s.CreateAuthority(pki.AuthorityRequest{CommonName: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Set(ca, pki.SetRequest{Hosts: hosts}); err != nil {
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

// With its leader killed, a cluster of three schedules on: within fifteen seconds on a machine
// at leisure.
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
	var leading *process
	c.eventually(20*time.Second, "somebody leads the scheduler", func(ctx context.Context) (err error) {
		leading, err = c.leads(ctx, "scheduler")
		return err
	})
	leading.kill()
	c.eventually(10*time.Second, "the store takes writes again", func(context.Context) error { return c.scale("web", 12) })
	c.eventually(15*time.Second, "twelve pods run", func(ctx context.Context) error { return c.rolledOut(ctx, "web", 12) })
	leading.start()
	leading.awaitReady()
	c.replay()
}

// With --node-profile fast a node that dies is known to within three seconds, and its
// pods are replaced two later.
func TestTheFastProfileReplacesPodsOfADeadNodeSoon(t *testing.T) {
	t.Parallel()
	c := startThreeWith(t, nil, []string{"--node-profile=fast"}, 1, 2)
	began := time.Now()
	c.create(deployment("web", 3, "100m"))
	c.eventually(30*time.Second, "three pods run", func(ctx context.Context) error { return c.rolledOut(ctx, "web", 3) })
	select { // Before, the control plane cannot know yet who has died.
	case <-time.After(time.Until(began.Add(65 * time.Second))):
	case <-c.ctx.Done():
	}
	dead := "fleet1-1"
	c.fleets[0].kill()
	c.eventually(25*time.Second, "three pods run on the others", func(ctx context.Context) error {
		pods, err := c.pods(ctx, "web")
		if err != nil {
			return err
		}
		n := 0
		for _, p := range pods {
			if p.Spec.NodeName != dead && p.Status.Phase == corev1.PodRunning {
				n++
			}
		}
		if n != 3 {
			return fmt.Errorf("%d run on others", n)
		}
		return nil
	})
	c.replay()
}
