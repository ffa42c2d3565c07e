package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/api"
	kubecontext "github.com/holdfast-db/holdfast/kube/context"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// hurried is a clock in which waiting takes a hundredth of the time.
type hurried struct{ stopped }

func (c hurried) After(d time.Duration) <-chan time.Time { return c.stopped.After(d / 100) }

// patient lets a command wait as long as it says: in a hundredth of that it may have
// given up before the test has done what it waits for.
func (tt *terminal) patient(c *Config) { c.Clock = tt.clock }

// screen is what a running command has printed; who waits for a text gets it.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newScreen() *screen { return &screen{more: make(chan struct{}, 1)} }

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(b)
	select {
	case s.more <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// shows waits until a text was printed.
func (s *screen) shows(t *testing.T, text string) {
	t.Helper()
	limit := time.After(time.Minute)
	for !strings.Contains(s.String(), text) {
		select {
		case <-s.more:
		case <-limit:
			t.Fatalf("%q was not printed, but:\n%s", text, s)
		}
	}
}

// running is a command that runs beside the test.
type running struct {
	out, err *screen
	stop     context.CancelFunc
	code     chan int
}

func (tt *terminal) start(line string, set func(*Config)) *running {
	ctx, cancel := context.WithCancel(tt.t.Context())
	r := &running{out: newScreen(), err: newScreen(), stop: cancel, code: make(chan int, 1)}
	cfg := tt.config(nil, nil)
	cfg.Out, cfg.Err, cfg.Clock = r.out, r.err, hurried{tt.clock}
	if set != nil {
		set(&cfg)
	}
	go func() { r.code <- Run(ctx, cfg, words(line)) }()
	return r
}

func (r *running) ends(t *testing.T, want int) {
	t.Helper()
	select {
	case code := <-r.code:
		if code != want {
			t.Errorf("exit code %d, want %d\n%s%s", code, want, r.out, r.err)
		}
	case <-time.After(time.Minute):
		t.Fatalf("it does not end:\n%s%s", r.out, r.err)
	}
}

func (tt *terminal) put(name, color string) {
	tt.t.Helper()
	c := &corev1.ConfigMap{Data: map[string]string{"color": color}}
	c.Namespace, c.Name = "default", name
	if _, _, err := tt.admin.Create(tt.t.Context(), c); err != nil {
		tt.t.Fatal(err)
	}
}

// forgetful is a connection whose first watch ends as one does that fell too far
// behind: after some events, once the test has changed what is there.
type forgetful struct {
	grpc.ClientConnInterface
	once   sync.Once
	events int
	change func()
	end    error
}

func (f *forgetful) NewStream(ctx context.Context, d *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := f.ClientConnInterface.NewStream(ctx, d, method, opts...)
	if err == nil {
		f.once.Do(func() { s = &shortStream{ClientStream: s, left: f.events, change: f.change, end: f.end} })
	}
	return s, err
}

type shortStream struct {
	grpc.ClientStream
	left   int
	change func()
	end    error
}

func (s *shortStream) RecvMsg(m any) error {
	if s.left == 0 {
		s.change()
		return s.end
	}
	s.left--
	return s.ClientStream.RecvMsg(m)
}

func TestAWatchThatExpiredOrBrokeShowsWhatChangedMeanwhileAndGoesOn(t *testing.T) {
	for _, end := range []error{
		status.Error(codes.OutOfRange, "watch of configmaps: expired: list anew"), status.Error(codes.Unavailable, "the connection was lost"),
	} {
		t.Run(status.Code(end).String(), func(t *testing.T) {
			tt := newTerminal(t)
			tt.put("a", "blue")
			r := tt.start("get cm -w", func(c *Config) {
				dial := c.Dial
				c.Dial = func(x *kubecontext.Context) (grpc.ClientConnInterface, error) {
					cc, err := dial(x)
					return &forgetful{ClientConnInterface: cc, events: 1, change: func() { tt.put("c", "green") }, end: end}, err
				}
			})
			r.out.shows(t, "\na ")
			tt.put("b", "red")
			r.out.shows(t, "\nc ")
			tt.put("d", "grey")
			r.out.shows(t, "\nd ")
			r.stop()
			r.ends(t, 0)
			want := "NAME   DATA   AGE\na      1      0s\nb      1      0s\nc      1      0s\nd      1      0s\n"
			if r.out.String() != want || r.err.String() != "" {
				t.Errorf("printed:\n%s%swant:\n%s", r.out, r.err, want)
			}
		})
	}
}

// ends waits until a pod is told to go, and lets it go as its node would.
func (tt *terminal) ends(name string) {
	tt.t.Helper()
	for limit := time.After(time.Minute); ; {
		o, err := tt.admin.Get(tt.t.Context(), api.Pod, "default", name)
		if err != nil {
			tt.t.Fatal(err)
		}
		if o.GetDeletionTimestamp() != nil {
			break
		}
		select {
		case <-limit:
			tt.t.Fatalf("nobody evicts %s", name)
		default:
		}
	}
	if err := tt.remove(name, 0); err != nil {
		tt.t.Fatal(err)
	}
}

func TestADrainWaitsForTheBudgetAndForThePodsToEnd(t *testing.T) {
	tt := newTerminal(t)
	if err := tt.make(`
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {allocatable: {cpu: "4", memory: 8Gi, pods: "110"}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec: {containers: [{name: c, image: demo}]}
status: {phase: Running, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
status: {observedGeneration: 1, disruptionsAllowed: 0, currentHealthy: 1, desiredHealthy: 1, expectedPods: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: without}
spec: {containers: [{name: c, image: demo}]}
`); err != nil {
		t.Fatal(err)
	}
	for _, pod := range []string{"web-1", "without"} {
		if got := tt.bind(pod, "n1"); got != "" {
			t.Fatal(got)
		}
	}
	r := tt.start("drain n1 --force", nil)
	r.err.shows(t, "disruption budget web allows none now")
	tt.ends("without") // The budget of another is not waited for.
	if _, err := tt.admin.Get(t.Context(), api.Pod, "default", "web-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := tt.admin.RPC().Patch(t.Context(), &kubepb.PatchRequest{
		Object: &kubepb.Ref{Kind: "PodDisruptionBudget", Namespace: "default", Name: "web"}, Type: kubepb.PatchRequest_MERGE, Status: true,
		Patch: []byte(`{"status":{"disruptionsAllowed":1}}`),
	}); err != nil {
		t.Fatal(err)
	}
	tt.ends("web-1")
	r.ends(t, 0)
	want := "node/n1 cordoned\nevicting pod default/web-1\nevicting pod default/without\npod/web-1 evicted\npod/without evicted\nnode/n1 drained\n"
	if r.out.String() != want {
		t.Errorf("printed:\n%swant:\n%s", r.out, want)
	}
}

