package tunnel

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/tunnel/tunneltest"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// silent is the tunnel of a node that hears and does nothing.
type silent struct {
	ctx  context.Context
	told chan *kubepb.TunnelResponse
}

func (s silent) Context() context.Context { return s.ctx }
func (s silent) Send(m *kubepb.TunnelResponse) error {
	select {
	case s.told <- m:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s silent) Recv() (*kubepb.TunnelRequest, error) {
	<-s.ctx.Done()
	return nil, s.ctx.Err()
}

// join gives a hub a silent tunnel, until the test ends.
func join(t *testing.T, h *Hub, told chan *kubepb.TunnelResponse) (ended chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended = make(chan error, 1)
	go func() {
		ended <- h.Tunnel(silent{ctx, told}, &kubepb.TunnelRequest{Node: "n"})
		cancel() // As gRPC does when what serves a stream returns.
	}()
	<-told
	for waiting := true; waiting; { // It says so, and then it stands.
		h.mu.Lock()
		waiting = h.mu.tunnels["n"] == nil
		h.mu.Unlock()
	}
	return ended
}

func newHub(t *testing.T) (*Hub, *clocktest.Fake) {
	t.Helper()
	clk := clocktest.New()
	h := NewHub(HubConfig{Logger: hclog.NewNullLogger(), Clock: clk, Random: rand.Reader})
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h, clk
}

func TestANodeThatDoesNotAnswerIsAwayAfterAWhile(t *testing.T) {
	h, clk := newHub(t)
	if _, err := h.Open(t.Context(), "n", "ann", &kubepb.Ask{}); !errors.Is(err, ErrAway) {
		t.Errorf("without a tunnel: %v", err)
	}
	told := make(chan *kubepb.TunnelResponse, 10)
	join(t, h, told)
	opened := make(chan error, 1)
	go func() {
		_, err := h.Open(t.Context(), "n", "ann", &kubepb.Ask{})
		opened <- err
	}()
	c := (<-told).Opening.Credential
	clk.AwaitWaiters(1)
	clk.Advance(openMax)
	if err := <-opened; !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "did not open a session within 5s") {
		t.Error(err)
	}
	if over := <-told; over.Over != c.Session {
		t.Errorf("the node is told %v", over)
	}
	if _, err := h.accept(c); !errors.Is(err, ErrCredential) {
		t.Errorf("it comes after all: %v", err)
	}
	if len(h.mu.users) != 0 || len(h.mu.waiting) != 0 || h.mu.tunnels["n"].mu.sessions != 0 {
		t.Errorf("left are %v, %v", h.mu.users, h.mu.waiting)
	}
}

func TestANodeThatDoesNotReadItsTunnelLosesIt(t *testing.T) {
	h, _ := newHub(t)
	told := make(chan *kubepb.TunnelResponse)
	ended := join(t, h, told)
	h.mu.Lock()
	f := h.mu.tunnels["n"]
	h.mu.Unlock()
	f.tell(&kubepb.TunnelResponse{Over: 1})
	for waiting := true; waiting; { // Until it is being said, to nobody.
		f.mu.Lock()
		waiting = len(f.mu.say) > 0
		f.mu.Unlock()
	}
	for range 2 * sayMax {
		f.tell(&kubepb.TunnelResponse{Over: 1})
	}
	if len(f.mu.say) > sayMax {
		t.Errorf("%d messages wait for it", len(f.mu.say))
	}
	if err := <-ended; !errors.Is(err, ErrAway) {
		t.Error(err)
	}
	if _, err := h.Open(t.Context(), "n", "ann", &kubepb.Ask{}); !errors.Is(err, ErrAway) {
		t.Errorf("it still has a tunnel: %v", err)
	}
}

// refusing is a server that has no tunnels.
type refusing struct {
	grpc.ClientConnInterface
	asked atomic.Int64
}

func (r *refusing) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	r.asked.Add(1)
	return nil, status.Error(codes.Unavailable, "not now")
}

// delays is a clock that tells what is waited for, and does not wait.
type delays struct {
	clock.Clock
	seen chan time.Duration
}

func (d delays) After(wait time.Duration) <-chan time.Time {
	c := make(chan time.Time, 1)
	c <- time.Time{}
	d.seen <- wait
	return c
}

func TestAKubeletAsksAServerThatRefusesLessAndLessOften(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server, clk := &refusing{}, delays{clock.Real(), make(chan time.Duration)}
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, Config{
			Name: "n", Node: tunneltest.New(), Servers: []Server{{"s", server}}, Logger: hclog.NewNullLogger(), Clock: clk, Spread: func() float64 { return 0.5 },
		})
	}()
	want := []time.Duration{150, 300, 600, 1200, 2400, 4800, 9600, 11250, 11250}
	for i, w := range want {
		if got := <-clk.seen; got != w*time.Millisecond {
			t.Errorf("wait %d is %v, want %v", i, got, w*time.Millisecond)
		}
	}
	cancel()
	for {
		select {
		case <-clk.seen:
			continue
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		}
		break
	}
	if server.asked.Load() < int64(len(want)) {
		t.Errorf("asked %d times", server.asked.Load())
	}
}

func TestWhatANodeReturnsHasACode(t *testing.T) {
	for _, c := range []struct {
		err  error
		code codes.Code
	}{
		{nil, codes.OK},
		{fmt.Errorf("c: %w", runtime.ErrNotFound), codes.NotFound},
		{runtime.ErrNotRunning, codes.FailedPrecondition},
		{runtime.ErrInvalid, codes.InvalidArgument},
		{io.ErrUnexpectedEOF, codes.FailedPrecondition},
	} {
		o := outcomeOf(3, c.err)
		if err := errorOf(o); status.Code(err) != c.code || c.err != nil && status.Convert(err).Message() != c.err.Error() {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}
