package servertest

import (
	"context"
	"net"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// While a member was stopped, another process dialed from its port, and it could not start again.
func TestAHeldPortIsGivenToNobodyButWhoNamesIt(t *testing.T) {
	address := Hold(t)
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	// A system that has this port alone to give.
	var unknown error
	alone := func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			unknown = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_LOCAL_PORT_RANGE, port<<16|port)
		})
	}
	if l, err := (&net.ListenConfig{Control: alone}).Listen(context.Background(), "tcp", "127.0.0.1:0"); err == nil {
		l.Close()
		if unknown == nil { // The kernel may be older than this option.
			t.Error("somebody else was given the port to listen on")
		}
	}
	if conn, err := (&net.Dialer{Control: alone}).Dial("tcp", other.Addr().String()); err == nil {
		conn.Close()
		if unknown == nil {
			t.Error("somebody else was given the port to dial from")
		}
	}
	for range 3 {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			t.Error("nobody listens there, and a connection is taken")
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		l.Close()
	}
}
