package server_test

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/status"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
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
