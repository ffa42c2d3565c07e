package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// space is a network namespace.
type space struct {
	name string
	file *os.File
}

const spacesDir = "/run/netns"

// home is the namespace in which this process was started.
var home = sync.OnceValues(func() (*os.File, error) { return os.Open("/proc/self/ns/net") })

// do runs f with a thread inside the namespace: sockets that f opens and
// processes that it starts belong there, also afterwards. f must not hand this
// work to other goroutines.
func (s *space) do(f func() error) error {
	back, err := home()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter namespace %s: %w", s.name, err)
	}
	err = f()
	if e := unix.Setns(int(back.Fd()), unix.CLONE_NEWNET); e != nil {
		return errors.Join(err, e) // Still locked: the thread ends with its goroutine and harms nobody.
	}
	runtime.UnlockOSThread()
	return err
}

func addressOf(member int) netip.Addr {
	last := byte(member + 1)
	if member == Clients {
		last = 100
	}
	return netip.AddrFrom4([4]byte{10, 77, 0, last})
}

func memberAt(a netip.Addr) int {
	if last := int(a.As4()[3]); last < 100 {
		return last - 1
	}
	return Clients
}

// Probe tells why namespaces, bridges and silent drops cannot be made here.
func Probe(names *Names) error {
	for _, program := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			return err
		}
	}
	if os.Geteuid() != 0 {
		return errors.New("namespaces need root")
	}
	m, err := New(Config{Members: 2, Names: names})
	if err != nil {
		return err
	}
	return errors.Join(m.Cut(0, 1), m.Lose(1, 0, 50), m.Close())
}

// openSpaces makes a namespace for each member, one for clients, and one for
// the bridge between them.
func (m *Mesh) openSpaces() error {
	prefix := m.cfg.Names.prefix()
	name := func(i int) string {
		if i == Clients {
			return prefix + "c"
		}
		return fmt.Sprintf("%sm%d", prefix, i+1)
	}
	bridge := prefix + "b"
	if err := m.cfg.Names.add("netns", bridge); err != nil {
		return err
	}
	first := "netns add " + bridge + "\n"
	atBridge := "link add br0 type bridge\nlink set br0 up\n"
	for i := Clients; i < m.cfg.Members; i++ {
		if err := m.cfg.Names.add("netns", name(i)); err != nil {
			return err
		}
		first += fmt.Sprintf("netns add %s\nlink add v%d netns %s type veth peer name eth0 netns %s\n", name(i), i+1, bridge, name(i))
		atBridge += fmt.Sprintf("link set v%d master br0 up\n", i+1)
	}
	if err := feed(first, "ip", "-batch", "-"); err != nil {
		return err
	}
	if err := feed(atBridge, "ip", "-n", bridge, "-batch", "-"); err != nil {
		return err
	}
	for i := Clients; i < m.cfg.Members; i++ {
		if err := feed(fmt.Sprintf("link set lo up\naddr add %s/24 dev eth0\nlink set eth0 up\n", addressOf(i)), "ip", "-n", name(i), "-batch", "-"); err != nil {
			return err
		}
		file, err := os.Open(filepath.Join(spacesDir, name(i)))
		if err != nil {
			return err
		}
		s := &space{name: name(i), file: file}
		if i == Clients {
			m.client = s
		} else {
			m.spaces = append(m.spaces, s)
		}
		if err := s.do(func() error {
			return feed("table inet faults { chain in { type filter hook input priority 0; policy accept; }; }\n", "nft", "-f", "-")
		}); err != nil {
			return err
		}
	}
	return nil
}

// rules writes what is dropped where packets arrive at one place.
func (m *Mesh) rules(to int) error {
	var b strings.Builder
	b.WriteString("flush chain inet faults in\n")
	for from := Clients; from < m.cfg.Members; from++ {
		f := m.links[[2]int{from, to}].faults()
		switch {
		case f.cuts > 0:
			fmt.Fprintf(&b, "add rule inet faults in ip saddr %s drop\n", addressOf(from))
		case f.loss > 0:
			fmt.Fprintf(&b, "add rule inet faults in ip saddr %s numgen random mod 100 < %d drop\n", addressOf(from), f.loss)
		}
	}
	s := m.client
	if to != Clients {
		s = m.spaces[to]
	}
	return s.do(func() error { return feed(b.String(), "nft", "-f", "-") })
}

const probeTimeout = 5 * time.Second // The machine may be busy.

// probe connects everybody to everybody: foreign firewalls must not cut tests
// silently.
func (m *Mesh) probe() error {
	const port = 9
	for to := Clients; to < m.cfg.Members; to++ {
		var l net.Listener
		address := netip.AddrPortFrom(addressOf(to), port).String()
		if err := m.at(to).do(func() (err error) { l, err = net.Listen("tcp", address); return err }); err != nil {
			return err
		}
		for from := Clients; from < m.cfg.Members; from++ {
			err := m.at(from).do(func() error {
				c, err := net.DialTimeout("tcp", address, probeTimeout)
				if err == nil {
					c.Close()
				}
				return err
			})
			if err != nil {
				l.Close()
				return fmt.Errorf("the network does not carry: %w", err)
			}
		}
		l.Close()
	}
	return nil
}

func (m *Mesh) at(i int) *space {
	if i == Clients {
		return m.client
	}
	return m.spaces[i]
}

func (m *Mesh) closeSpaces() error {
	if m.cfg.Names == nil {
		return nil
	}
	for _, s := range append(m.spaces, m.client) {
		if s != nil {
			s.file.Close()
		}
	}
	return m.cfg.Names.remove("netns")
}

// feed runs a program with input.
func feed(input string, name string, args ...string) error {
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}
