package tunnel

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// HubConfig is what the server's side stands on. All fields are required.
type HubConfig struct {
	Logger hclog.Logger
	Clock  clock.Clock
	Random io.Reader // Where secrets come from: nobody else knows them.
}

// Hub is the server's side: it has the tunnels that nodes keep to this server, and the
// sessions of its users.
type Hub struct {
	cfg   HubConfig
	tasks *task.Group // Readers of streams; they end with what serves their stream.

	mu struct {
		sync.Mutex
		tunnels map[string]*far     // By node.
		waiting map[uint64]*Session // For their node, by number.
		users   map[string]int      // Sessions of each.
		last    uint64
	}
}

// NewHub returns a hub without tunnels.
func NewHub(cfg HubConfig) *Hub {
	h := &Hub{cfg: cfg, tasks: task.New(context.Background())}
	h.mu.tunnels, h.mu.waiting, h.mu.users = map[string]*far{}, map[uint64]*Session{}, map[string]int{}
	return h
}

// Close ends all tunnels and sessions, and waits for what serves them.
func (h *Hub) Close() error {
	h.tasks.Stop()
	return h.tasks.Wait()
}

// far is one tunnel.
type far struct {
	node, instance string
	ended          chan struct{} // Closed with the tunnel.
	rouse          chan struct{} // Holds one: something is to be said.
	cut            chan error    // Holds one: why this tunnel is to end.

	mu struct {
		sync.Mutex
		say      []*kubepb.TunnelResponse
		sessions int
	}
}

// TunnelStream is the server's end of a node's tunnel.
type TunnelStream interface {
	Send(*kubepb.TunnelResponse) error
	Recv() (*kubepb.TunnelRequest, error)
	Context() context.Context
}

// Tunnel serves the tunnel of a node until it ends. Who it is was said by hello, and
// authorized. What reads and what sends have goroutines of their own, which end when
// this returns: a node that does not read must not keep its tunnel by that.
func (h *Hub) Tunnel(stream TunnelStream, hello *kubepb.TunnelRequest) error {
	f := &far{node: hello.Node, instance: hello.Instance, ended: make(chan struct{}), rouse: make(chan struct{}, 1), cut: make(chan error, 1)}
	if err := stream.Send(&kubepb.TunnelResponse{}); err != nil {
		return err
	}
	h.join(f)
	defer h.leave(f)
	over := make(chan error, 2)
	hears := h.tasks.Go("tunnel of a node", func(context.Context) error { over <- h.hear(f, stream); return nil })
	tells := h.tasks.Go("what a node is told", func(context.Context) error { over <- f.speak(stream); return nil })
	if !hears || !tells {
		return errStopping
	}
	select {
	case err := <-over:
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	case err := <-f.cut:
		return err
	case <-stream.Context().Done():
		return stream.Context().Err()
	case <-h.tasks.Context().Done():
		return errStopping
	}
}

func (h *Hub) hear(f *far, stream TunnelStream) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if refused := r.GetRefusal(); refused != nil {
			h.refused(f, refused)
		}
	}
}

