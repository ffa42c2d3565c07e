package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
)

// UserspaceConfig says where a plane without root listens. Logger and Random are
// required.
type UserspaceConfig struct {
	// Address is where ports of the node are. Default: 127.0.0.1.
	Address netip.Addr

	// Connections and Flows are carried at a time, and at most a quarter of them at one
	// port. Further connections wait in the kernel's backlog, datagrams that would begin
	// further flows are lost. Default: as many as the process may have files for, but no
	// more than 8192 and 4096.
	Connections, Flows int

	Random func() uint64 // Chooses slots; from many goroutines.
	Clock  clock.Clock   // Default: the machine's.
	Logger hclog.Logger
}

// Userspace is the plane without root: it listens, and carries what comes to an
// endpoint itself. It listens at ports of the node, and at addresses of services that
// are loopback's, which need nobody to give them to the machine: a cluster of nodes
// without root has a service range in 127.0.0.0/8. Elsewhere services have only their
// names and their ports of the node. Ports below 1024 may be refused to it.
//
// Several nodes on one machine listen at the same places; the kernel spreads clients
// over them.
type Userspace struct {
	cfg   UserspaceConfig
	log   hclog.Logger
	tasks *task.Group

	connections, flows places
	datagrams          sync.Pool // Buffers of flows that have something to say.

	// Owned by who calls Replace and Update.
	ports   map[string]*served
	lacking Plan // Ports some of whose places another program has.
}

// served is a port and its listeners.
type served struct {
	plane     *Userspace
	name      string
	listeners map[Front]io.Closer

	connections, flows places
	full               sync.Once // What does not fit is told once.

	mu struct { // Changes while connections look at it.
		sync.Mutex
		port   *Port
		slots  []netip.AddrPort
		sticky map[netip.Addr]stuck
		flows  map[origin]*flow

		firstEnd time.Duration // When all were looked at last, nobody's time was over before.
	}
}

// stuck is what a client gets again.
type stuck struct {
	endpoint netip.AddrPort
	until    time.Duration
}

