//go:build linux

package supervisor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// conn is a socket. Files do all that is needed of one; package net would be initialised
// before this one, and most of a kubelet before net.
type conn struct{ *os.File }

// newConn takes a descriptor of a socket.
func newConn(fd int) (*conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &conn{os.NewFile(uintptr(fd), "socket")}, nil
}

// control calls fn with the descriptor until it does not ask to be called again, which it
// is when the socket can be read; write: when it can be written.
func (c *conn) control(write bool, fn func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	wait := raw.Read
	if write {
		wait = raw.Write
	}
	var failed error
	err = wait(func(fd uintptr) bool {
		for failed = unix.EINTR; errors.Is(failed, unix.EINTR); {
			failed = fn(int(fd))
		}
		return !errors.Is(failed, unix.EAGAIN)
	})
	return errors.Join(err, failed)
}

// closeWrite tells the other side that it has heard all.
func (c *conn) closeWrite() error {
	return c.control(true, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
}

// receive reads, and with it what comes beside the bytes. It returns io.EOF at the end.
func (c *conn) receive(b, oob []byte) (n, oobn int, err error) {
	err = c.control(false, func(fd int) error {
		var err error
		n, oobn, _, _, err = unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err == nil && n == 0 {
		err = io.EOF
	}
	return n, oobn, err
}

// send writes a few bytes, and a descriptor beside them.
func (c *conn) send(b []byte, fd int) error {
	return c.control(true, func(to int) error { return unix.Sendmsg(to, b, unix.UnixRights(fd), nil, 0) })
}

// hungUp tells whether the other side has gone, whatever is still to be read.
func (c *conn) hungUp() bool {
	gone := false
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}} // Of POLLHUP is told unasked, and of nothing else shall be.
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0
	})
	return gone || err != nil
}

// listenAt makes a socket that others connect to.
func listenAt(name string) (*conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind: %w", err)
	}
	if err := unix.Listen(fd, waitingMax); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen: %w", err)
	}
	return newConn(fd)
}

// waitingMax are those who have connected and were not accepted yet.
const waitingMax = 128

func (c *conn) accept() (*conn, error) {
	var got int
	err := c.control(false, func(fd int) error {
		var err error
		got, _, err = unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		return err
	})
	if err != nil {
		return nil, err
	}
	return newConn(got)
}

// dialMax is how long a program may take to accept a connection.
const dialMax = 10 * time.Second

// dialLoopback connects to a port from where this process is: in the network of its pod.
// It tries both kinds of addresses: a program may listen on one alone.
func dialLoopback(port uint16, deadline time.Time) (*conn, error) {
	c, err := dialTCP(unix.AF_INET, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}, deadline)
	if err == nil {
		return c, nil
	}
	if c, err6 := dialTCP(unix.AF_INET6, &unix.SockaddrInet6{Port: int(port), Addr: [16]byte{15: 1}}, deadline); err6 == nil {
		return c, nil
	}
	return nil, fmt.Errorf("dial 127.0.0.1:%d: %w", port, err)
}

func dialTCP(family int, to unix.Sockaddr, deadline time.Time) (*conn, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	err = unix.Connect(fd, to)
	c := &conn{os.NewFile(uintptr(fd), "socket")}
	if errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EINTR) {
		if err = c.SetDeadline(deadline); err == nil {
			err = c.control(true, connected)
		}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// connected is nil when a connection is made, and EAGAIN as long as it is being made.
func connected(fd int) error {
	if _, err := unix.Getpeername(fd); err == nil {
		return nil
	}
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if code != 0 {
		return unix.Errno(code)
	}
	return unix.EAGAIN
}
