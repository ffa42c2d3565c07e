package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

// Main runs what follows the word demo on a command line, until it is told to end by a
// signal or a request, and returns the exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "get" {
		return get(args[1:], stdout, stderr)
	}
	o, err := parse(args, os.Getenv)
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "demo: %v\n", err)
		return exitUsage
	}
	// Both signals, twice: the second time nobody wants to wait any more.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	s := newServer(o, whoami(os.Getenv), clock.Real(), stdout)
	code, err := s.run(signals, nil)
	if err != nil {
		fmt.Fprintf(stderr, "demo: %v\n", err)
		return exitFailed
	}
	return code
}

// identity is what a pod knows of itself.
type identity struct {
	Pod       string `json:"pod"`
	Namespace string `json:"namespace,omitempty"`
	Node      string `json:"node,omitempty"`
	Address   string `json:"address,omitempty"`
}

// whoami reads what the kubelet sets for this image, or the variables by which
// manifests usually ask for the same.
func whoami(getenv func(string) string) identity {
	first := func(names ...string) string {
		for _, name := range names {
			if v := getenv(name); v != "" {
				return v
			}
		}
		return ""
	}
	id := identity{
		Pod: first("HOLDFAST_POD", "POD_NAME"), Namespace: first("HOLDFAST_NAMESPACE", "POD_NAMESPACE"),
		Node: first("HOLDFAST_NODE", "NODE_NAME"), Address: first("HOLDFAST_POD_IP", "POD_IP"),
	}
	if id.Pod == "" {
		id.Pod, _ = os.Hostname() // The pod's name, where pods have host names.
	}
	return id
}

// server is one that runs.
type server struct {
	options *options
	who     identity
	clock   clock.Clock
	began   time.Duration
	exit    chan int // A request said so.

	out struct { // One line at a time.
		sync.Mutex
		io.Writer
	}

	mu struct {
		sync.Mutex
		requests          int64
		unhealthy, unable failure
		stopping          bool
		eaten             map[int][]byte
		eatenLast         int
	}
}

func newServer(o *options, who identity, c clock.Clock, out io.Writer) *server {
	s := &server{options: o, who: who, clock: c, began: c.Mono(), exit: make(chan int, 1)}
	s.out.Writer = out
	s.mu.eaten = map[int][]byte{}
	return s
}

func (s *server) logf(format string, args ...any) {
	s.out.Lock()
	defer s.out.Unlock()
	fmt.Fprintf(s.out.Writer, "%s %s\n", s.clock.Wall().UTC().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// run serves until a signal, or a request to exit. It tells its address to listening,
// if that is not nil.
func (s *server) run(signals <-chan os.Signal, listening func(net.Addr)) (code int, err error) {
	if s.options.slowStart > 0 {
		s.logf("starting, which takes %v", s.options.slowStart)
		select {
		case <-s.clock.After(s.options.slowStart):
		case sig := <-signals:
			s.logf("%v while starting", sig)
			return 0, nil
		}
	}
	l, err := s.listen()
	if err != nil {
		return 0, err
	}
	s.logf("pod %s, version %s, listens on %s", s.who.Pod, s.options.version, l.Addr())
	if listening != nil {
		listening(l.Addr())
	}
	within, cancel := context.WithCancel(context.Background())
	defer cancel()
	web := &http.Server{Handler: s.handler(), ReadHeaderTimeout: headerMax, BaseContext: func(net.Listener) context.Context { return within }}
	g := task.New(within)
	g.Go("serve", func(context.Context) error {
		if err := web.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	code = s.await(g.Context(), signals)
	s.stop(web, signals)
	cancel()
	return code, errors.Join(web.Close(), g.Wait())
}

// await returns when the server has to end.
func (s *server) await(ctx context.Context, signals <-chan os.Signal) int {
	var over <-chan time.Time
	if s.options.exitAfter > 0 {
		over = s.clock.After(s.options.exitAfter)
	}
	select {
	case sig := <-signals:
		s.logf("%v: stopping", sig)
		return 0
	case code := <-s.exit:
		s.logf("a request says: exit with %d", code)
		return code
	case <-over:
		s.logf("%v are over: exit with %d", s.options.exitAfter, s.options.exitCode)
		return s.options.exitCode
	case <-ctx.Done():
		return exitFailed
	}
}

// stop lets those who are not told yet that this one goes away still be served, and
// then waits for requests that are under way. A second signal ends both.
func (s *server) stop(web *http.Server, signals <-chan os.Signal) {
	s.mu.Lock()
	s.mu.stopping = true
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	watch := task.New(ctx)
	watch.Go("signal", func(ctx context.Context) error {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
		return nil
	})
	select {
	case <-s.clock.After(s.options.slowStop):
	case <-ctx.Done():
	}
	limit, end := context.WithTimeout(ctx, s.options.drain)
	defer end()
	if err := web.Shutdown(limit); err != nil {
		s.logf("requests are cut off: %v", err)
	}
	cancel()
	watch.Wait()
	s.logf("stopped after %d requests", s.count())
}

func (s *server) listen() (net.Listener, error) {
	port := s.options.port
	address := s.options.address
	if address != "" {
		if _, err := netip.ParseAddr(address); err != nil {
			return nil, fmt.Errorf("address to listen on: %w", err)
		}
	}
	l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if errors.Is(err, syscall.EACCES) && port > 0 && port <= portRootMax {
		s.logf("port %d is for root alone, taking %d", port, port+portShift)
		l, err = net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port+portShift)))
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: another pod of this node has it: give PORT or --port, 0 for any", err)
	}
	return l, err
}

func (s *server) count() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.requests
}
