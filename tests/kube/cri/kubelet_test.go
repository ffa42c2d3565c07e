package cri_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	kubecontext "github.com/holdfast-db/holdfast/kube/context"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/tests/ports"
)

// cluster is a control plane and a kubelet on a containerd, with the programs as people
// have them. The folder of the kubelet is named as seen from where it runs.
type cluster struct {
	*bench
	t       *testing.T
	bin     string
	api     *objects.Client
	config  string // Of contexts.
	args    []string
	kubelet *exec.Cmd
}

// demoPort is where containers of these tests listen.
const demoPort = 8080

func newCluster(t *testing.T) *cluster {
	t.Helper()
	need(t)
	c := &cluster{t: t, bin: t.TempDir(), bench: newBench(t, bridge)}
	build := exec.Command("go", "build", "-o", c.bin+"/", "./cmd/controlplane", "./cmd/kubelet", "./cmd/holdfastctl")
	build.Dir = filepath.Join("..", "..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	c.config = filepath.Join(c.dir, "config")
	ports := freePorts(t, 3)
	end(t, c.start("controlplane", "dev", "--runtime=sim", "--nodes=0", "--data-dir=dev", "--context-file="+c.config,
		"--listen-api="+ports[0], "--listen-client-url=https://"+ports[1], "--listen-peer-url=https://"+ports[2]))
	c.connect()
	var made string
	waitFor(t, "a join token", func() (ok bool) {
		made, ok = c.try("token", "create", "--dir=dev/certs", "--endpoints=https://"+ports[1], "--cacert=dev/certs/ca.pem", "--cert=dev/certs/client.pem", "--key=dev/certs/client-key.pem")
		return ok
	})
	must(t, os.WriteFile(filepath.Join(c.dir, "token"), []byte(made), 0o600))
	c.args = []string{"--server=" + ports[0], "--dir=node", "--node-name=" + os.Getenv(insideVariable), "--node-ip=" + nodeAddress, "--token-file=token",
		"--runtime=cri", "--cri-socket=unix://" + c.socket}
	c.kubelet = c.start("kubelet", c.args...)
	t.Cleanup(func() { stop(c.kubelet) })
	return c
}

// connect waits for the file that the control plane writes when it is ready.
func (c *cluster) connect() {
	c.t.Helper()
	var x *kubecontext.Context
	waitFor(c.t, "the control plane", func() bool {
		f, err := kubecontext.Load(vfs.OS(), c.config)
		if err == nil {
			x, err = f.Context("")
		}
		return err == nil
	})
	secure, err := x.TLS(vfs.OS(), clock.Real())
	must(c.t, err)
	conn, err := grpc.NewClient("passthrough:///"+x.Server[0], grpc.WithTransportCredentials(credentials.NewTLS(secure)), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	must(c.t, err)
	c.t.Cleanup(func() { conn.Close() })
	c.api = objects.New(conn, "test")
}

// start starts a program. What it says is told if the test fails.
func (c *cluster) start(name string, args ...string) *exec.Cmd {
	c.t.Helper()
	log, err := os.CreateTemp(c.dir, name+"-*.log")
	must(c.t, err)
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, log, log
	must(c.t, cmd.Start())
	must(c.t, log.Close())
	c.t.Cleanup(func() {
		if c.t.Failed() {
			b, _ := os.ReadFile(log.Name())
			c.t.Logf("%s, the end of %d bytes:\n%s", name, len(b), b[max(0, len(b)-6000):])
		}
	})
	return cmd
}

func end(t *testing.T, cmd *exec.Cmd) { t.Cleanup(func() { stop(cmd) }) }

func stop(cmd *exec.Cmd) {
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait() // That it was ended by a signal is no news.
}

func freePorts(t *testing.T, n int) []string {
	t.Helper()
	addrs, err := ports.Free(n)
	must(t, err)
	return addrs
}

// try runs holdfastctl, and returns what it printed.
func (c *cluster) try(args ...string) (string, bool) {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "holdfastctl"), args...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr, cmd.Env = c.dir, &stderr, append(os.Environ(), "HOLDFAST_CONFIG="+c.config)
	out, err := cmd.Output()
	if err != nil {
		return fmt.Sprintf("%s\n%s%v", out, stderr.String(), err), false
	}
	return string(out), true
}

func (c *cluster) ctl(args ...string) string {
	c.t.Helper()
	out, ok := c.try(args...)
	if !ok {
		c.t.Fatalf("holdfastctl %s:\n%s", strings.Join(args, " "), out)
	}
	return out
}

// eventually waits until something is so; else it says why not.
func (c *cluster) eventually(what string, so func() error) {
	c.t.Helper()
	began := time.Now()
	var why error
	c.t.Cleanup(func() {
		if c.t.Failed() && why != nil {
			c.t.Logf("%s: %v", what, why)
		}
	})
	waitFor(c.t, what, func() bool { why = so(); return why == nil })
	c.t.Logf("after %4.1f s: %s", time.Since(began).Seconds(), what)
}

// pods of an app, by name.
func (c *cluster) pods(app string) ([]*corev1.Pod, error) {
	pods, _, err := objects.List[*corev1.Pod](c.t.Context(), c.api, objects.ListOptions{Namespace: "default", Labels: "app=" + app})
	return pods, err
}

// ready are the pods of an app once there are so many, all ready.
func (c *cluster) ready(app string, n int) (pods []*corev1.Pod) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%d of %s are ready", n, app), func() (err error) {
		if pods, err = c.pods(app); err != nil || len(pods) != n {
			return fmt.Errorf("%d pods, %w", len(pods), err)
		}
		for _, p := range pods {
			if !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue }) {
				return fmt.Errorf("pod %s: %+v", p.Name, p.Status)
			}
		}
		return nil
	})
	return pods
}