// NewUserspace returns a plane that listens nowhere yet.
func NewUserspace(cfg UserspaceConfig) (*Userspace, error) {
	if cfg.Random == nil || cfg.Logger == nil {
		return nil, errors.New("services in userspace: no Random, or no Logger")
	}
	if !cfg.Address.IsValid() {
		cfg.Address = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	if err := cfg.setPlaces(); err != nil {
		return nil, fmt.Errorf("services in userspace: %w", err)
	}
	u := &Userspace{cfg: cfg, log: cfg.Logger.Named("services"), tasks: task.New(context.Background()), ports: map[string]*served{}, lacking: Plan{}}
	u.connections, u.flows = make(places, cfg.Connections), make(places, cfg.Flows)
	u.datagrams.New = func() any { return new([datagramMax]byte) }
	return u, nil
}

func (u *Userspace) newServed(name string) *served {
	s := &served{
		plane: u, name: name, listeners: map[Front]io.Closer{},
		connections: make(places, atLeastOne(u.cfg.Connections/placesPerPort)), flows: make(places, atLeastOne(u.cfg.Flows/placesPerPort)),
	}
	s.mu.sticky, s.mu.flows = map[netip.Addr]stuck{}, map[origin]*flow{}
	return s
}

// Replace implements Plane. What stays the same keeps its connections.
func (u *Userspace) Replace(p Plan) error {
	changes := maps.Clone(p)
	for name := range u.ports { //tidy:ordered each by itself
		if changes[name] == nil {
			changes[name] = nil
		}
	}
	return u.Update(changes)
}

// Update implements Plane. A place where it cannot listen does not keep it from others,
// and is tried again with the next change of any port.
func (u *Userspace) Update(changes Plan) error {
	names := slices.Sorted(maps.Keys(changes))
	for _, name := range names { // What goes, first: another may want its place.
		if s := u.ports[name]; s != nil {
			s.unlisten(changes[name])
		}
	}
	for _, name := range names {
		p := changes[name]
		s := u.ports[name]
		if delete(u.lacking, name); p == nil {
			delete(u.ports, name)
			continue
		}
		if s == nil {
			s = u.newServed(name)
			u.ports[name] = s
		}
		s.set(p)
		u.lacking[name] = p
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(u.lacking)) {
		err := u.ports[name].listen(u.lacking[name])
		if errs = append(errs, err); err == nil {
			delete(u.lacking, name)
		}
	}
	return errors.Join(errs...)
}

// Stands implements Plane: nobody else can close what it listens on.
func (u *Userspace) Stands() (bool, error) { return true, nil }

// Close implements Plane: nobody listens any more, and connections end.
func (u *Userspace) Close() error {
	err := u.Replace(Plan{})
	u.tasks.Stop()
	return errors.Join(err, u.tasks.Wait())
}

// unlisten closes what the port no longer has. Without endpoints nobody listens:
// clients are refused, and need not wait.
func (s *served) unlisten(p *Port) {
	for f, l := range s.listeners { //tidy:ordered each by itself
		if p == nil || len(p.Endpoints) == 0 || !slices.Contains(p.Fronts, f) {
			l.Close()
			delete(s.listeners, f)
		}
	}
	if p == nil {
		s.set(&Port{})
	}
}

// set changes where new connections go.
func (s *served) set(p *Port) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.port = p
	if len(p.Endpoints) == 0 {
		s.mu.slots = nil
	} else {
		s.mu.slots = Assign(s.mu.slots, p.Endpoints)
	}
	keeps := backendsOf(p)
	for _, f := range s.mu.flows { //tidy:ordered each by itself
		if !slices.Contains(keeps, f.endpoint) {
			f.Close()
		}
	}
	for client, at := range s.mu.sticky { //tidy:ordered each by itself
		if p.Sticky == 0 || !slices.Contains(p.Endpoints, at.endpoint) {
			delete(s.mu.sticky, client)
		}
	}
}

// listen opens what the port has and does not listen at yet.
func (s *served) listen(p *Port) error {
	if len(p.Endpoints) == 0 {
		return nil
	}
	var errs []error
	for _, f := range p.Fronts {
		at := f.Address
		if !at.IsValid() {
			at = s.plane.cfg.Address
		} else if !at.IsLoopback() && at != s.plane.cfg.Address {
			continue // Nobody gave it to this machine.
		}
		if s.listeners[f] != nil {
			continue
		}
		l, err := s.open(p.Protocol, netip.AddrPortFrom(at, f.Port))
		if err != nil {
			errs = append(errs, fmt.Errorf("listen for %s (ports below 1024 take root; or another program has it): %w", p.Name, err))
			continue
		}
		s.listeners[f] = l
	}
	return errors.Join(errs...)
}

func (s *served) open(protocol Protocol, at netip.AddrPort) (io.Closer, error) {
	u := s.plane
	config := net.ListenConfig{Control: share}
	name := "service " + at.String()
	if protocol == TCP {
		l, err := config.Listen(u.tasks.Context(), "tcp4", at.String())
		if err != nil {
			return nil, err
		}
		open, shut := context.WithCancel(u.tasks.Context())
		u.tasks.Go(name, func(context.Context) error { return s.accept(open, l) })
		return closer(func() error { shut(); return l.Close() }), nil
	}
	p, err := config.ListenPacket(u.tasks.Context(), "udp4", at.String())
	if err != nil {
		return nil, err
	}
	u.tasks.Go(name, func(ctx context.Context) error { return s.relay(ctx, p.(*net.UDPConn)) })
	return p, nil
}

