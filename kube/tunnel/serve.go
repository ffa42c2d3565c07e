package tunnel

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Server is one to which a node keeps a tunnel. Its connection leads to this one
// alone, and notices when the other side is dead (keep-alive): what ends a tunnel is
// the end of its connection.
type Server struct {
	Name string // For the log.
	Conn grpc.ClientConnInterface
}

// Config is what the node's side stands on. All fields but Clock are required.
type Config struct {
	Name     string // Of the node.
	Instance string // Of its kubelet.
	Node     Node
	Servers  []Server
	Logger   hclog.Logger
	Clock    clock.Clock    // Default: the machine's.
	Spread   func() float64 // In [0,1): draws delays.
}

// Serve keeps a tunnel to each server until ctx ends. A server that refuses it is
// asked again as one that cannot be reached.
func Serve(ctx context.Context, cfg Config) error {
	if cfg.Name == "" || cfg.Node == nil || cfg.Logger == nil || len(cfg.Servers) == 0 || cfg.Spread == nil {
		return errors.New("tunnel: Name, Node, Logger, Servers and Spread are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	g := task.New(ctx)
	for _, s := range cfg.Servers {
		k := &keeper{Config: &cfg, server: s.Name, rpc: kubepb.NewClusterStateClient(s.Conn), log: cfg.Logger.With("server", s.Name)}
		g.Go("tunnel", k.run)
	}
	return g.Wait()
}

// keeper has one tunnel after the other to one server.
type keeper struct {
	*Config
	server string
	rpc    kubepb.ClusterStateClient
	log    hclog.Logger
}

func (k *keeper) run(ctx context.Context) error {
	delay := retryDelayMin
	for {
		stood, err := k.hold(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if stood > retryDelayMax {
			delay = retryDelayMin
		}
		level := hclog.Debug
		if stood > 0 || status.Code(err) == codes.PermissionDenied {
			level = hclog.Warn
		}
		k.log.Log(level, "no tunnel, trying again", "error", err)
		select {
		case <-k.Clock.After(delay/2 + time.Duration(k.Spread()*float64(delay/2))):
		case <-ctx.Done():
			return ctx.Err()
		}
		delay = min(2*delay, retryDelayMax)
	}
}

// hold has one tunnel until it ends, and its sessions. It tells how long it stood.
func (k *keeper) hold(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := k.rpc.Tunnel(ctx)
	if err != nil {
		return 0, err
	}
	h := &held{keeper: k, stream: stream, sessions: task.New(ctx)}
	h.mu.cancel = map[uint64]context.CancelFunc{}
	if err := stream.Send(&kubepb.TunnelRequest{Node: k.Name, Instance: k.Instance}); err != nil {
		if _, e := stream.Recv(); e != nil { // The reason is here.
			err = e
		}
		return 0, err
	}
	if _, err := stream.Recv(); err != nil {
		return 0, err
	}
	since := k.Clock.Mono()
	k.log.Debug("the tunnel stands")
	for err == nil {
		var r *kubepb.TunnelResponse
		if r, err = stream.Recv(); err == nil {
			h.told(r)
		}
	}
	h.sessions.Stop()
	return max(1, k.Clock.Mono()-since), errors.Join(err, h.sessions.Wait())
}

// held is one tunnel that stands.
type held struct {
	*keeper
	stream   grpc.BidiStreamingClient[kubepb.TunnelRequest, kubepb.TunnelResponse]
	sessions *task.Group

	mu struct { // Held while a refusal is sent, too: one sender at a time.
		sync.Mutex
		cancel map[uint64]context.CancelFunc // By session.
	}
}

// told does what the server says.
func (h *held) told(r *kubepb.TunnelResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if cancel := h.mu.cancel[r.GetOver()]; cancel != nil {
		cancel()
	}
	o := r.GetOpening()
	if o == nil {
		return
	}
	number := o.GetCredential().GetSession()
	if len(h.mu.cancel) >= sessionsPerNodeMax {
		h.refuseLocked(number, fmt.Errorf("%d sessions are open on node %s, the most that there may be: %w", len(h.mu.cancel), h.Name, ErrLimit))
		return
	}
	ctx, cancel := context.WithCancel(h.sessions.Context())
	h.mu.cancel[number] = cancel
	runs := h.sessions.Go("tunnel session", func(context.Context) error {
		err := h.session(ctx, o)
		cancel()
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.mu.cancel, number)
		if err != nil {
			h.refuseLocked(number, err)
		}
		return nil
	})
	if !runs {
		cancel()
	}
}

// refuseLocked tells that a session was not opened. A server that has it open already
// does not mind.
func (h *held) refuseLocked(number uint64, err error) {
	err = h.stream.Send(&kubepb.TunnelRequest{Refusal: &kubepb.Refusal{Session: number, Message: err.Error()}})
	if err != nil {
		h.log.Debug("a session was not opened, and nobody hears it", "error", err)
	}
}

// session opens a session and does what it is for. An error: it was not opened.
func (h *held) session(ctx context.Context, o *kubepb.Opening) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := h.rpc.Session(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&kubepb.Frame{What: &kubepb.Frame_Credential{Credential: o.Credential}}); err != nil {
		_, err = stream.Recv()
		return err
	}
	r := newRun(stream, o.GetAsk())
	outcome := r.do(ctx, h.Node)
	if outcome.Code == 0 || ctx.Err() == nil { // Else it tells of the end of the tunnel or kubelet, not of what was asked.
		h.conclude(ctx, r, outcome)
	}
	cancel()
	<-r.over
	return nil
}

// conclude sends the outcome of a session, and waits until the server has taken it.
func (h *held) conclude(ctx context.Context, r *run, outcome *kubepb.Outcome) {
	if r.send(&kubepb.Frame{What: &kubepb.Frame_Outcome{Outcome: outcome}}) != nil {
		return
	}
	select {
	case <-r.over:
	case <-h.Clock.After(outcomeMax):
	case <-ctx.Done():
	}
}
