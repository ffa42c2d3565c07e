package server_test

import (
	"crypto/rand"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-db/holdfast/internal/clock"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// stopMax is 1.5 s, which clients may count on, less what a machine needs for the work.
const stopMax = time.Second

// waited is a clock that tells for how long its timers were waited for, since
// somebody began to count. What else takes time is work.
type waited struct {
	clock.Clock
	counting atomic.Bool
	late     time.Duration // Timers come so much later: who waits for none does not see it, however slow the machine.

	mu    sync.Mutex
	total time.Duration
}

func (w *waited) AfterFunc(d time.Duration, f func()) clock.Timer {
	if !w.counting.Load() {
		return w.Clock.AfterFunc(d, f)
	}
	return w.Clock.AfterFunc(d+w.late, func() {
		w.mu.Lock()
		w.total += d
		w.mu.Unlock()
		f()
	})
}

// stop closes a member, and tells how long it waited.
func (w *waited) stop(m *servertest.Member) time.Duration {
	w.counting.Store(true)
	m.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.total
}

// dialPort connects as clients elsewhere do: those inside end in another way.
func dialPort(t *testing.T, m *servertest.Member) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+m.ClientAddrs()[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestAMemberThatStopsWaitsForNoStreamThatIsIdle(t *testing.T) {
	clk := &waited{Clock: clock.Real(), late: readyMax}
	m := servertest.New(t, 1, func(_ int, c *server.Config) { c.Clock = clk }).Members[0]
	ends := openStreams(t.Context(), t, dialPort(t, m))
	if took := clk.stop(m); took > 0 {
		t.Errorf("it waited for %s", took)
	}
	for name, end := range ends {
		select {
		case <-end:
		case <-time.After(readyMax):
			t.Errorf("%s goes on", name)
		}
	}
}

// One that waits for a quorum to begin with serves nobody yet.
func TestAMemberThatStopsBeforeItIsReadyWaitsForNothing(t *testing.T) {
	t.Parallel() // It mostly waits.
	clk := &waited{Clock: clock.Real(), late: readyMax}
	c := servertest.New(t, 2, func(_ int, cfg *server.Config) { cfg.Clock = clk })
	for _, m := range c.Members {
		m.Stop()
	}
	m := c.Members[0]
	m.Start()
	clk.counting.Store(true)
	eventually(t, "a client waits", func() bool {
		conn, err := net.Dial("tcp", m.ClientAddrs()[0])
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		return err == nil
	})
	if took := clk.stop(m); took > 0 {
		t.Errorf("it waited for %s", took)
	}
}

// unread opens streams of which nobody takes anything, so that they do not end.
func unread(t *testing.T, m *servertest.Member) {
	t.Helper()
	conn := dialPort(t, m)
	value := make([]byte, 1<<20)
	for _, key := range []string{"x", "y", "z"} {
		rand.Read(value)
		mustPut(t, conn, key, string(value))
	}
	parts, err := pb.NewKVClient(conn).RangeStream(t.Context(), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	must(t, err)
	_, err = parts.Header()
	must(t, err)
	file, err := pb.NewMaintenanceClient(conn).Snapshot(t.Context(), &pb.SnapshotRequest{})
	must(t, err)
	_, err = file.Header()
	must(t, err)
}

func TestAMemberThatStopsWithoutAQuorumWaitsNoLongerThanItSays(t *testing.T) {
	t.Parallel() // It mostly waits.
	clk := &waited{Clock: clock.Real()}
	c := servertest.New(t, 2, func(_ int, cfg *server.Config) { cfg.Clock = clk })
	leader := c.Leader()
	other := c.Members[0]
	if other == leader {
		other = c.Members[1]
	}
	unread(t, leader)
	conn := dialPort(t, leader)
	openStreams(t.Context(), t, conn)
	other.Stop()
	pending := make(chan struct{}, 2)
	ask := func(f func() error) {
		go func() {
			if f() == nil {
				t.Error("a request that takes a quorum is answered without one")
			}
			pending <- struct{}{}
		}()
	}
	ask(func() error {
		_, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("a")})
		return err
	})
	ask(func() error {
		_, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("a")})
		return err
	})
	if took := clk.stop(leader); took == 0 || took > stopMax {
		t.Errorf("it waited for %s", took)
	}
	<-pending
	<-pending
}

// It waits for an election timeout of ticks (raftnode), and for nothing else.
func TestAMemberThatIsRemovedWaitsForNoClient(t *testing.T) {
	t.Parallel() // It mostly waits.
	c := servertest.New(t, 3, func(_ int, cfg *server.Config) {
		cfg.Clock, cfg.StrictReconfigCheck = &waited{Clock: clock.Real(), late: readyMax}, false
	})
	m := c.Leader()
	clk := m.Config.Clock.(*waited)
	conn := dialPort(t, m)
	openStreams(t.Context(), t, conn)
	clk.counting.Store(true)
	succeed(t)(pb.NewClusterClient(conn).MemberRemove(t.Context(), &pb.MemberRemoveRequest{ID: uint64(m.MemberID())}))
	select {
	case <-m.Done():
	case <-time.After(2 * readyMax): // More than timers are late.
		t.Fatal("a member that was removed runs on")
	}
	clk.mu.Lock()
	defer clk.mu.Unlock()
	if clk.total > 0 {
		t.Errorf("it waited for %s more", clk.total)
	}
}
