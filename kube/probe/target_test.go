package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/internal/task"
)

// podAddress is nobody's: who reaches it went through Dial.
const podAddress = "192.0.2.7"

// target is a container whose ports are those of the test's own servers, by the
// number that the container calls them.
func target(ports map[uint16]string) *Target {
	return &Target{
		Pod: &corev1.Pod{}, Host: podAddress,
		Container: &corev1.Container{Name: "web", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}, {Name: "absurd", ContainerPort: 0}}},
		Dial: func(ctx context.Context, port uint16) (net.Conn, error) {
			address, ok := ports[port]
			if !ok {
				return nil, fmt.Errorf("dial tcp %s:%d: connect: connection refused", podAddress, port)
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		},
		Outside: func(_ context.Context, _, address string) (net.Conn, error) {
			return nil, errors.New("outside: " + address)
		},
	}
}

func get(path string, change func(*corev1.HTTPGetAction)) *corev1.Probe {
	g := &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("http"), Scheme: "HTTP"}
	if change != nil {
		change(g)
	}
	return &corev1.Probe{TimeoutSeconds: 20, ProbeHandler: corev1.ProbeHandler{HTTPGet: g}}
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestHTTPProbesJudgeByTheStatus(t *testing.T) {
	leak.Check(t)
	var seen *http.Request
	web := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r
		switch {
		case strings.HasPrefix(r.URL.Path, "/to/"):
			http.Redirect(w, r, "http://"+r.URL.Path[len("/to/"):], http.StatusFound)
		case r.URL.Path == "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case r.URL.Path == "/flood":
			for range 1000 {
				_, _ = w.Write(make([]byte, 10<<10)) // Until the other end has had enough.
			}
		default:
			code, _ := strconv.Atoi(r.URL.Path[1:])
			w.WriteHeader(max(code, 200))
			fmt.Fprintf(w, "body of %s", r.URL.Path)
		}
	})
	other := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) })
	to := target(map[uint16]string{80: web, 8080: other})
	for _, test := range []struct {
		probe *corev1.Probe
		want  string
	}{
		{get("/200", nil), "healthy"},
		{get("/299", nil), "healthy"},
		{get("/304", nil), "healthy, warning: Probe terminated redirects, Response body: "},
		{get("/404", nil), "HTTP probe failed with statuscode: 404"},
		{get("/500", nil), "HTTP probe failed with statuscode: 500"},
		{get("/flood", nil), "healthy"},
		{get("/to/"+podAddress+"/200", nil), "healthy"},
		{get("/to/"+podAddress+":8080/", nil), "HTTP probe failed with statuscode: 503"},
		{get("/to/example.com/200", nil), "healthy, warning: Probe terminated redirects, Response body: <a href=\"http://example.com/200\">Found</a>.\n\n"},
		{get("/loop", nil), `Get "/loop": stopped after 10 redirects`},
		{get("/200", func(g *corev1.HTTPGetAction) { g.Port = intstr.FromInt32(81) }), `Get "http://192.0.2.7:81/200": dial tcp 192.0.2.7:81: connect: connection refused`},
		{get("/200", func(g *corev1.HTTPGetAction) { g.Host = "example.com" }), `Get "http://example.com:80/200": outside: example.com:80`},
		{get("/200", func(g *corev1.HTTPGetAction) { g.Port = intstr.FromString("absent") }), "error: container web has no port absent: there is no such request"},
		{get("/200", func(g *corev1.HTTPGetAction) { g.Port = intstr.FromString("absurd") }), "error: container web has no port absurd: there is no such request"},
		{get("http://example.com:99/200", nil), "healthy"},
	} {
		if got := said(to.probe(context.Background(), clock.Real(), test.probe)); got != test.want {
			t.Errorf("%s: %q, not %q", test.probe.HTTPGet.Path, got, test.want)
		}
	}
	want := map[string]string{"User-Agent": userAgent, "Accept": "*/*"}
	check := func(host, uri string) {
		t.Helper()
		if seen.Host != host || seen.RequestURI != uri {
			t.Errorf("asked %s for %s", seen.Host, seen.RequestURI)
		}
		for name, value := range want {
			if got := seen.Header.Get(name); got != value {
				t.Errorf("%s is %q, not %q", name, got, value)
			}
		}
	}
	to.probe(context.Background(), clock.Real(), get("/200?a=b%20c&d", nil))
	check(podAddress+":80", "/200?a=b%20c&d")
	want = map[string]string{"User-Agent": "mine", "X-Key": "1", "Accept": ""}
	to.probe(context.Background(), clock.Real(), get("/200", func(g *corev1.HTTPGetAction) {
		g.HTTPHeaders = []corev1.HTTPHeader{{Name: "host", Value: "web.example"}, {Name: "user-agent", Value: "mine"}, {Name: "X-Key", Value: "1"}, {Name: "X-Key", Value: "2"}, {Name: "Accept"}}
	}))
	check("web.example", "/200")
	if keys := seen.Header.Values("X-Key"); len(keys) != 2 {
		t.Errorf("%q", keys)
	}
}

