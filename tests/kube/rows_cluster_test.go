package kube_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	kubecontext "github.com/holdfast-db/holdfast/kube/context"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/token"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/tests/network"
)

// rows is a cluster whose nodes run containers, for one row after the other of what the
// layer must do: a control plane, and kubelets, each a process.
//
// With native nodes each process is in a network namespace of its own, which are
// members of the mesh: the control plane is 0, the first node 1. With plain processes
// all are on loopback, and each node and each pod has an address of its own there.
type rows struct {
	*world
	dir, certs string
	native     bool
	mesh       *network.Mesh
	began      time.Time
	config     string // Of contexts, for holdfastctl.
	plane      *process
	nodes      []*rowsNode
	apiAddress string
	store      string // URL.
	peer       string // URL.
	services   string // Their range, where it is not the default.
	nodeFlags  []string
	mtu        int // Of native pods.
}

// rowsOf says what cluster it is.
type rowsOf struct {
	native    bool
	nodes     int
	mtu       int // Of native pods. 0: an Ethernet's.
	nodeFlags []string
	prepare   func(*rowsNode) // Before anything starts. Nil: nothing.
}

// rowsNode is a node and its kubelet.
type rowsNode struct {
	*process
	node, dir, address string
	member             int
}

// startRows starts a cluster, and has all that it made removed and looked for at the end.
func startRows(t *testing.T, of rowsOf) *rows {
	t.Helper()
	nodes := of.nodes
	var flags []string
	r := &rows{dir: folder(t), native: of.native, nodeFlags: of.nodeFlags, mtu: cmp.Or(of.mtu, 1500), began: time.Now()}
	if err := os.Chmod(r.dir, 0o711); err != nil { // Users of containers pass through.
		t.Fatal(err)
	}
	r.certs = filepath.Join(r.dir, "certs")
	launch := func(int) func(*exec.Cmd) error { return nil }
	dial := dialer(dialHere)
	name := fmt.Sprintf("r%04x", rand.N(1<<16))
	host := "127.0.0.1"
	var at func(i int) string
	if r.native {
		if r.mesh = rowsMesh(t, 1+nodes); r.mesh == nil {
			t.Skip("native nodes need root, namespaces and nft")
		}
		places := r.mesh.Places()
		launch = func(i int) func(*exec.Cmd) error { return places[i].Launch }
		dial = r.mesh.Dial
		at = func(i int) string {
			return strings.TrimSuffix(strings.TrimPrefix(places[i].ClientURL, "https://"), ":2379")
		}
		host = at(0)
		r.apiAddress, r.store, r.peer = host+":6443", places[0].ClientURL, places[0].PeerURL
	} else {
		ports := freePorts(t, 3)
		r.apiAddress, r.store, r.peer = ports[0], "https://"+ports[1], "https://"+ports[2]
		a, b := 64+rand.N(128), rand.N(256) // Loopback is wide: nobody else is here.
		at = func(i int) string { return fmt.Sprintf("127.%d.%d.%d", a, b, 1+i) }
		r.services = fmt.Sprintf("127.%d.0.0/16", a+1)
		flags = append(flags, "--service-range="+r.services)
	}
	for i := range nodes {
		n := &rowsNode{node: fmt.Sprintf("%s-n%d", name, i+1), dir: filepath.Join(r.dir, fmt.Sprintf("n%d", i+1)), address: at(i + 1), member: i + 1}
		if of.prepare != nil {
			of.prepare(n)
		}
		r.nodes = append(r.nodes, n)
	}
	makeCertificates(t, r.certs, 0, []string{host})
	r.plane = &process{t: t, name: "controlplane", says: "ready to serve the API", launch: launch(0), args: append([]string{
		filepath.Join(r.dir, "c1"), "--name=c1", "--data-dir=" + filepath.Join(r.dir, "c1"), "--certs-dir=" + r.certs,
		"--listen-client-urls=" + r.store, "--listen-peer-urls=" + r.peer, "--initial-cluster=c1=" + r.peer, "--listen-api=" + r.apiAddress,
		"--auto-compaction-retention=0",
	}, flags...)}
	r.plane.start()
	t.Cleanup(func() { r.plane.kill() })
	r.plane.awaitReady()
	r.world = look(t, r.certs, []string{r.apiAddress}, []string{r.store}, dial)
	t.Cleanup(r.end)
	r.writeContext()
	for i, n := range r.nodes {
		hasNode(t, r.dir, n.node)
		n.process = &process{t: t, name: "kubelet", launch: launch(i + 1), args: r.kubeletArgs(n)}
		n.start()
	}
	r.eventually(60*time.Second, "all nodes are ready", func(ctx context.Context) error { return r.nodesReady(ctx, nodes) })
	return r
}

