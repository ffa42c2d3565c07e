// Package network is the network between the members of a cluster under test,
// with what can go wrong on it: packets dropped in one direction, lost now and
// then, held up, connections reset.
//
// Where namespaces can be made, each member lives in one of its own, at one
// bridge, which has a namespace too: rules of the host see none of it. Drops
// are silent and made by nftables where packets arrive. What delays is a proxy
// in front of a member's port for the others, inside the member's namespace.
// Where namespaces cannot be made the same proxies stand on loopback and do the
// cuts as well: bytes on a cut link are held, as TCP would hold them.
//
// The tests and their clients have a namespace of their own, and no address of
// the host is used. What is made is written down by name before it is made
// (Names), so that a later run can clean up after one that died.
package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/tests/cluster"
	"github.com/holdfast-db/holdfast/tests/ports"
)

// Clients is the number of the place where the tests are.
const Clients = -1

const (
	clientPort = 2379
	peerPort   = 2380
	behindPort = 12380 // Of a member that stands behind a proxy, on its loopback.
)

// Config of a mesh.
type Config struct {
	Members int
	Proxied bool   // Put proxies in front, which can delay and reset.
	Names   *Names // Nil: no namespaces, proxies on loopback.
}

// Mesh is a network with all its faults.
type Mesh struct {
	cfg    Config
	places []cluster.Place
	spaces []*space // Of the members; nil on loopback.
	client *space
	fronts []*front

	mu    sync.Mutex
	links map[[2]int]*link // By who sends and who receives.
	pids  func(member int) int
}

// New makes a network and shows that everybody reaches everybody.
func New(cfg Config) (*Mesh, error) {
	m := &Mesh{cfg: cfg, links: map[[2]int]*link{}, pids: func(int) int { return 0 }}
	for i := Clients; i < cfg.Members; i++ {
		for j := Clients; j < cfg.Members; j++ {
			m.links[[2]int{i, j}] = newLink()
		}
	}
	err := m.open()
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *Mesh) open() error {
	if m.cfg.Names == nil {
		m.cfg.Proxied = true
		return m.openLoopback()
	}
	if err := m.openSpaces(); err != nil {
		return err
	}
	for i, s := range m.spaces {
		p := cluster.Place{
			ClientURL: fmt.Sprintf("https://%s:%d", addressOf(i), clientPort),
			PeerURL:   fmt.Sprintf("https://%s:%d", addressOf(i), peerPort),
			Launch:    func(cmd *exec.Cmd) error { return s.do(cmd.Start) },
		}
		if m.cfg.Proxied {
			p.ListenURL = fmt.Sprintf("https://127.0.0.1:%d", behindPort)
			var l net.Listener
			err := s.do(func() (err error) {
				l, err = net.Listen("tcp", fmt.Sprintf("%s:%d", addressOf(i), peerPort))
				return err
			})
			if err != nil {
				return err
			}
			m.fronts = append(m.fronts, m.newFront(i, l, fmt.Sprintf("127.0.0.1:%d", behindPort)))
		}
		m.places = append(m.places, p)
	}
	return m.probe()
}

func (m *Mesh) openLoopback() error {
	for i := range m.cfg.Members {
		addrs, err := ports.Free(3)
		if err != nil {
			return err
		}
		fronts, err := net.Listen("tcp", addrs[0])
		if err != nil {
			return err
		}
		m.fronts = append(m.fronts, m.newFront(i, fronts, addrs[1]))
		m.places = append(m.places, cluster.Place{
			PeerURL: "https://" + addrs[0], ListenURL: "https://" + addrs[1], ClientURL: "https://" + addrs[2],
		})
	}
	return nil
}

// Places are where the members live.
func (m *Mesh) Places() []cluster.Place { return m.places }

// Processes tells the mesh which process is which member: on loopback that
// alone says who opened a connection.
func (m *Mesh) Processes(pid func(member int) int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pids = pid
}

// Dial connects from where the clients are.
func (m *Mesh) Dial(ctx context.Context, address string) (conn net.Conn, err error) {
	return m.DialFrom(ctx, Clients, address)
}

// DialFrom connects from where a member is.
func (m *Mesh) DialFrom(ctx context.Context, member int, address string) (conn net.Conn, err error) {
	dial := func() error {
		conn, err = (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", address)
		return err
	}
	if m.client == nil {
		return conn, dial()
	}
	return conn, m.at(member).do(dial)
}

const dialTimeout = 2 * time.Second

// Launch starts a program where the clients are.
func (m *Mesh) Launch(cmd *exec.Cmd) error {
	if m.client == nil {
		return cmd.Start()
	}
	return m.client.do(cmd.Start)
}

// Cut drops everything that one sends to the other, until as many Heals.
func (m *Mesh) Cut(from, to int) error {
	return m.change(from, to, func(f *faults) { f.cuts++ })
}

// Heal takes back one Cut.
func (m *Mesh) Heal(from, to int) error {
	return m.change(from, to, func(f *faults) { f.cuts-- })
}

// Lose drops some percent of the packets, in namespaces only.
func (m *Mesh) Lose(from, to, percent int) error {
	if m.spaces == nil && percent > 0 {
		return fmt.Errorf("lose packets: %w", errors.ErrUnsupported)
	}
	return m.change(from, to, func(f *faults) { f.loss = percent })
}

// Slow holds up what one sends to the other, and bounds how much a second gets
// through. Zeroes end it.
func (m *Mesh) Slow(from, to int, delay, jitter time.Duration, bytesPerSecond int) error {
	if !m.cfg.Proxied {
		return fmt.Errorf("delay without a proxy: %w", errors.ErrUnsupported)
	}
	return m.change(from, to, func(f *faults) { f.delay, f.jitter, f.rate = delay, jitter, bytesPerSecond })
}

// Reset ends all connections to a member with a reset and returns how many.
func (m *Mesh) Reset(to int) int {
	if !m.cfg.Proxied {
		return 0
	}
	return m.fronts[to].reset()
}

func (m *Mesh) change(from, to int, f func(*faults)) error {
	l := m.links[[2]int{from, to}]
	m.mu.Lock()
	defer m.mu.Unlock()
	l.change(f)
	if m.spaces == nil {
		return nil
	}
	return m.rules(to)
}

// Close takes everything down.
func (m *Mesh) Close() error {
	for _, f := range m.fronts {
		f.close()
	}
	return m.closeSpaces()
}

// who tells which member opened a connection to a front, Clients if none did.
func (m *Mesh) who(remote netip.AddrPort) int {
	if m.spaces != nil {
		return memberAt(remote.Addr())
	}
	m.mu.Lock()
	pids := m.pids
	m.mu.Unlock()
	for i := range m.cfg.Members {
		if pid := pids(i); pid != 0 && ownsPort(pid, remote.Port()) {
			return i
		}
	}
	return Clients
}