func said(r result) string {
	switch {
	case r.err != nil:
		return "error: " + r.err.Error()
	case r.warning:
		return "healthy, warning: " + r.message
	case r.healthy:
		return "healthy"
	}
	return r.message
}

func TestHTTPSIsAskedWithoutBelievingItsName(t *testing.T) {
	leak.Check(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || r.TLS.Version < tls.VersionTLS12 {
			w.WriteHeader(500)
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	to := target(map[uint16]string{80: s.Listener.Addr().String()})
	if got := said(to.probe(context.Background(), clock.Real(), get("/", func(g *corev1.HTTPGetAction) { g.Scheme = "HTTPS" }))); got != "healthy" {
		t.Error(got)
	}
	if got := said(to.probe(context.Background(), clock.Real(), get("/", nil))); got != "HTTP probe failed with statuscode: 400" {
		t.Error(got)
	}
}

// lateOf asks a server that never answers, and lets virtual time pass when it was reached.
func lateOf(t *testing.T, to *Target, p *corev1.Probe) string {
	t.Helper()
	clk := clocktest.New()
	reached, dial := make(chan struct{}, 8), to.Dial
	to.Dial = func(ctx context.Context, port uint16) (net.Conn, error) {
		reached <- struct{}{}
		if port == 99 {
			<-ctx.Done() // Packets are dropped.
			return nil, ctx.Err()
		}
		return dial(ctx, port)
	}
	g := task.New(context.Background())
	var r result
	g.Go("probe", func(ctx context.Context) error {
		r = to.probe(ctx, clk, p)
		return nil
	})
	<-reached
	clk.AwaitWaiters(1)
	clk.Advance(time.Duration(p.TimeoutSeconds) * time.Second)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return said(r)
}

func TestAServerThatDoesNotAnswerHasFailed(t *testing.T) {
	leak.Check(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // Nobody accepts; the kernel does.
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	silent := func() *Target { return target(map[uint16]string{80: l.Addr().String()}) }
	p := get("/", nil)
	if got := lateOf(t, silent(), p); got != "no answer to an HTTP request within 20s" {
		t.Error(got)
	}
	p.HTTPGet, p.GRPC = nil, &corev1.GRPCAction{Port: 80}
	if got := lateOf(t, silent(), p); got != "timeout: health rpc did not complete within 20s" {
		t.Error(got)
	}
	p.GRPC, p.TCPSocket = nil, &corev1.TCPSocketAction{Port: intstr.FromInt32(99)}
	if got := lateOf(t, silent(), p); got != "dial tcp 192.0.2.7:99: no connection within 20s" {
		t.Error(got)
	}
}

func TestTCPProbesWantAConnection(t *testing.T) {
	leak.Check(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to := target(map[uint16]string{80: l.Addr().String()})
	for port, want := range map[string]string{"http": "healthy", "81": "dial tcp 192.0.2.7:81: connect: connection refused", "none": "error: container web has no port none"} {
		p := &corev1.Probe{TimeoutSeconds: 20, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.Parse(port)}}}
		if got := said(to.probe(context.Background(), clock.Real(), p)); got != want {
			t.Errorf("%s: %q", port, got)
		}
	}
	p := &corev1.Probe{TimeoutSeconds: 20, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(80), Host: "127.0.0.1"}}}
	if got := said(to.probe(context.Background(), clock.Real(), p)); got != "outside: 127.0.0.1:80" {
		t.Error(got)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	to.Outside = nil
	p.TCPSocket.Port = intstr.Parse(port)
	if got := said(to.probe(context.Background(), clock.Real(), p)); got != "healthy" {
		t.Error(got)
	}
}

func TestGRPCProbesAskTheHealthService(t *testing.T) {
	leak.Check(t)
	listen := func(register func(*grpc.Server)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		register(s)
		g := task.New(context.Background())
		g.Go("serve", func(context.Context) error { return s.Serve(l) })
		t.Cleanup(func() {
			s.Stop()
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
		})
		return l.Addr().String()
	}
	h := health.NewServer()
	h.SetServingStatus("good", grpc_health_v1.HealthCheckResponse_SERVING)
	h.SetServingStatus("bad", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	to := target(map[uint16]string{
		80: listen(func(s *grpc.Server) { grpc_health_v1.RegisterHealthServer(s, h) }),
		81: listen(func(*grpc.Server) {}),
	})
	for _, test := range []struct {
		port    int32
		service *string
		want    string
	}{
		{80, nil, "healthy"},
		{80, new(""), "healthy"},
		{80, new("good"), "healthy"},
		{80, new("bad"), `service unhealthy (responded with "NOT_SERVING")`},
		{80, new("absent"), "health rpc failed: rpc error: code = NotFound desc = unknown service"},
		{81, nil, "this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service grpc.health.v1.Health"},
		{82, nil, `health rpc failed: rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: dial tcp 192.0.2.7:82: connect: connection refused"`},
	} {
		p := &corev1.Probe{TimeoutSeconds: 20, ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: test.port, Service: test.service}}}
		if got := said(to.probe(context.Background(), clock.Real(), p)); got != test.want {
			t.Errorf("%d: %q, not %q", test.port, got, test.want)
		}
	}
}

