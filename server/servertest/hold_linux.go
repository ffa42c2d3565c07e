package servertest

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Hold takes an address of loopback until the test ends. A socket that is bound to it
// and does not listen keeps its port from everybody who asks for any, be it to listen or
// to dial from. Who names the port may listen there, time and again: a member that
// is stopped finds it free when it starts.
func Hold(t testing.TB) (address string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), // As net does for listeners.
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
	)
	if err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
}
