package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// TestMain is the program too: what ends a process is tested on one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "demo" {
		os.Exit(Main(os.Args[2:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// running is a server of this process.
type running struct {
	url     string
	signals chan os.Signal
	ended   chan int
	log     *lines
}

type lines struct {
	sync.Mutex
	bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.Lock()
	defer l.Unlock()
	return l.Buffer.Write(b)
}

func (l *lines) text() string {
	l.Lock()
	defer l.Unlock()
	return l.String()
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	o, err := parse(append([]string{"--port", "0", "--address", "127.0.0.1"}, args...), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	r := &running{signals: make(chan os.Signal, 2), ended: make(chan int, 1), log: &lines{}}
	s := newServer(o, identity{Pod: "web-1", Namespace: "shop", Node: "n1", Address: "127.0.0.1"}, clock.Real(), r.log)
	addr := make(chan net.Addr, 1)
	go func() {
		code, err := s.run(r.signals, func(a net.Addr) { addr <- a })
		if err != nil {
			t.Errorf("run: %v", err)
		}
		r.ended <- code
	}()
	r.url = "http://" + (<-addr).String()
	t.Cleanup(func() {
		select {
		case r.signals <- syscall.SIGTERM:
		default:
		}
		select {
		case code := <-r.ended:
			r.ended <- code
		case <-time.After(time.Minute):
			t.Error("the server does not end")
		}
	})
	return r
}

func (r *running) ask(t *testing.T, method, path, accept string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, r.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("X-Trace", "abc")
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := answer.Header.Get("X-Pod"); got != "web-1" {
		t.Errorf("%s: X-Pod is %q", path, got)
	}
	return answer.StatusCode, string(b)
}

func TestTheFirstPageSaysWhoAnswersInTheFormThatIsAskedFor(t *testing.T) {
	r := start(t, "--version", "v7", "--colour", `red"><script>`)
	_, text := r.ask(t, "GET", "/", "*/*")
	for _, want := range []string{"pod        web-1", "namespace  shop", "node       n1", "version    v7", "requests   1"} {
		if !strings.Contains(text, want) {
			t.Errorf("text lacks %q:\n%s", want, text)
		}
	}
	var st state
	_, text = r.ask(t, "GET", "/", "application/json")
	if err := json.Unmarshal([]byte(text), &st); err != nil || st.Pod != "web-1" || st.Requests != 2 || st.Version != "v7" {
		t.Errorf("JSON is %s, error %v", text, err)
	}
	_, text = r.ask(t, "GET", "/", "text/html")
	if !strings.Contains(text, "<b>web-1</b>") || strings.Contains(text, "<script>") {
		t.Errorf("HTML is %s", text)
	}
	if _, text = r.ask(t, "GET", "/headers?a=b", "*/*"); !strings.Contains(text, "X-Trace: abc\n") || !strings.Contains(text, "GET /headers?a=b HTTP/1.1\n") {
		t.Errorf("headers are %s", text)
	}
	if log := r.log.text(); !strings.Contains(log, "GET /headers from 127.0.0.1:") {
		t.Errorf("log lacks a request:\n%s", log)
	}
}

func TestHealthFailsWhenToldForAsLongAsTold(t *testing.T) {
	r := start(t)
	step := func(method, path string, want int) {
		t.Helper()
		if code, text := r.ask(t, method, path, ""); code != want {
			t.Errorf("%s %s is %d %s, want %d", method, path, code, text, want)
		}
	}
	for _, page := range []string{"/healthz", "/readyz"} {
		step("GET", page, 200)
		step("POST", page+"?fail=true", 200)
		step("GET", page, 503)
		step("POST", page+"?fail=false", 200)
		step("GET", page, 200)
		step("POST", page+"?fail=soon", 400)
		step("POST", page+"?fail=50ms", 200)
		deadline := time.Now().Add(time.Minute)
		for {
			if code, _ := r.ask(t, "GET", page, ""); code == 200 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s still fails", page)
			}
		}
	}
	if _, text := r.ask(t, "GET", "/", ""); !strings.Contains(text, "requests   9\n") { // Four POSTs to each, and this.
		t.Errorf("probes are counted, or others are not: %s", text)
	}
}

func TestBurningUsesAboutWhatItWasTold(t *testing.T) {
	r := start(t)
	// Other tests of this package do not run beside. A busy machine gives less, and one that
	// pauses nothing: then it is tried again.
	burnt := func() time.Duration {
		before := used(t)
		if code, text := r.ask(t, "GET", "/burn?cpu=200m&seconds=1", ""); code != 200 {
			t.Fatalf("%d %s", code, text)
		}
		return used(t) - before
	}
	got := burnt()
	for tries := 1; got < 20*time.Millisecond && tries < 5; tries++ {
		got = burnt()
	}
	if got < 20*time.Millisecond || got > 400*time.Millisecond {
		t.Errorf("200m for a second took %v of processor time", got)
	}
	for _, wrong := range []string{"cpu=", "cpu=0", "cpu=-1", "cpu=65", "cpu=1&seconds=1e9", "cpu=1&seconds=NaN", "cpu=1e-999999999"} {
		if code, _ := r.ask(t, "GET", "/burn?"+wrong, ""); code != 400 {
			t.Errorf("burn?%s is %d", wrong, code)
		}
	}
}

func used(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano())
}

func TestEatenMemoryIsHeldUntilItIsGivenBack(t *testing.T) {
	r := start(t)
	if code, text := r.ask(t, "GET", "/eat?memory=64Mi", ""); code != 200 || text != "holds 64Mi\n" {
		t.Fatalf("%d %s", code, text)
	}
	runtime.GC()
	var m runtime.MemStats
	if runtime.ReadMemStats(&m); m.HeapAlloc < 64<<20 {
		t.Errorf("heap has %d bytes", m.HeapAlloc)
	}
	if code, text := r.ask(t, "GET", "/eat?memory=8Mi&seconds=0.01", ""); code != 200 || text != "holds 72Mi\n" {
		t.Fatalf("%d %s", code, text)
	}
	r.ask(t, "GET", "/eat?memory=0", "")
	runtime.GC()
	if runtime.ReadMemStats(&m); m.HeapAlloc > 40<<20 {
		t.Errorf("heap has %d bytes after all was given back", m.HeapAlloc)
	}
	for _, wrong := range []string{"", "memory=x", "memory=-1", "memory=17Gi", "memory=1.00000000000000000001e999999999"} {
		if code, _ := r.ask(t, "GET", "/eat?"+wrong, ""); code != 400 {
			t.Errorf("eat?%s is %d", wrong, code)
		}
	}
}

func TestStoppingFinishesWhatIsUnderWay(t *testing.T) {
	r := start(t, "--slow-stop", "100ms")
	type result struct {
		text string
		err  error
	}
	got := make(chan result, 1)
	arrived := make(chan struct{})
	go func() {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			got <- result{err: err}
			close(arrived)
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /wait?seconds=0.5 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		close(arrived)
		b, err := io.ReadAll(conn)
		got <- result{string(b), err}
	}()
	<-arrived
	waitFor(t, "the slow request", func() bool { return r.count(t) >= 2 })
	r.signals <- syscall.SIGTERM
	waitFor(t, "not ready", func() bool {
		answer, err := http.Get(r.url + "/readyz")
		if err != nil {
			return true // It stopped meanwhile, on a slow machine.
		}
		answer.Body.Close()
		return answer.StatusCode == 503
	})
	if res := <-got; res.err != nil || !strings.HasSuffix(res.text, "waited 500ms\n") {
		t.Errorf("the request under way got %q, error %v", res.text, res.err)
	}
	if code := <-r.ended; code != 0 {
		t.Errorf("exit code %d", code)
	} else {
		r.ended <- code
	}
	if _, err := http.Get(r.url + "/"); err == nil {
		t.Error("it still listens")
	}
}

// count is how many requests came, this one too.
func (r *running) count(t *testing.T) int64 {
	var st state
	_, text := r.ask(t, "GET", "/", "application/json")
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		t.Fatal(err)
	}
	return st.Requests
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
		runtime.Gosched()
	}
}