func TestTheCommandOfAProbeKnowsWhatStandsInThePod(t *testing.T) {
	to := target(nil)
	to.Container.Env = []corev1.EnvVar{{Name: "PORT", Value: "80"}, {Name: "NODE", ValueFrom: &corev1.EnvVarSource{}}}
	var ran []string
	to.Exec = func(_ context.Context, command []string) (int32, string, error) {
		ran = command
		return 0, "", nil
	}
	p := &corev1.Probe{TimeoutSeconds: 1, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"ask", "$(PORT)", "$(NODE).", "$(NONE)", "$$(PORT)"}}}}
	if got := said(to.probe(context.Background(), clocktest.New(), p)); got != "healthy" || strings.Join(ran, " ") != "ask 80 . $(NONE) $(PORT)" {
		t.Errorf("%s %q", got, ran)
	}
	if got := said(to.probe(context.Background(), clocktest.New(), &corev1.Probe{})); !strings.HasPrefix(got, "error: ") {
		t.Error(got)
	}
}

func TestHooks(t *testing.T) {
	leak.Check(t)
	web := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	to := target(map[uint16]string{80: web})
	to.Exec = func(_ context.Context, command []string) (int32, string, error) {
		switch command[0] {
		case "fails":
			return 3, "no way", nil
		case "absent":
			return 0, "", errors.New("the command cannot be run")
		}
		return 0, "", nil
	}
	exec := func(name string) *corev1.LifecycleHandler {
		return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{name}}}
	}
	http := func(port int32) *corev1.LifecycleHandler {
		return &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(port)}}
	}
	for _, test := range []struct {
		hook *corev1.LifecycleHandler
		want string
	}{
		{nil, ""}, {exec("works"), ""}, {http(80), ""},
		{&corev1.LifecycleHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(99)}}, ""},
		{&corev1.LifecycleHandler{Sleep: &corev1.SleepAction{}}, ""},
		{exec("fails"), `command "fails" exited with code 3: no way`},
		{exec("absent"), `command "absent": the command cannot be run`},
		{http(81), `Get "http://192.0.2.7:81/": dial tcp 192.0.2.7:81: connect: connection refused`},
		{&corev1.LifecycleHandler{}, "the hook says neither exec, httpGet nor sleep"},
	} {
		err := Run(context.Background(), to, clock.Real(), test.hook)
		if got := fmt.Sprint(err); got != test.want && !(err == nil && test.want == "") {
			t.Errorf("%q, not %q", got, test.want)
		}
	}
}

func TestASleepOfAHookIsCutOffByTheEndOfItsGrace(t *testing.T) {
	clk := clocktest.New()
	hook := &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 30}}
	for _, cut := range []bool{false, true} {
		ctx, cancel := context.WithCancel(context.Background())
		g := task.New(context.Background())
		var err error
		g.Go("hook", func(context.Context) error {
			err = Run(ctx, target(nil), clk, hook)
			return nil
		})
		clk.AwaitWaiters(1)
		if cut {
			cancel()
		} else {
			clk.Advance(30 * time.Second)
		}
		if waited := g.Wait(); waited != nil {
			t.Fatal(waited)
		}
		if cut != errors.Is(err, context.Canceled) {
			t.Errorf("cut %v: %v", cut, err)
		}
		cancel()
	}
}
