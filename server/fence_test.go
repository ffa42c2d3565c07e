package server_test

import (
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/quick"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
	"github.com/holdfast-db/holdfast/snapshot/archive"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// Whatever goes into the log of a cluster that was given up is not acknowledged:
// keys, leases, and members as well.
func TestAClusterThatWasGivenUpAcknowledgesNothing(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	url := "file://" + t.TempDir()
	m := servertest.New(t, 1, func(_ int, c *server.Config) { c.ArchiveURL, c.ArchiveEpoch = url, server.EpochStrict }).Members[0]
	conn := dial(t, m)
	putArchived(t, m, "a")
	store, err := blobstore.Open(t.Context(), url, blobstore.Config{})
	must(t, err)
	defer store.Close()
	eventually(t, "the archive begins", func() bool {
		a, err := archive.Open(t.Context(), store, archive.UUID{}, nil)
		if err == nil {
			_, err = a.TakeEpoch(t.Context(), archive.Epoch{Number: 2, Successor: "another", Plan: "p"})
		}
		return err == nil
	})
	ask := map[string]func() error{
		"put": func() error {
			_, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("a")})
			return err
		},
		"get": func() error {
			_, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("a")})
			return err
		},
		"member update": func() error {
			_, err := pb.NewClusterClient(conn).MemberUpdate(t.Context(), &pb.MemberUpdateRequest{ID: uint64(m.MemberID()), PeerURLs: []string{m.PeerURL}})
			return err
		},
		"member add": func() error {
			_, err := pb.NewClusterClient(conn).MemberAdd(t.Context(), &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}, IsLearner: true})
			return err
		},
	}
	eventually(t, "a put is refused", func() bool { return ask["put"]() != nil })
	for name, do := range ask {
		if err := do(); err == nil || !strings.Contains(err.Error(), "this cluster was given up") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