// rowsMesh is a network of namespaces, or nil without root: where everything is required
// this is a failure.
func rowsMesh(t *testing.T, members int) *network.Mesh {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
			t.Fatal("native nodes need root")
		}
		return nil
	}
	return meshOf(t, members)
}

func (r *rows) kubeletArgs(n *rowsNode) []string {
	r.Helper()
	ca, err := pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: r.certs}.Authority()
	if err != nil {
		r.Fatal(err)
	}
	made, _, err := token.New(token.Config{Client: r.world.store, Clock: clock.Real()}).Create(r.ctx, token.Request{Authority: ca.Hash(), Node: n.node})
	if err != nil {
		r.Fatal(err)
	}
	file := n.dir + ".token"
	if err := os.WriteFile(file, []byte(made.Text()+"\n"), 0o600); err != nil {
		r.Fatal(err)
	}
	kind := "process"
	if r.native {
		kind = "native"
	}
	args := []string{
		n.dir, "--server=" + r.apiAddress, "--dir=" + n.dir, "--node-name=" + n.node, "--token-file=" + file, "--runtime=" + kind, "--node-ip=" + n.address,
	}
	if r.services != "" {
		args = append(args, "--service-range="+r.services)
	}
	return append(args, r.nodeFlags...)
}

func (r *rows) writeContext() {
	r.Helper()
	x := kubecontext.Context{Name: "rows", Server: []string{r.apiAddress}}
	for name, to := range map[string]*string{"ca.pem": &x.CA, "admin.pem": &x.Cert, "admin-key.pem": &x.Key} {
		*to = filepath.Join(r.certs, name)
	}
	c := &kubecontext.Config{Current: x.Name}
	c.Set(x)
	r.config = filepath.Join(r.dir, "config")
	if err := c.Save(vfs.OS(), r.config, func(string) string { return "" }); err != nil {
		r.Fatal(err)
	}
}

// in is the same cluster for a part of the test.
func (r *rows) in(t *testing.T) *rows {
	part := *r
	part.world = &world{T: t, ctx: t.Context(), api: r.api, store: r.world.store}
	return &part
}

// row is one of a table.
type row struct {
	name string
	test func(*rows)
}

// together tests rows beside each other: they wait most of their time.
func (r *rows) together(all ...row) {
	var wg sync.WaitGroup
	for _, one := range all {
		wg.Go(func() { r.Run(one.name, func(t *testing.T) { one.test(r.in(t)) }) })
	}
	wg.Wait()
}

// command is holdfastctl as a person has it.
func (r *rows) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(programs(r.T), "holdfastctl"), args...)
	cmd.Env = append(os.Environ(), "HOLDFAST_CONFIG="+r.config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// launch starts a program where people are.
func (r *rows) launch(cmd *exec.Cmd) error {
	if r.mesh == nil {
		return cmd.Start()
	}
	return r.mesh.Launch(cmd)
}

// try runs holdfastctl.
func (r *rows) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	cmd := r.command(ctx, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := r.launch(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		err = fmt.Errorf("holdfastctl %s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	return out.String(), err
}

func (r *rows) ctl(args ...string) string {
	r.Helper()
	out, err := r.try(args...)
	if err != nil {
		r.Fatal(err)
	}
	return out
}

// sh runs a script in a container.
func (r *rows) sh(pod, container, script string) string {
	r.Helper()
	return r.ctl("exec", "-q", pod, "-c", container, "--", "/bin/sh", "-c", script)
}

// dial connects from a node, to pods and services.
func (r *rows) dial(ctx context.Context, n *rowsNode, address string) (net.Conn, error) {
	if r.mesh == nil {
		return dialHere(ctx, address)
	}
	return r.mesh.DialFrom(ctx, n.member, address)
}

// web asks from a node, each time over a connection of its own.
func (r *rows) web(n *rowsNode) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		return r.dial(ctx, n, address)
	}}}
}

func (r *rows) post(n *rowsNode, to string) {
	r.Helper()
	answer, err := r.web(n).Post(to, "", nil)
	if err != nil {
		r.Fatal(err)
	}
	answer.Body.Close()
}

const rowsPort = 8080 // Of demo containers: each pod has an address of its own.

// demo is a container that is ready once it answers.
func (r *rows) demo(name string) corev1.Container {
	ready := &corev1.Probe{PeriodSeconds: 1}
	ready.HTTPGet = &corev1.HTTPGetAction{Path: "/readyz"}
	ready.HTTPGet.Port.IntVal = rowsPort
	return corev1.Container{
		Name: name, Image: "builtin/demo", Env: []corev1.EnvVar{{Name: "PORT", Value: strconv.Itoa(rowsPort)}},
		Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: rowsPort}}, Resources: little(), ReadinessProbe: ready,
	}
}

