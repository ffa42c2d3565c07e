package kube_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// The same network over UDP: pods of three nodes reach each other, and packets are as large
// as they are said to be.
func TestPodsOfThreeNodesConnectOverVXLAN(t *testing.T) {
	t.Parallel()
	r := startRows(t, rowsOf{native: true, nodes: 3, mtu: 1450, nodeFlags: []string{"--network=vxlan"}})
	r.connectsNodes()
}

// fillsPackets has one pod ping another with the largest packet that its interface takes
// and nobody may cut; one byte more is refused.
func (r *rows) fillsPackets(from, to *corev1.Pod) error {
	return inNetworkOf(r.mainProcess(from), func() error {
		device, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		if device.MTU != r.mtu {
			return fmt.Errorf("its interface takes %d bytes, not %d", device.MTU, r.mtu)
		}
		if err := pingWhole(to.Status.PodIP, r.mtu); err != nil {
			return err
		}
		if err := pingWhole(to.Status.PodIP, r.mtu+1); !errors.Is(err, unix.EMSGSIZE) {
			return fmt.Errorf("a packet that is too large: %w", err)
		}
		return nil
	})
}

// inNetworkOf runs f with its thread in the network namespace of a process. The thread
// comes back: with it would end the programs that it has started.
func inNetworkOf(pid int, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		runtime.LockOSThread() // It stays there, and nobody else may have it.
		return errors.Join(err, back)
	}
	return err
}

// pingWhole sends one packet of so many bytes, which must not be cut, and awaits the answer.
func pingWhole(address string, bytes int) error {
	const header, mark = 20, 0x4f48
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO); err != nil {
		return err
	}
	wait := unix.NsecToTimeval(int64(5 * time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return err
	}
	ask := make([]byte, bytes-header)
	ask[0] = 8 // Echo.
	binary.BigEndian.PutUint16(ask[4:], mark)
	sum := uint32(ask[0])<<8 + mark
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ask[2:], ^uint16(sum))
	to := &unix.SockaddrInet4{Addr: netip.MustParseAddr(address).As4()}
	if err := unix.Sendto(fd, ask, 0, to); err != nil {
		return fmt.Errorf("send %d bytes: %w", bytes, err)
	}
	answer := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(fd, answer, 0)
		if err != nil {
			return fmt.Errorf("the answer to %d bytes: %w", bytes, err)
		}
		if n == bytes && answer[header] == 0 && binary.BigEndian.Uint16(answer[header+4:]) == mark {
			return nil
		}
	}
}
