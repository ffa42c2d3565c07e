// Package kube_test runs the programs of the scheduler layer as their users do, and
// harms them.
package kube_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/tests/kube/replay"
	"github.com/holdfast-db/holdfast/tests/ports"
)

var (
	keep  = flag.Bool("keep", false, "keep the folders of logs and data")
	raced = flag.Bool("programs.race", false, "build the programs with the race detector; a race of theirs fails the test")
)

// built are the programs, made once for all tests.
var built struct {
	sync.Once
	dir string
	err error
}

func TestMain(m *testing.M) {
	swept, err := sweepAborted(os.TempDir())
	if err != nil || len(swept) > 0 {
		fmt.Fprintf(os.Stderr, "ended what aborted runs have left in %q: %v\n", swept, err)
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

func programs(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "holdfast-kube-"); built.err != nil {
			return
		}
		args := []string{"build", "-o", built.dir + string(filepath.Separator)}
		if *raced { // builtin/demo is nothing but the program: it finds no libraries.
			args = append(args, "-race", "-tags=netgo,osusergo", "-ldflags=-linkmode external -extldflags -static")
		}
		cmd := exec.Command("go", append(args, "./cmd/controlplane", "./cmd/kubelet", "./cmd/holdfastctl")...)
		cmd.Dir = filepath.Join("..", "..")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

// process is a program that runs, or has run.
type process struct {
	t    *testing.T
	name string
	args []string
	env  []string
	dir  string // Where it runs. Empty: where the test does.
	says string // What it says once it is ready.

	launch func(*exec.Cmd) error // Starts it somewhere else. Nil: here.

	cmd   *exec.Cmd
	out   *output
	ended chan struct{}
}

// output keeps what a process says, in its file and the end of it here.
type output struct {
	t     *testing.T
	mu    sync.Mutex
	w     io.Writer
	text  []byte
	says  string
	ready chan struct{}
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, b...)
	if bytes.Contains(b, []byte("WARNING: DATA RACE")) {
		o.t.Errorf("%s", b)
	}
	if o.says != "" && bytes.Contains(o.text, []byte(o.says)) {
		o.says = ""
		close(o.ready)
	}
	if o.says == "" && len(o.text) > 4000 {
		o.text = o.text[len(o.text)-2000:]
	}
	return o.w.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

func (p *process) start() {
	p.t.Helper()
	log, err := os.OpenFile(p.args[0]+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	p.out, p.ended = &output{t: p.t, w: log, says: p.says, ready: make(chan struct{})}, make(chan struct{})
	p.cmd = exec.Command(filepath.Join(programs(p.t), p.name), p.args[1:]...)
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = p.dir, p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // Nothing is left behind.
	launch := p.launch
	if launch == nil {
		launch = (*exec.Cmd).Start
	}
	if err := launch(p.cmd); err != nil {
		p.t.Fatal(err)
	}
	cmd, ended := p.cmd, p.ended
	go func() { // Ends with the process.
		cmd.Wait() // That it was killed is no news.
		log.Close()
		close(ended)
	}()
}

func (p *process) awaitReady() {
	p.t.Helper()
	select {
	case <-p.out.ready:
	case <-p.ended:
		p.t.Fatalf("%s ended:\n%s", p.name, p.out)
	case <-time.After(slack * 60 * time.Second):
		p.t.Fatalf("%s is not ready:\n%s", p.name, p.out)
	}
}

func (p *process) signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.ended
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// folder is where a test's cluster lives. It is kept when the test fails.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", folderPrefix)
	if err != nil {
		t.Fatal(err)
	}
	mark, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer mark.Close()
		if t.Failed() || *keep {
			t.Log("kept:", dir, os.Remove(filepath.Join(dir, aliveFile)))
			return
		}
		os.RemoveAll(dir)
	})
	return dir
}

func freePorts(t *testing.T, n int) []string {
	t.Helper()
	addrs, err := ports.Free(n)
	if err != nil {
		t.Fatal(err)
	}
	return addrs
}

// world is a cluster as somebody sees it who may do everything.
type world struct {
	*testing.T
	ctx   context.Context
	api   *objects.Client
	store *client.Client
}

// answerBytesMax is for lists of some ten thousand pods.
const answerBytesMax = 256 << 20

// dialer connects to an address.
type dialer func(ctx context.Context, address string) (net.Conn, error)