func TestARequestEndsTheProcessWithItsCode(t *testing.T) {
	r := start(t)
	if code, _ := r.ask(t, "GET", "/exit?code=256", ""); code != 400 {
		t.Errorf("code 256 is %d", code)
	}
	if _, text := r.ask(t, "GET", "/exit?code=3", ""); text != "exit with 3\n" {
		t.Errorf("answer is %q", text)
	}
	code := <-r.ended
	if code != 3 {
		t.Errorf("exit code %d", code)
	}
	r.ended <- code
}

func TestTheProcessEndsOnTermAndByItself(t *testing.T) {
	for _, c := range []struct {
		name string
		env  []string
		term bool
		want int
	}{
		{"TERM while it starts", []string{"DEMO_SLOW_START=1h"}, true, 0},
		{"TERM while it serves", nil, true, 0},
		{"its time is over", []string{"DEMO_EXIT_AFTER=10ms", "DEMO_EXIT_CODE=7"}, false, 7},
		{"a wrong variable", []string{"DEMO_DRAIN=never"}, false, exitUsage},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "demo")
			cmd.Env = append(os.Environ(), append(c.env, "PORT=0", "HOLDFAST_POD_IP=127.0.0.1")...)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if c.term {
				if _, err := out.Read(make([]byte, 1)); err != nil { // The first line: signals are heard by then.
					t.Fatal(err)
				}
				cmd.Process.Signal(syscall.SIGTERM)
			}
			io.Copy(io.Discard, out)
			err = cmd.Wait()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != c.want {
				t.Errorf("exit code %d, want %d", got, c.want)
			}
		})
	}
}