// TestADrainWaitsForItsPodsHoweverLittleGraceTheyHave: the node says that one has ended.
func TestADrainWaitsForItsPodsHoweverLittleGraceTheyHave(t *testing.T) {
	tt := newTerminal(t)
	if err := tt.make(`
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {allocatable: {cpu: "4", memory: 8Gi, pods: "110"}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1}
spec: {containers: [{name: c, image: demo}]}
`); err != nil {
		t.Fatal(err)
	}
	if got := tt.bind("web-1", "n1"); got != "" {
		t.Fatal(got)
	}
	r := tt.start("drain n1 --force --grace-period=0", nil)
	tt.ends("web-1")
	r.ends(t, 0)
}

func TestADeploymentThatIsWaitedForTellsHowFarItIs(t *testing.T) {
	tt := newTerminal(t)
	r := tt.start("create deployment web --image=demo --replicas=2 --wait", nil)
	r.out.shows(t, "spec update to be observed")
	for _, st := range []string{
		`{"observedGeneration":1,"replicas":1,"updatedReplicas":1}`, `{"observedGeneration":1,"replicas":2,"updatedReplicas":2,"availableReplicas":1}`,
		`{"observedGeneration":1,"replicas":2,"updatedReplicas":2,"readyReplicas":2,"availableReplicas":2}`,
	} {
		if _, err := tt.admin.RPC().Patch(t.Context(), &kubepb.PatchRequest{
			Object: &kubepb.Ref{Kind: "Deployment", Namespace: "default", Name: "web"}, Type: kubepb.PatchRequest_MERGE, Status: true,
			Patch: []byte(`{"status":` + st + `}`),
		}); err != nil {
			t.Fatal(err)
		}
	}
	r.ends(t, 0)
	want := `deployment.apps/web created
Waiting for deployment spec update to be observed...
Waiting for deployment "web" rollout to finish: 1 out of 2 new replicas have been updated...
Waiting for deployment "web" rollout to finish: 1 of 2 updated replicas are available...
deployment "web" successfully rolled out
`
	if r.out.String() != want {
		t.Errorf("printed:\n%s%swant:\n%s", r.out, r.err, want)
	}
}

