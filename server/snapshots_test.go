package server_test

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/clock"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/replica"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// Each is a file as large as the state, for as long as its client reads.
func TestSnapshotsAtATimeAreBounded(t *testing.T) {
	const together = 4
	m := servertest.New(t, 1, nil).Members[0]
	conn := dial(t, m)
	for i := range 4 { // More than connections hold for who does not read.
		value := make([]byte, 1<<20)
		rand.Read(value)
		if _, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte{byte('a' + i)}, Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	begin := func() (context.CancelFunc, error) {
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		stream, err := pb.NewMaintenanceClient(dial(t, m)).Snapshot(ctx, &pb.SnapshotRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		return cancel, err
	}
	var leave context.CancelFunc
	for i := range together {
		var err error
		if leave, err = begin(); err != nil {
			t.Fatalf("snapshot %d: %v", i, err)
		}
	}
	if _, err := begin(); status.Convert(err).Message() != "etcdserver: too many requests" {
		t.Errorf("one more: %v", err)
	}
	if files, err := filepath.Glob(filepath.Join(m.Config.DataDir, replica.ScratchPrefix+"*")); err != nil || len(files) != together {
		t.Errorf("files %v, %v", files, err)
	}
	leave()
	eventually(t, "after one has gone there is room for another", func() bool {
		_, err := begin()
		return err == nil
	})
}

// hasty is a clock on which five minutes pass quickly.
type hasty struct{ clock.Clock }

func (h hasty) AfterFunc(d time.Duration, f func()) clock.Timer {
	if d != 5*time.Minute {
		return h.Clock.AfterFunc(d, f)
	}
	return hastyTimer{h.Clock.AfterFunc(patience, f)}
}

func (h hasty) NewTicker(d time.Duration) clock.Ticker {
	if d == 5*time.Minute {
		d = patience
	}
	return h.Clock.NewTicker(d)
}

type hastyTimer struct{ clock.Timer }

func (t hastyTimer) Reset(time.Duration) bool { return t.Timer.Reset(patience) }

const patience = 500 * time.Millisecond

// Clients that stand still would keep everybody else from a backup, and files as
// large as the state on the disk.
func TestAClientThatTakesNothingOfASnapshotIsLeft(t *testing.T) {
	m := servertest.New(t, 1, func(_ int, c *server.Config) { c.Clock = hasty{clock.Real()} }).Members[0]
	conn := dial(t, m)
	for i := range 8 {
		value := make([]byte, 1<<20)
		rand.Read(value)
		mustPut(t, conn, string(rune('a'+i)), string(value))
	}
	stream, err := pb.NewMaintenanceClient(conn).Snapshot(t.Context(), &pb.SnapshotRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file of a client that takes nothing is gone", func() bool {
		files, err := filepath.Glob(filepath.Join(m.Config.DataDir, replica.ScratchPrefix+"*"))
		return err == nil && len(files) == 0
	})
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "snapshot was given up") {
		t.Errorf("the client is told %v", err)
	}
}
