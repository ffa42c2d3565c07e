package network

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// faults of one direction between two places.
type faults struct {
	cuts          int
	loss          int // Percent.
	delay, jitter time.Duration
	rate          int // Bytes a second, 0 without bound.
}

type link struct {
	mu      sync.Mutex
	f       faults
	changed chan struct{} // Closed by the next change.
}

func newLink() *link { return &link{changed: make(chan struct{})} }

func (l *link) faults() faults {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f
}

func (l *link) change(f func(*faults)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.f)
	close(l.changed)
	l.changed = make(chan struct{})
}

// passable waits until the link is not cut, or quit is closed.
func (l *link) passable(quit <-chan struct{}) {
	for {
		l.mu.Lock()
		cut, changed := l.f.cuts > 0, l.changed
		l.mu.Unlock()
		if !cut {
			return
		}
		select {
		case <-changed:
		case <-quit:
			return
		}
	}
}

// front stands in front of a member's port for the other members.
type front struct {
	mesh   *Mesh
	member int
	l      net.Listener
	behind string

	mu     sync.Mutex
	conns  map[*carried]bool
	closed bool
}

// carried is one connection, in two halves.
type carried struct {
	outer, inner net.Conn
	quit         chan struct{}
	once         sync.Once
}

func (m *Mesh) newFront(member int, l net.Listener, behind string) *front {
	f := &front{mesh: m, member: member, l: l, behind: behind, conns: map[*carried]bool{}}
	go f.accept()
	return f
}

func (f *front) accept() {
	for {
		c, err := f.l.Accept()
		if err != nil {
			return // Closed.
		}
		go f.carry(c)
	}
}

func (f *front) carry(outer net.Conn) {
	from := f.mesh.who(outer.RemoteAddr().(*net.TCPAddr).AddrPort())
	there, back := f.mesh.links[[2]int{from, f.member}], f.mesh.links[[2]int{f.member, from}]
	var inner net.Conn
	dial := func() (err error) { inner, err = net.DialTimeout("tcp", f.behind, dialTimeout); return err }
	var err error
	if f.mesh.spaces != nil {
		err = f.mesh.spaces[f.member].do(dial)
	} else {
		err = dial()
	}
	if err != nil {
		drop(outer)
		return
	}
	c := &carried{outer: outer, inner: inner, quit: make(chan struct{})}
	f.mu.Lock()
	f.conns[c] = true
	if f.closed {
		c.end()
	}
	f.mu.Unlock()
	// On loopback the cut is made here; elsewhere packets are dropped.
	holds := f.mesh.spaces == nil
	var halves sync.WaitGroup
	halves.Go(func() { c.pump(inner, outer, there, holds) })
	halves.Go(func() { c.pump(outer, inner, back, holds) })
	halves.Wait()
	f.mu.Lock()
	delete(f.conns, c)
	f.mu.Unlock()
}

const (
	pieceBytes = 32 << 10
	piecesMax  = 64 // On their way at a time; more waits in the sender's buffers.
)

type piece struct {
	data []byte
	due  time.Time
}

// pump carries bytes one way. Pieces stay in order, whatever their jitter.
func (c *carried) pump(to, from net.Conn, l *link, holds bool) {
	defer c.end()
	way := make(chan piece, piecesMax)
	go func() {
		defer close(way)
		var last time.Time
		for {
			data := make([]byte, pieceBytes)
			n, err := from.Read(data)
			if err != nil {
				return
			}
			f := l.faults()
			due := time.Now().Add(f.delay)
			if f.jitter > 0 {
				due = due.Add(rand.N(f.jitter))
			}
			if due.Before(last) {
				due = last
			}
			last = due
			select {
			case way <- piece{data[:n], due}:
			case <-c.quit:
				return
			}
		}
	}()
	for p := range way {
		if f := l.faults(); f.rate > 0 {
			p.due = p.due.Add(time.Duration(len(p.data)) * time.Second / time.Duration(f.rate))
		}
		c.wait(time.Until(p.due))
		if holds {
			l.passable(c.quit)
		}
		if _, err := to.Write(p.data); err != nil {
			return
		}
	}
}

func (c *carried) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-c.quit:
	}
}

func (c *carried) end() {
	c.once.Do(func() {
		close(c.quit)
		drop(c.outer)
		drop(c.inner)
	})
}

// drop closes with a reset.
func drop(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}

func (f *front) reset() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.end()
	}
	return len(f.conns)
}

func (f *front) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.l.Close()
	f.reset()
}

// ownsPort tells whether a process has a connection from a port of 127.0.0.1.
func ownsPort(pid int, port uint16) bool {
	inode := inodeOf(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port))
	if inode == "" {
		return false
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if to, err := os.Readlink(dir + "/" + e.Name()); err == nil && to == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}

// inodeOf finds the socket of a local address in the kernel's table.
func inodeOf(local netip.AddrPort) string {
	file, err := os.Open("/proc/self/net/tcp")
	if err != nil {
		return ""
	}
	defer file.Close()
	a := local.Addr().As4()
	want := fmt.Sprintf("%02X%02X%02X%02X:%04X", a[3], a[2], a[1], a[0], local.Port()) // As little-endian machines print it.
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && fields[1] == want {
			if _, err := strconv.Atoi(fields[9]); err == nil && fields[9] != "0" {
				return fields[9]
			}
		}
	}
	return ""
}