func TestNoCommandForPeoplePrintsAValueOfASecret(t *testing.T) {
	tt := newTerminal(t)
	if err := os.WriteFile("s.yaml", []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := "apply -f s.yaml\nget secrets\nget secrets -o wide --show-labels\ndescribe secret s\ntree secret/s\nannotate secret s --list\n" +
		"apply -f s.yaml\nlabel secret s a=b\ncreate secret generic t --from-literal=hunter2\nget secret s -o name\nevents"
	if got := tt.typed(lines); strings.Contains(got, "hunter2") || strings.Contains(got, "aHVudGVyMg") || strings.Contains(got, "last-applied") {
		t.Errorf("printed:\n%s", got)
	}
	if got := tt.typed("get secret s -o yaml\nget secret s -o json"); strings.Contains(got, "last-applied") || strings.Contains(got, "hunter2") {
		t.Errorf("printed:\n%s", got)
	}
}

// served serves a cluster over TLS, and makes the file of contexts for it.
func (tt *terminal) served() (stop func()) {
	tt.t.Helper()
	must := func(err error) {
		tt.t.Helper()
		if err != nil {
			tt.t.Fatal(err)
		}
	}
	dir, err := filepath.Abs("pki")
	must(err)
	must(os.Mkdir(dir, 0o700))
	folder := pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: dir}
	ca, _, err := folder.CreateAuthority(pki.AuthorityRequest{CommonName: "cluster CA"})
	must(err)
	_, err = folder.Issue(ca, "apiserver", pki.Request{Profile: pki.Kubernetes, CommonName: pki.APIServerUser, Hosts: []string{"127.0.0.1"}})
	must(err)
	_, err = folder.Issue(ca, "ann", pki.Request{Profile: pki.Client, CommonName: "ann", Organizations: []string{"admin"}})
	must(err)
	reloader, err := pki.NewReloader(pki.Config{FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), Files: folder.Files("apiserver")})
	must(err)
	config, err := reloader.ServerConfig(pki.ServerOptions{ClientAuth: true, Optional: true, ShowAuthority: true})
	must(err)
	g := state.NewServer(tt.cluster.Service, credentials.NewTLS(config))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	go g.Serve(l)
	tt.t.Cleanup(g.Stop)
	c := &kubecontext.Config{Current: "dev"}
	key, err := os.ReadFile(filepath.Join(dir, "ann-key.pem"))
	must(err)
	dev := kubecontext.Context{Name: "dev", Server: []string{l.Addr().String()}, CA: "pki/ca.pem", Cert: "pki/ann.pem", Key: string(key)}
	c.Set(dev)
	stranger := dev
	stranger.Name, stranger.CA = "stranger", "pki/other/ca.pem"
	_, _, err = pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: filepath.Join(dir, "other")}.CreateAuthority(pki.AuthorityRequest{CommonName: "another CA"})
	must(err)
	c.Set(stranger)
	must(c.Save(vfs.OS(), "config", func(string) string { return "" }))
	return g.Stop
}

var anyPort = regexp.MustCompile(`127\.0\.0\.1:\d+`)

func TestAContextReachesAServerByTLSAndAMissingOneIsNamed(t *testing.T) {
	tt := newTerminal(t)
	stop := tt.served()
	tt.clock.wall.Store(time.Now().Unix())
	typed := func(line string) string {
		var out, err bytes.Buffer
		cfg := tt.config(&out, &err)
		cfg.Dial = nil
		code := Run(t.Context(), cfg, words(line))
		return anyPort.ReplaceAllString(fmt.Sprintf("%s%sexit %d\n", out.String(), err.String(), code), "SERVER")
	}
	if got := typed("get ns default -o name"); got != "namespace/default\nexit 0\n" {
		t.Error(got)
	}
	if got := typed("config view"); strings.Contains(got, "PRIVATE KEY") || !strings.Contains(got, "REDACTED") {
		t.Error(got)
	}
	if got := typed("config get-contexts -o name"); got != "dev\nstranger\nexit 0\n" {
		t.Error(got)
	}
	got := typed("get ns --context stranger")
	if !strings.Contains(got, "(the ca of the context is not that of this cluster)\nexit 1\n") {
		t.Error(got)
	}
	stop()
	want := "The connection to the server SERVER failed: dial tcp SERVER: connect: connection refused\n" +
		"(is the control plane running there? 'config view' shows the servers of the context)\nexit 1\n"
	for _, line := range []string{"get ns", "get ns -w", "describe ns default", "rollout status deploy/web"} {
		if got := typed(line); got != want {
			t.Errorf("%s:\n%swant:\n%s", line, got, want)
		}
	}
}

func TestAGetIsForObjectsOnlyWhereItNamesAKind(t *testing.T) {
	tt := newTerminal(t)
	for _, c := range []struct {
		line    string
		with    bool // Where there is a context.
		without bool
	}{
		{"get pods", true, false},
		{"get pod web", true, false},
		{"get pod/web", true, false},
		{"get pods,nodes", true, false},
		{"get all", true, false},
		{"get pods -o wide", true, true},
		{"get -n shop pods", true, true},
		{"-n shop get pods", true, true},
		{"get pods -w", true, false},
		{"get pods -w json", false, false},
		{"get pods --write-out=json", false, false},
		{"get pods --endpoints 127.0.0.1:2379", false, false},
		{"get --prefix pods", false, false},
		{"get pods --keys-only", false, false},
		{"get color", false, false},
		{"get /registry/pods", false, false},
		{"get", false, false},
		{"put pods x", false, false},
		{"kv get pods", false, false},
		{"describe pod web", true, true},
		{"--context x describe pod web", true, true},
	} {
		for path, want := range map[string]bool{"config": c.with, "elsewhere": c.without} {
			tt.environ["HOLDFAST_CONFIG"] = path
			if got := Means(tt.config(nil, nil), words(c.line)); got != want {
				t.Errorf("%s, with %s: %t", c.line, path, got)
			}
		}
	}
}