// web is a Deployment of the image that needs nothing.
func web(replicas int32) *appsv1.Deployment {
	d := &appsv1.Deployment{}
	d.Namespace, d.Name = "default", "web"
	labels := map[string]string{"app": "web"}
	d.Spec.Replicas, d.Spec.Selector, d.Spec.Template.Labels = &replicas, &metav1.LabelSelector{MatchLabels: labels}, labels
	container := corev1.Container{Name: "c", Image: "builtin/demo", Args: []string{fmt.Sprint("--port=", demoPort)}}
	container.Ports = []corev1.ContainerPort{{ContainerPort: demoPort}}
	container.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1}
	container.ReadinessProbe.HTTPGet = &corev1.HTTPGetAction{Path: "/readyz"}
	container.ReadinessProbe.HTTPGet.Port.IntVal = demoPort
	d.Spec.Template.Spec.Containers = []corev1.Container{container}
	return d
}

// lone is a pod of one container.
func lone(name string, container corev1.Container) *corev1.Pod {
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.Labels = "default", name, map[string]string{"app": name}
	container.Name = "c"
	p.Spec.Containers = []corev1.Container{container}
	return p
}

// waits is why the container of a pod does not run.
func (c *cluster) waits(app string) (*corev1.ContainerStateWaiting, error) {
	pods, err := c.pods(app)
	if err != nil || len(pods) != 1 || len(pods[0].Status.ContainerStatuses) != 1 || pods[0].Status.ContainerStatuses[0].State.Waiting == nil {
		return &corev1.ContainerStateWaiting{}, fmt.Errorf("pods %+v: %w", pods, err)
	}
	return pods[0].Status.ContainerStatuses[0].State.Waiting, nil
}

// get asks over a connection of its own.
func get(url string) (string, error) {
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	return string(b), err
}

// left is what the containerd and the machine have of pods.
func (c *cluster) left() error {
	var errs []error
	for _, what := range []string{"containers", "tasks"} {
		out, err := exec.Command("ctr", "-a", c.socket, "-n", "k8s.io", what, "ls", "-q").CombinedOutput()
		if err != nil || len(out) > 0 {
			errs = append(errs, fmt.Errorf("%s of containerd: %s, %w", what, out, err))
		}
	}
	for _, pattern := range []string{c.containerd.dir + "/addresses/pods/1*", "/run/netns/*", "/sys/fs/cgroup/*/holdfast-" + os.Getenv(insideVariable) + "/*/pod*", c.dir + "/node/pods/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) > 0 {
			errs = append(errs, fmt.Errorf("files %v, %w", found, err))
		}
	}
	return errors.Join(errs...)
}

