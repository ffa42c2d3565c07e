package state_test

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/kube/tunnel/tunneltest"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// wired is a node whose ports are a listener's.
type wired struct {
	*tunneltest.Node
	net.Listener
}

func (w wired) Dial(context.Context, *kubepb.DialRequest) (net.Conn, error) {
	return net.Dial("tcp", w.Addr().String())
}

func TestAConnectionIsCutOffWhereItsUserIs(t *testing.T) {
	leak.Check(t)
	x := newReach(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	x.keeps(x.nodeConn(), wired{x.node, l})
	stands(t, x.admin)
	for _, whole := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		conn, err := tunnel.Dial(ctx, x.admin, &kubepb.DialRequest{Of: podA(), Port: 8080})
		if err != nil {
			t.Fatal(err)
		}
		pod, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer pod.Close()
		if _, err := conn.Write([]byte("half of it")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(pod, make([]byte, len("half of it"))); err != nil {
			t.Error(err)
		}
		if whole {
			err = conn.CloseWrite()
		} else {
			err = conn.Close()
		}
		if err != nil {
			t.Error(err)
		}
		if _, err = pod.Read(make([]byte, 1)); whole && err != io.EOF || !whole && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("all was said %v: the pod reads %v", whole, err)
		}
	}
}