func TestCopiesOnOneNodeListenOnTheAddressesOfTheirPods(t *testing.T) {
	first, err := (&server{options: &options{port: 0, address: "127.64.0.1"}}).listen()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	port := first.Addr().(*net.TCPAddr).Port
	second, err := (&server{options: &options{port: port, address: "127.64.0.2"}}).listen()
	if err != nil {
		t.Fatalf("the second pod: %v", err)
	}
	second.Close()
	if _, err := (&server{options: &options{port: port, address: "127.64.0.1"}}).listen(); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "PORT") {
		t.Errorf("a second server of one address: %v", err)
	}
}

func TestTheEnvironmentCountsWhereTheCommandLineIsSilent(t *testing.T) {
	env := map[string]string{"PORT": "8080", "DEMO_VERSION": "v2", "HOLDFAST_POD_IP": "127.64.0.9", "POD_NAME": "a", "NODE_NAME": "n"}
	o, err := parse([]string{"--version", "v3"}, func(n string) string { return env[n] })
	if err != nil || o.port != 8080 || o.version != "v3" || o.address != "127.64.0.9" {
		t.Errorf("options %+v, error %v", o, err)
	}
	if id := whoami(func(n string) string { return env[n] }); id.Pod != "a" || id.Node != "n" || id.Address != "127.64.0.9" {
		t.Errorf("identity %+v", id)
	}
	for _, args := range [][]string{{"--port", "-1"}, {"--port", "65536"}, {"--drain", "-1s"}, {"--exit-code", "256"}, {"serve"}} {
		if _, err := parse(args, func(string) string { return "" }); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

func TestGetPrintsTheAnswerAndFailsWithTheServer(t *testing.T) {
	r := start(t)
	var out, errs bytes.Buffer
	if code := Main([]string{"get", r.url + "/", "-n", "2"}, &out, &errs); code != 0 || strings.Count(out.String(), "pod        web-1") != 2 {
		t.Errorf("exit code %d: %s%s", code, out.String(), errs.String())
	}
	r.ask(t, "POST", "/healthz?fail=true", "")
	if code := Main([]string{"get", r.url + "/healthz"}, &out, &errs); code != exitFailed || !strings.Contains(errs.String(), strconv.Itoa(503)) {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	if code := Main([]string{"get"}, &out, &errs); code != exitUsage {
		t.Errorf("exit code %d without a URL", code)
	}
}
