//go:build !linux

package servertest

import (
	"net"
	"testing"
)

// Hold is a free address of loopback. Nothing keeps others from it here.
func Hold(t testing.TB) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