// url leads to the demo container of a pod.
func url(p *corev1.Pod, path string) string {
	for _, c := range p.Spec.Containers {
		if len(c.Ports) > 0 {
			return fmt.Sprintf("http://%s:%d%s", p.Status.PodIP, c.Ports[0].ContainerPort, path)
		}
	}
	return ""
}

// shContainer has the programs of the machine. Its root is R.
func shContainer(name, script string) corev1.Container {
	return corev1.Container{Name: name, Image: "host/root", Command: []string{"/bin/sh", "-c", `R="${HOLDFAST_ROOT:-}"; ` + script}, Resources: little()}
}

// little is what a container asks for where that does not matter.
func little() corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Requests: amounts("10m", "16Mi")}
}

func podOf(name string, containers ...corev1.Container) *corev1.Pod {
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.Labels = "default", name, map[string]string{"app": name}
	grace := int64(1)
	p.Spec.TerminationGracePeriodSeconds, p.Spec.Containers = &grace, containers
	return p
}

// onNode binds what a pod may run on.
func onNode(p *corev1.PodSpec, n *rowsNode) {
	p.NodeSelector = map[string]string{corev1.LabelHostname: n.node}
}

func (r *rows) run(p *corev1.Pod) *corev1.Pod {
	r.Helper()
	if _, err := objects.Create(r.ctx, r.api, p); err != nil {
		r.Fatal(err)
	}
	return r.ready(p.Name)
}

func (r *rows) pod(ctx context.Context, name string) (*corev1.Pod, error) {
	return objects.Get[*corev1.Pod](ctx, r.api, "default", name)
}

func (r *rows) ready(name string) (p *corev1.Pod) {
	r.Helper()
	r.eventually(30*time.Second, name+" is ready", func(ctx context.Context) (err error) {
		if p, err = r.pod(ctx, name); err != nil {
			return err
		}
		if !podReady(p) {
			return fmt.Errorf("it is %s: %s: %s: %+v", p.Status.Phase, p.Status.Reason, p.Status.Message, p.Status.ContainerStatuses)
		}
		return nil
	})
	return p
}

func podReady(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// restarted waits until the first container of a pod has been, once, and runs.
func (r *rows) restarted(name string) (s corev1.ContainerStatus) {
	r.Helper()
	r.eventually(30*time.Second, name+" was restarted and is ready", func(ctx context.Context) error {
		p, err := r.pod(ctx, name)
		if err != nil {
			return err
		}
		if len(p.Status.ContainerStatuses) > 0 {
			s = p.Status.ContainerStatuses[0]
		}
		if s.RestartCount == 0 || s.State.Running == nil || !s.Ready {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if s.RestartCount != 1 {
		r.Errorf("%s was restarted %d times", name, s.RestartCount)
	}
	return s
}

// of is the node on which a pod is.
func (r *rows) of(p *corev1.Pod) *rowsNode {
	r.Helper()
	for _, n := range r.nodes {
		if n.node == p.Spec.NodeName {
			return n
		}
	}
	r.Fatalf("pod %s is on node %q", p.Name, p.Spec.NodeName)
	return nil
}

func (r *rows) remove(pod string) {
	r.Helper()
	if err := objects.Delete[*corev1.Pod](r.ctx, r.api, "default", pod); err != nil {
		r.Fatal(err)
	}
}

// demoDeployment has copies of demo.
func (r *rows) demoDeployment(name string, replicas int32) *appsv1.Deployment {
	d := deployment(name, replicas, "10m")
	d.Spec.Template.Spec.Containers = []corev1.Container{r.demo("c")}
	return d
}

// ids are the containers of pods that are ready, by pod, and how often they restarted.
func (r *rows) ids(selector string) map[string]string {
	r.Helper()
	list, _, err := objects.List[*corev1.Pod](r.ctx, r.api, objects.ListOptions{Namespace: "default", Labels: selector})
	if err != nil {
		r.Fatal(err)
	}
	all := map[string]string{}
	for _, p := range list {
		for _, s := range p.Status.ContainerStatuses {
			all[p.Name+"/"+s.Name] = fmt.Sprintf("%s %s, restarted %d times", p.UID, s.ContainerID, s.RestartCount)
		}
	}
	return all
}

// same wants the containers to be those of before.
func (r *rows) same(before, after map[string]string) {
	r.Helper()
	for name, id := range before {
		if after[name] != id {
			r.Errorf("%s: %q, was %q", name, after[name], id)
		}
	}
	if len(after) != len(before) {
		r.Errorf("%d containers, were %d", len(after), len(before))
	}
}

func rowsService(name string, selector map[string]string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	s.Spec.Selector = selector
	s.Spec.Ports = []corev1.ServicePort{{Port: 80}}
	s.Spec.Ports[0].TargetPort.IntVal = rowsPort
	return s
}
