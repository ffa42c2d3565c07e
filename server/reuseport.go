package server

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// listenOf opens listeners, of ports that others may open too if asked for.
func listenOf(reusePort bool) func(network, address string) (net.Listener, error) {
	if !reusePort {
		return net.Listen
	}
	c := net.ListenConfig{Control: func(network, _ string, raw syscall.RawConn) error {
		if network == "unix" {
			return nil
		}
		var err error
		control := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		if control != nil {
			return control
		}
		return err
	}}
	return func(network, address string) (net.Listener, error) {
		return c.Listen(context.Background(), network, address)
	}
}