func (f *far) speak(stream TunnelStream) error {
	for {
		select {
		case <-f.rouse:
		case <-f.ended:
			return nil
		}
		f.mu.Lock()
		say := f.mu.say
		f.mu.say = nil
		f.mu.Unlock()
		for _, m := range say {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
	}
}

func (f *far) tell(m *kubepb.TunnelResponse) {
	f.mu.Lock()
	full := len(f.mu.say) >= sayMax
	if !full {
		f.mu.say = append(f.mu.say, m)
	}
	f.mu.Unlock()
	if full {
		f.end(fmt.Errorf("node %s does not read its tunnel: it %w", f.node, ErrAway))
	}
	select {
	case f.rouse <- struct{}{}:
	default:
	}
}

// end has the tunnel end, for the first reason that is given.
func (f *far) end(why error) {
	select {
	case f.cut <- why:
	default:
	}
}

// join makes a tunnel that of its node. The one before is of a connection that the
// node has given up.
func (h *Hub) join(f *far) {
	h.mu.Lock()
	before := h.mu.tunnels[f.node]
	h.mu.tunnels[f.node] = f
	h.mu.Unlock()
	if before != nil {
		before.end(fmt.Errorf("node %s: another tunnel of it stands now: this one is %w", f.node, context.Canceled))
	}
	h.cfg.Logger.Debug("tunnel stands", "node", f.node)
}

func (h *Hub) leave(f *far) {
	h.mu.Lock()
	if h.mu.tunnels[f.node] == f {
		delete(h.mu.tunnels, f.node)
	}
	h.mu.Unlock()
	close(f.ended)
	h.cfg.Logger.Debug("tunnel ended", "node", f.node)
}

// refused hears that a node did not open a session. Those of others are none of its
// business.
func (h *Hub) refused(f *far, r *kubepb.Refusal) {
	h.mu.Lock()
	s := h.mu.waiting[r.Session]
	mine := s != nil && s.far == f
	if mine {
		delete(h.mu.waiting, r.Session)
	}
	h.mu.Unlock()
	if mine {
		s.refusal = r.Message
		close(s.answered)
	}
}

// Open has a node open a session for a user, and returns when it has. Empty user: of
// another server, which counts its users itself. The caller relays the session or
// discards it.
func (h *Hub) Open(ctx context.Context, node, user string, ask *kubepb.Ask) (*Session, error) {
	secret := make([]byte, secretBytes)
	if _, err := io.ReadFull(h.cfg.Random, secret); err != nil {
		return nil, fmt.Errorf("secret of a session: %w", err)
	}
	s, err := h.begin(node, user)
	if err != nil {
		return nil, err
	}
	s.secret = secret
	h.mu.Lock()
	h.mu.waiting[s.number] = s
	h.mu.Unlock()
	s.far.tell(&kubepb.TunnelResponse{Opening: &kubepb.Opening{
		Credential: &kubepb.Credential{Node: node, Session: s.number, Secret: secret}, Ask: ask,
	}})
	select {
	case <-s.answered:
		if s.refusal == "" {
			return s, nil
		}
		err = fmt.Errorf("node %s: %s: %w", node, s.refusal, ErrLimit)
	case <-h.cfg.Clock.After(openMax):
		err = fmt.Errorf("node %s did not open a session within %v: it %w that works", node, openMax, ErrAway)
	case <-s.far.ended:
		err = fmt.Errorf("node %s: %w", node, ErrAway)
	case <-ctx.Done():
		err = ctx.Err()
	case <-h.tasks.Context().Done():
		err = errStopping
	}
	s.Discard()
	return nil, err
}

// begin counts a session.
func (h *Hub) begin(node, user string) (*Session, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.mu.tunnels[node]
	if f == nil {
		return nil, fmt.Errorf("node %s: %w", node, ErrAway)
	}
	if user != "" && h.mu.users[user] >= sessionsPerUserMax {
		return nil, fmt.Errorf("%q has %d sessions open, the most that one user may have: %w", user, sessionsPerUserMax, ErrLimit)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.sessions >= sessionsPerNodeMax {
		return nil, fmt.Errorf("%d sessions are open on node %s, the most that there may be: %w", sessionsPerNodeMax, node, ErrLimit)
	}
	f.mu.sessions++
	if user != "" {
		h.mu.users[user]++
	}
	h.mu.last++
	return newSession(h, f, h.mu.last, user), nil
}

// end is begin undone.
func (h *Hub) end(s *Session) {
	h.mu.Lock()
	delete(h.mu.waiting, s.number)
	if s.user != "" {
		if h.mu.users[s.user]--; h.mu.users[s.user] == 0 {
			delete(h.mu.users, s.user)
		}
	}
	h.mu.Unlock()
	s.far.mu.Lock()
	s.far.mu.sessions--
	s.far.mu.Unlock()
	s.far.tell(&kubepb.TunnelResponse{Over: s.number})
}

// accept is the session that a credential is for, once.
func (h *Hub) accept(c *kubepb.Credential) (*Session, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.mu.waiting[c.GetSession()]
	if s == nil || s.far.node != c.GetNode() || subtle.ConstantTimeCompare(s.secret, c.GetSecret()) != 1 {
		h.cfg.Logger.Warn("denied", "node", c.GetNode(), "verb", "session", "session", c.GetSession(), "missing", "a session that waits for this node and secret")
		return nil, fmt.Errorf("node %s, session %d: %w", c.GetNode(), c.GetSession(), ErrCredential)
	}
	delete(h.mu.waiting, c.GetSession())
	return s, nil
}