func dialHere(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// look connects to the API and to the store, each with certificates of a folder.
func look(t *testing.T, certs string, apis, stores []string, dial dialer) *world {
	t.Helper()
	w := &world{T: t, ctx: t.Context()}
	conn, err := grpc.NewClient("passthrough:///"+apis[0],
		grpc.WithTransportCredentials(credentials.NewTLS(clientTLS(t, certs, "admin"))),
		grpc.WithContextDialer(dial.anyOf(apis)),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(answerBytesMax)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	w.api = objects.New(conn, "test")
	w.store, err = client.New(client.Config{Endpoints: stores, TLS: clientTLS(t, certs, "client"), Dial: dial, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	return w
}

// anyOf dials the first that takes the connection.
func (dial dialer) anyOf(addresses []string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, _ string) (conn net.Conn, err error) {
		for _, a := range addresses {
			if conn, err = dial(ctx, a); err == nil {
				return conn, nil
			}
		}
		return nil, err
	}
}

func clientTLS(t *testing.T, certs, name string) *tls.Config {
	t.Helper()
	files := pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: certs}.Files(name)
	r, err := pki.NewReloader(pki.Config{FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), Files: files})
	if err != nil {
		t.Fatal(err)
	}
	return r.ClientConfig("")
}

// slack is how much longer than on a machine at leisure anything may take: the log says how
// long it took.
const slack = 3

// eventually waits until what is asked for is so. What it says is why not yet.
func (w *world) eventually(patience time.Duration, what string, so func(ctx context.Context) error) {
	w.Helper()
	w.within(slack*patience, what, so)
}

// within is for what is promised on any machine.
func (w *world) within(patience time.Duration, what string, so func(ctx context.Context) error) {
	w.Helper()
	began := time.Now()
	for {
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		err := so(ctx)
		cancel()
		if err == nil {
			w.Logf("after %4.1f s: %s", time.Since(began).Seconds(), what)
			return
		}
		if time.Since(began) > patience {
			w.Fatalf("not within %v: %s: %v", patience, what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func deployment(name string, replicas int32, cpu string) *appsv1.Deployment {
	d := &appsv1.Deployment{}
	d.Namespace, d.Name = "default", name
	labels := map[string]string{"app": name}
	d.Spec.Replicas, d.Spec.Selector = &replicas, &metav1.LabelSelector{MatchLabels: labels}
	d.Spec.Template.Labels = labels
	d.Spec.Template.Annotations = map[string]string{"sim.holdfast.dev/start": "100ms"}
	grace := int64(1)
	d.Spec.Template.Spec.TerminationGracePeriodSeconds = &grace
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "c", Image: "builtin/demo", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("64Mi")},
	}}}
	return d
}

// pods of an app that are not on their way out, by name.
func (w *world) pods(ctx context.Context, app string) (map[string]*corev1.Pod, error) {
	list, _, err := objects.List[*corev1.Pod](ctx, w.api, objects.ListOptions{Namespace: "default", Labels: "app=" + app})
	if err != nil {
		return nil, err
	}
	all := map[string]*corev1.Pod{}
	for _, p := range list {
		if p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded {
			all[p.Name] = p
		}
	}
	return all, nil
}

// rolledOut says why a Deployment is not as it is meant to be.
func (w *world) rolledOut(ctx context.Context, name string, replicas int32) error {
	d, err := objects.Get[*appsv1.Deployment](ctx, w.api, "default", name)
	if err != nil {
		return err
	}
	s := d.Status
	if s.ObservedGeneration < d.Generation || s.UpdatedReplicas != replicas || s.Replicas != replicas || s.AvailableReplicas != replicas {
		return fmt.Errorf("deployment %s: generation %d of %d, %d updated, %d there, %d available of %d",
			name, s.ObservedGeneration, d.Generation, s.UpdatedReplicas, s.Replicas, s.AvailableReplicas, replicas)
	}
	pods, err := w.pods(ctx, name)
	if err != nil {
		return err
	}
	if len(pods) != int(replicas) {
		return fmt.Errorf("%d pods of %d", len(pods), replicas)
	}
	for _, p := range pods {
		if p.Status.Phase != corev1.PodRunning || p.Spec.NodeName == "" {
			return fmt.Errorf("pod %s on %q is %s", p.Name, p.Spec.NodeName, p.Status.Phase)
		}
	}
	return nil
}

func (w *world) create(o *appsv1.Deployment) {
	w.Helper()
	if _, err := objects.Create(w.ctx, w.api, o); err != nil {
		w.Fatal(err)
	}
}

// replay checks the whole history.
func (w *world) replay() {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, slack*60*time.Second)
	defer cancel()
	report, err := replay.Check(ctx, w.store)
	if err != nil {
		w.Fatal(err)
	}
	w.Logf("history of %d revisions: %d binds, %d deletions of bound pods", report.Revisions, report.Binds, report.Deletes)
	if len(report.Violations) > 0 {
		w.Fatalf("the history is wrong:\n%s", strings.Join(report.Violations, "\n"))
	}
}

// dialAPI connects to one API.
func dialAPI(t *testing.T, address string, secure *tls.Config, dial dialer) *world {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithContextDialer(dial), grpc.WithTransportCredentials(credentials.NewTLS(secure)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &world{T: t, ctx: t.Context(), api: objects.New(conn, "test")}
}
