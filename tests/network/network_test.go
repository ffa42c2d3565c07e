package network

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// meshes are made in each way that this machine allows.
func meshes(t *testing.T, test func(t *testing.T, m *Mesh)) {
	t.Run("loopback", func(t *testing.T) {
		m, err := New(Config{Members: 2})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		m.Processes(func(i int) int { return []int{os.Getpid(), 0}[i] }) // All connections are those of the first.
		test(t, m)
	})
	for _, proxied := range []bool{false, true} {
		name := "namespaces"
		if proxied {
			name = "namespaces with proxies"
		}
		t.Run(name, func(t *testing.T) {
			names, err := NewNames()
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := names.Close(); err != nil {
					t.Error(err)
				}
			}()
			if err := Probe(names); err != nil {
				if os.Getenv("HOLDFAST_REQUIRE_ALL") != "" {
					t.Fatalf("no namespaces: %v", err)
				}
				t.Skipf("no namespaces: %v", err)
			}
			m, err := New(Config{Members: 2, Names: names, Proxied: proxied})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			test(t, m)
		})
	}
}

func host(url string) string { return strings.TrimPrefix(url, "https://") }

// pair is a connection from the first to the second.
func pair(t *testing.T, m *Mesh) (first, second net.Conn) {
	t.Helper()
	at := func(i int, f func() error) error {
		if m.spaces == nil {
			return f()
		}
		return m.spaces[i].do(f)
	}
	listen := m.places[1].ListenURL
	if listen == "" {
		listen = m.places[1].PeerURL
	}
	var l net.Listener
	err := at(1, func() (err error) { l, err = net.Listen("tcp", host(listen)); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = at(0, func() (err error) {
		first, err = net.DialTimeout("tcp", host(m.places[1].PeerURL), soon)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if second, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Close(); second.Close() })
	return first, second
}

// soon is when something has come that comes at once, on a machine that does much else.
const soon = time.Minute

// arrives sends a byte and tells how long it took, or that it did not come.
func arrives(t *testing.T, from, to net.Conn, within time.Duration) (time.Duration, bool) {
	t.Helper()
	start := time.Now()
	if _, err := from.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	to.SetReadDeadline(start.Add(within))
	_, err := io.ReadFull(to, make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, false
	}
	if err != nil {
		t.Fatal(err)
	}
	return time.Since(start), true
}

func TestACutHoldsBackOneDirectionAndHealingBringsAllOfIt(t *testing.T) {
	meshes(t, func(t *testing.T, m *Mesh) {
		first, second := pair(t, m)
		if _, ok := arrives(t, first, second, soon); !ok {
			t.Fatal("nothing arrives on a whole network")
		}
		if err := m.Cut(0, 1); err != nil {
			t.Fatal(err)
		}
		if _, ok := arrives(t, first, second, 300*time.Millisecond); ok {
			t.Fatal("a byte came through a cut link")
		}
		if m.spaces == nil {
			if _, ok := arrives(t, second, first, soon); !ok {
				t.Fatal("the other direction is cut too")
			}
		}
		if err := m.Heal(0, 1); err != nil {
			t.Fatal(err)
		}
		if _, ok := arrives(t, first, second, soon); !ok {
			t.Fatal("nothing arrives after the cut was healed")
		}
	})
}

func TestSlowLinksDelayAndResetsEndConnections(t *testing.T) {
	meshes(t, func(t *testing.T, m *Mesh) {
		err := m.Slow(0, 1, 150*time.Millisecond, 0, 0)
		if !m.cfg.Proxied {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Fatalf("delay without a proxy: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		first, second := pair(t, m)
		if d, ok := arrives(t, first, second, soon); !ok || d < 150*time.Millisecond {
			t.Fatalf("a byte took %v, %v", d, ok)
		}
		best := soon // Of some: the machine may hold one up, but not all.
		for range 20 {
			if d, ok := arrives(t, second, first, soon); ok {
				best = min(best, d)
			}
		}
		if best > 140*time.Millisecond {
			t.Fatalf("the best of the bytes of the other direction took %v", best)
		}
		if n := m.Reset(1); n != 1 {
			t.Fatalf("%d connections were reset", n)
		}
		first.SetReadDeadline(time.Now().Add(soon))
		if _, err := first.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the connection lives: %v", err)
		}
	})
}

func TestLossLetsSomeThrough(t *testing.T) {
	meshes(t, func(t *testing.T, m *Mesh) {
		err := m.Lose(0, 1, 50)
		if m.spaces == nil {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		var u net.PacketConn
		to := addressOf(1).String() + ":99"
		if err := m.spaces[1].do(func() (err error) { u, err = net.ListenPacket("udp", to); return err }); err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		const sent = 400
		if err := m.spaces[0].do(func() error {
			c, err := net.Dial("udp", to)
			if err != nil {
				return err
			}
			defer c.Close()
			for range sent {
				if _, err := c.Write([]byte{1}); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		got := 0
		for buf := make([]byte, 1); ; got++ {
			u.SetReadDeadline(time.Now().Add(time.Second))
			if _, _, err := u.ReadFrom(buf); err != nil {
				break
			}
		}
		if got < sent/5 || got > sent*4/5 { // 80 to 320 of 400: twelve standard deviations.
			t.Fatalf("%d of %d packets arrived at a loss of 50 percent", got, sent)
		}
	})
}

// TestHelperDies is the process that the next test kills.
func TestHelperDies(t *testing.T) {
	if os.Getenv("HOLDFAST_TEST_DIES") == "" {
		return
	}
	names, err := NewNames()
	if err == nil {
		_, err = New(Config{Members: 2, Names: names})
	}
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("names " + names.file + "\n")
	select {}
}

func TestWhatADeadRunLeftIsSweptByName(t *testing.T) {
	meshes(t, func(t *testing.T, m *Mesh) {
		if m.spaces == nil || m.cfg.Proxied {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestHelperDies$")
		cmd.Env = append(os.Environ(), "HOLDFAST_TEST_DIES=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		for buf := make([]byte, 512); !strings.Contains(said.String(), "\n"); {
			n, err := out.Read(buf)
			said.Write(buf[:n])
			if err != nil {
				t.Fatalf("%v: %s", err, said.String())
			}
		}
		cmd.Process.Kill()
		cmd.Wait()
		file := strings.Fields(said.String())[1]
		list, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := Sweep(); err != nil || n == 0 {
			t.Fatalf("swept %d: %v", n, err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Error("the list is still there")
		}
		for line := range strings.Lines(string(list)) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "netns "); ok {
				if _, err := os.Stat(spacesDir + "/" + name); err == nil {
					t.Errorf("namespace %s is still there", name)
				}
			}
		}
		if _, err := os.Stat(m.cfg.Names.file); err != nil {
			t.Errorf("the list of a run that lives was swept: %v", err)
		}
	})
}
