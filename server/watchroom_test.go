package server

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/watch"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// insatiable is a client that asks for a watch that it is refused, again and again, and
// reads nothing. After so many requests its stream ends.
type insatiable struct {
	pb.Watch_WatchServer
	asked, enough int
	end           context.CancelFunc
}

func (c *insatiable) Recv() (*pb.WatchRequest, error) {
	if c.asked++; c.asked == c.enough {
		c.end()
	}
	if c.asked > c.enough {
		return nil, errors.New("one request too many was taken")
	}
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{StartRevision: -1}}}, nil
}

func TestAClientThatAsksAndDoesNotReadIsHeldUp(t *testing.T) {
	store, err := mvcc.Create(mvcc.Config{
		FS: vfs.OS(), Dir: t.TempDir(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), Manual: true, BaseNoSync: true, BaseMapBytes: 64 << 20,
	}, mvcc.Identity{Cluster: 7})
	if err != nil {
		t.Fatal(err)
	}
	hub := watch.NewHub(watch.Config{Logger: hclog.NewNullLogger(), Manual: true}, store)
	t.Cleanup(func() {
		if err := errors.Join(hub.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	stream := hub.NewStream()
	for _, more := range []int{watch.AnswersMax, 3} {
		ctx, end := context.WithCancel(t.Context())
		client := &insatiable{enough: more, end: end}
		w := &watchStream{grpc: client, hub: stream}
		if err := w.receive(ctx); !errors.Is(err, context.Canceled) || client.asked != more {
			t.Fatalf("%d requests were taken, not %d: %v", client.asked, more, err)
		}
		for range 3 {
			if b, ok, err := stream.Poll(); err != nil || !ok || b.Kind != watch.Refused {
				t.Fatalf("%+v, %v, %v", b, ok, err)
			}
		}
	}
}
