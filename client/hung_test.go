package client_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/client/clienttest"
)

// hung is a connection to a process that stands still: its kernel takes what is
// sent, and nothing comes back.
type hung struct {
	net.Conn
	from   <-chan struct{} // Closed when the process stands still.
	closed chan struct{}
	once   sync.Once
}

func (h *hung) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	select {
	case <-h.from:
		<-h.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (h *hung) Write(b []byte) (int, error) {
	select {
	case <-h.from:
		return len(b), nil
	default:
		return h.Conn.Write(b)
	}
}

func (h *hung) Close() error {
	h.once.Do(func() { close(h.closed) })
	return h.Conn.Close()
}

func TestARequestLeavesAMemberThatHangsBeforeItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, stopped := clienttest.New(t, 2), make(chan struct{})
		c := newClient(t, cluster, func(cfg *client.Config) {
			cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
				conn, err := cluster.Dial(ctx, address)
				if err == nil && address == "member-0:2379" {
					return &hung{Conn: conn, from: stopped, closed: make(chan struct{})}, nil
				}
				return conn, err
			}
		})
		read := func() time.Duration {
			t.Helper()
			began := time.Now()
			if _, err := c.Get(t.Context(), client.Get{Range: client.One("k")}); err != nil {
				t.Errorf("after %s: %v", time.Since(began), err)
			}
			return time.Since(began)
		}
		for range 4 { // Both are connected to.
			read()
		}
		synctest.Wait()
		close(stopped)
		longest := time.Duration(0)
		for range 4 { // In turn, so that one that hangs is asked.
			longest = max(longest, read())
		}
		if longest == 0 || longest > 14*time.Second {
			t.Errorf("the longest read took %s", longest)
		}
	})
}