// A node whose containers are those of a containerd is one like others.
func TestANodeOnContainerdRunsADeploymentAndLeavesNothing(t *testing.T) {
	c := newCluster(t)
	_, err := objects.Create(t.Context(), c.api, web(2))
	must(t, err)
	pods := c.ready("web", 2)
	for _, p := range pods {
		c.looksInside(p)
		s := p.Status.ContainerStatuses[0]
		id, ok := strings.CutPrefix(s.ContainerID, "containerd://")
		known, err := exec.Command("ctr", "-a", c.socket, "-n", "k8s.io", "containers", "info", id).CombinedOutput()
		if !ok || err != nil || s.ImageID == "" || s.Image != "builtin/demo" {
			t.Errorf("status of %s: %+v, containerd: %s", p.Name, s, known)
		}
	}
	c.serves(pods)
	c.findsServices(pods)
	c.tellsOfImages()
	c.changesKubelet(c.restarts(pods[0]), pods[1])
	c.tellsImages("conformance.test/pushed:1")
	if c.left() == nil {
		t.Error("nothing is there before anything was deleted: what is looked for at the end is not where pods are")
	}
	must(t, objects.Delete[*appsv1.Deployment](t.Context(), c.api, "default", "web"))
	for _, name := range []string{"wrong", "root", "pushed"} {
		must(t, objects.Delete[*corev1.Pod](t.Context(), c.api, "default", name))
	}
	c.eventually("nothing is left", c.left)
	c.removesImages("conformance.test/pushed:1")
	stop(c.kubelet)
	c.removesItsNetwork()
}

// looksInside asks a pod at its address, and has people look into it through the tunnel.
func (c *cluster) looksInside(p *corev1.Pod) {
	c.t.Helper()
	url := fmt.Sprintf("http://%s:%d/", p.Status.PodIP, demoPort)
	if body, err := get(url); err != nil || !strings.Contains(body, p.Name) || !strings.HasPrefix(p.Status.PodIP, "10.88.") {
		c.t.Errorf("GET %s: %q, %v", url, body, err)
	}
	c.eventually("its log tells of a request", func() error {
		if out, ok := c.try("logs", p.Name); !ok || !strings.Contains(out, "GET") {
			return errors.New(out)
		}
		return nil
	})
	at := fmt.Sprintf("http://127.0.0.1:%d/", demoPort)
	if out := c.ctl("exec", "-q", p.Name, "--", "/bin/holdfast", "demo", "get", at); !strings.Contains(out, p.Name) {
		c.t.Errorf("asked from within: %q", out)
	}
	if out, ok := c.try("exec", "-q", p.Name, "--", "/bin/holdfast", "demo", "get", "http://127.0.0.1:1/"); ok {
		c.t.Errorf("a command that fails succeeds: %q", out)
	}
}

// serves asks for the pods at a port of the node until each has answered.
func (c *cluster) serves(pods []*corev1.Pod) {
	c.t.Helper()
	s := &corev1.Service{}
	s.Namespace, s.Name, s.Spec.Type, s.Spec.Selector = "default", "web", corev1.ServiceTypeNodePort, map[string]string{"app": "web"}
	s.Spec.Ports = []corev1.ServicePort{{Port: demoPort, NodePort: 30080}}
	_, err := objects.Create(c.t.Context(), c.api, s)
	must(c.t, err)
	answered := map[string]bool{}
	c.eventually("all pods answer at a port of the node", func() error {
		body, err := get("http://" + nodeAddress + ":30080/")
		for _, p := range pods {
			answered[p.Name] = answered[p.Name] || strings.Contains(body, p.Name)
			if !answered[p.Name] {
				err = fmt.Errorf("%s: %q, %w", p.Name, body, err)
			}
		}
		return err
	})
}

// restarts kills the process of a pod, and returns what that pod is then.
func (c *cluster) restarts(p *corev1.Pod) (is *corev1.Pod) {
	c.t.Helper()
	pids := processesOf(c.t, string(p.UID), "demo")
	if len(pids) != 1 {
		c.t.Fatalf("processes of the container: %v", pids)
	}
	must(c.t, syscall.Kill(pids[0], syscall.SIGKILL))
	c.eventually("it runs again", func() (err error) {
		if is, err = objects.Get[*corev1.Pod](c.t.Context(), c.api, "default", p.Name); err != nil {
			return err
		}
		s := is.Status.ContainerStatuses[0]
		if s.RestartCount != 1 || !s.Ready || s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 137 {
			return fmt.Errorf("container %+v", s)
		}
		return nil
	})
	if out := c.ctl("logs", "--previous", p.Name); !strings.Contains(out, "GET") {
		c.t.Errorf("the log of the attempt before: %q", out)
	}
	return is
}