// endpoint chooses one for a client, other than those that were tried.
func (s *served) endpoint(client netip.Addr, tried []netip.AddrPort) (netip.AddrPort, bool) {
	draw, now := s.plane.cfg.Random(), s.plane.cfg.Clock.Mono()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.slots) == 0 {
		return netip.AddrPort{}, false
	}
	sticky := s.mu.port.Sticky
	if at, ok := s.mu.sticky[client]; ok && at.until > now && len(tried) == 0 {
		s.mu.sticky[client] = stuck{at.endpoint, now + sticky}
		return at.endpoint, true
	}
	start := int(draw % uint64(len(s.mu.slots)))
	for i := range s.mu.slots {
		e := s.mu.slots[(start+i)%len(s.mu.slots)]
		if slices.Contains(tried, e) {
			continue
		}
		if sticky > 0 {
			s.stickLocked(client, stuck{e, now + sticky}, now)
		}
		return e, true
	}
	return netip.AddrPort{}, false
}

func (s *served) stickLocked(client netip.Addr, to stuck, now time.Duration) {
	if n := len(s.mu.sticky); n%affinityScan == affinityScan-1 || n >= stickyMax && s.mu.firstEnd <= now {
		s.mu.firstEnd = to.until
		for c, at := range s.mu.sticky { //tidy:ordered each by itself
			if at.until <= now {
				delete(s.mu.sticky, c)
				continue
			}
			s.mu.firstEnd = min(s.mu.firstEnd, at.until)
		}
	}
	if _, has := s.mu.sticky[client]; has || len(s.mu.sticky) < stickyMax {
		s.mu.sticky[client] = to
	}
}

// closer is what ends a listener.
type closer func() error

func (c closer) Close() error { return c() }

// accept carries connections until the listener is closed, or its context ends. One
// for which there is no place waits, and with it those in the kernel's backlog.
func (s *served) accept(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for told := false; ; {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			if !told {
				s.plane.log.Warn("cannot accept connections to a service, trying on", "port", s.name, "error", err)
			}
			if told = true; !s.plane.pause(ctx) {
				return nil
			}
			continue
		}
		told = false
		leave, ok := s.enter(ctx)
		if ok {
			ok = s.plane.tasks.Go("service connection", func(ctx context.Context) error {
				defer leave()
				s.carry(ctx, c.(*net.TCPConn))
				return nil
			})
		}
		if !ok {
			c.Close()
			return nil
		}
	}
}

func (u *Userspace) pause(ctx context.Context) bool {
	select {
	case <-u.cfg.Clock.After(retryDelay):
		return true
	case <-ctx.Done():
		return false
	}
}

// carry connects a client with an endpoint, until both have said all.
func (s *served) carry(ctx context.Context, client *net.TCPConn) {
	defer client.Close()
	endpoint := s.dial(ctx, client.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
	if endpoint == nil {
		client.SetLinger(0) // A reset tells the client that this failed.
		return
	}
	defer endpoint.Close()
	stop := context.AfterFunc(ctx, func() { client.Close(); endpoint.Close() })
	defer stop()
	both := task.New(ctx)
	both.Go("service answer", func(context.Context) error { return oneWay(client, endpoint) })
	if err := oneWay(endpoint, client); err != nil { // What broke one way breaks the other.
		client.SetLinger(0)
		client.Close()
		endpoint.Close()
	}
	if err := both.Wait(); err != nil {
		s.plane.log.Debug("connection to a service ended", "error", err)
	}
}

// oneWay copies until the end, and passes the end on.
func oneWay(to, from *net.TCPConn) error {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		from.Close()
		return err
	}
	return to.CloseWrite()
}

// dial connects to an endpoint, or to another if that one does not answer.
func (s *served) dial(ctx context.Context, client netip.Addr) *net.TCPConn {
	var tried []netip.AddrPort
	d := net.Dialer{Timeout: dialWait}
	for range dialTries {
		e, ok := s.endpoint(client, tried)
		if !ok {
			break
		}
		c, err := d.DialContext(ctx, "tcp4", e.String())
		if err == nil {
			return c.(*net.TCPConn)
		}
		s.plane.log.Debug("endpoint does not answer, trying another", "endpoint", e, "error", err)
		tried = append(tried, e)
	}
	return nil
}
