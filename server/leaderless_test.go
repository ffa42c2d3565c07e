package server_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/clock"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	electionpb "github.com/holdfast-db/holdfast/proto/v3electionpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// halted is a clock whose Mono stands still, but for what a test adds. Its timers
// and tickers go on: members elect and answer.
type halted struct {
	clock.Clock
	mono atomic.Int64

	mu    sync.Mutex
	beats []*beat
}

func (h *halted) Mono() time.Duration { return time.Duration(h.mono.Load()) }

func (h *halted) NewTicker(d time.Duration) clock.Ticker {
	b := &beat{Ticker: h.Clock.NewTicker(d), every: d}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beats = append(h.beats, b)
	return b
}

// beat counts how often somebody waits for it.
type beat struct {
	clock.Ticker
	every time.Duration
	waits atomic.Int64
}

func (b *beat) C() <-chan time.Time {
	b.waits.Add(1)
	return b.Ticker.C()
}

// look returns once whoever looks at each such interval has looked.
func (h *halted) look(t *testing.T, every time.Duration) {
	t.Helper()
	h.mu.Lock()
	beats := slices.Clone(h.beats)
	h.mu.Unlock()
	for _, b := range beats {
		if b.every == every {
			before := b.waits.Load()
			eventually(t, "somebody looks", func() bool { return b.waits.Load() > before+1 }) // A look may have been under way.
		}
	}
}

// openStreams opens a stream of each kind that lives long, and returns how each ends.
func openStreams(ctx context.Context, t *testing.T, conn *grpc.ClientConn) map[string]<-chan error {
	t.Helper()
	ends := map[string]<-chan error{}
	follow := func(name string, recv func() error) {
		end := make(chan error, 1)
		go func() {
			for {
				if err := recv(); err != nil {
					end <- err
					return
				}
			}
		}()
		ends[name] = end
	}
	watch, err := pb.NewWatchClient(conn).Watch(ctx)
	must(t, err)
	must(t, watch.Send(createWatch("a", "")))
	_, err = watch.Recv()
	must(t, err)
	follow("watch", func() error { _, err := watch.Recv(); return err })

	id := grantLease(t, conn)
	renewals, err := pb.NewLeaseClient(conn).LeaseKeepAlive(ctx)
	must(t, err)
	must(t, renewals.Send(&pb.LeaseKeepAliveRequest{ID: id}))
	_, err = renewals.Recv()
	must(t, err)
	follow("lease keep-alive", func() error { _, err := renewals.Recv(); return err })

	election := fmt.Append(nil, id) // Of its own: another candidate would wait.
	succeed(t)(electionpb.NewElectionClient(conn).Campaign(t.Context(), &electionpb.CampaignRequest{Name: election, Lease: id, Value: []byte("v")}))
	observed, err := electionpb.NewElectionClient(conn).Observe(ctx, &electionpb.LeaderRequest{Name: election})
	must(t, err)
	_, err = observed.Recv()
	must(t, err)
	follow("observe", func() error { _, err := observed.Recv(); return err })
	return ends
}

func TestStreamsThatNeedALeaderEndThreeElectionsAfterTheLast(t *testing.T) {
	t.Parallel() // It mostly waits.
	now := &halted{Clock: clock.Real()}
	c := servertest.New(t, 2, func(i int, cfg *server.Config) {
		if i == 0 {
			cfg.Clock = now
		}
	})
	m := c.Members[0]
	conn := dial(t, m)
	need := metadata.AppendToOutgoingContext(t.Context(), "hasleader", "true")
	needing, others := openStreams(need, t, conn), openStreams(t.Context(), t, conn)
	c.Members[1].Stop()
	eventually(t, "nobody leads", func() bool {
		_, err := pb.NewMaintenanceClient(conn).Status(need, &pb.StatusRequest{})
		return status.Code(err) == codes.Unavailable
	})
	now.look(t, m.Config.HeartbeatInterval)
	now.mono.Add(int64(3 * m.Config.ElectionTimeout))
	now.look(t, m.Config.HeartbeatInterval)
	for name, end := range needing {
		select {
		case err := <-end:
			t.Errorf("%s has not waited for three elections: %v", name, err)
		default:
		}
	}
	now.mono.Add(1)
	for name, end := range needing {
		select {
		case err := <-end:
			if s := status.Convert(err); s.Code() != codes.Unavailable || s.Message() != "etcdserver: no leader" {
				t.Errorf("%s ends with %v", name, err)
			}
		case <-time.After(readyMax):
			t.Errorf("%s goes on without a leader", name)
		}
	}
	for name, end := range others {
		select {
		case err := <-end:
			t.Errorf("%s needs no leader, and ends with %v", name, err)
		default:
		}
	}
}