// tellsOfImages has one that is nowhere, one that engines cannot have, and one that was
// brought by hand.
func (c *cluster) tellsOfImages() {
	c.t.Helper()
	pushed := *c.files.Images().Plain
	pushed.Ref, pushed.Cmd, pushed.Env = "conformance.test/pushed:1", []string{"wait"}, []string{"IS=pushed"} // That of sandboxes would be the same.
	file := filepath.Join(c.dir, "pushed.tar")
	must(c.t, os.WriteFile(file, archive(c.t, newImage(c.t, c.files.Layer, &pushed), pushed.Ref), 0o644))
	c.ctl("image", "push", file)
	c.hasImages(pushed.Ref)
	for name, image := range map[string]string{"wrong": "127.0.0.1:1/absent:1", "root": "host/root", "pushed": pushed.Ref} {
		_, err := objects.Create(c.t.Context(), c.api, lone(name, corev1.Container{Image: image}))
		must(c.t, err)
	}
	c.ready("pushed", 1)
	c.eventually("the wrong image is told", func() error {
		w, err := c.waits("wrong")
		if err == nil && (w.Reason != "ErrImagePull" && w.Reason != "ImagePullBackOff" || !strings.Contains(w.Message, "127.0.0.1:1/absent:1")) {
			err = fmt.Errorf("%+v", w)
		}
		return err
	})
	c.eventually("it backs off", func() error {
		w, err := c.waits("wrong")
		if err == nil && w.Reason != "ImagePullBackOff" {
			err = fmt.Errorf("%+v", w)
		}
		return err
	})
	c.eventually("host/root is refused", func() error {
		w, err := c.waits("root")
		if err == nil && !strings.Contains(w.Message, "only runtime native and process") {
			err = fmt.Errorf("%+v", w)
		}
		return err
	})
}

// changesKubelet kills the kubelet. The next one goes on with the pods as they are, and
// makes a third: its own registry has another password, and the tunnel is another.
func (c *cluster) changesKubelet(pods ...*corev1.Pod) {
	c.t.Helper()
	pids := map[string][]int{}
	for _, p := range pods {
		pids[p.Name] = processesOf(c.t, string(p.UID), "demo")
	}
	must(c.t, c.kubelet.Process.Kill())
	c.kubelet.Wait()
	c.kubelet = c.start("kubelet", c.args...)
	c.ctl("scale", "deployment", "web", "--replicas=3")
	now := map[string]*corev1.Pod{}
	for _, p := range c.ready("web", 3) {
		now[p.Name] = p
		c.looksInside(p)
	}
	names, err := exec.Command("ctr", "-a", c.socket, "-n", "k8s.io", "images", "ls", "-q").CombinedOutput()
	if n := strings.Count(string(names), "/builtin/demo:"); err != nil || n != 1 {
		c.t.Errorf("%d names of builtin/demo, want 1: another kubelet pulls it anew (%v):\n%s", n, err, names)
	}
	for _, p := range pods {
		was, is := p.Status.ContainerStatuses[0], now[p.Name]
		if is == nil || is.Status.ContainerStatuses[0].RestartCount != was.RestartCount || is.Status.ContainerStatuses[0].ContainerID != was.ContainerID {
			c.t.Errorf("with another kubelet %s is %+v, and was %+v", p.Name, is, was)
		}
		if got := processesOf(c.t, string(p.UID), "demo"); len(got) != 1 || !slices.Equal(got, pids[p.Name]) {
			c.t.Errorf("with another kubelet the processes of %s are %v, and were %v", p.Name, got, pids[p.Name])
		}
	}
}

// processesOf are those in the cgroups of a pod whose command line has a word.
func processesOf(t *testing.T, uid, word string) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	must(t, err)
	var all []int
	for _, f := range files {
		groups, _ := os.ReadFile(f) // It may have ended.
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "cmdline"))
		var pid int
		if _, err := fmt.Sscanf(f, "/proc/%d/", &pid); err == nil && strings.Contains(string(groups), "pod"+uid) && strings.Contains(string(command), word) {
			all = append(all, pid)
		}
	}
	return all
}
