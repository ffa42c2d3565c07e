package server_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// Nobody would be left who could let members in again, or tell what the keys are.
func TestTheLastVoterStaysAlsoWithoutStrictChecks(t *testing.T) {
	m := servertest.New(t, 1, func(_ int, c *server.Config) { c.StrictReconfigCheck = false }).Members[0]
	conn := dial(t, m)
	cluster := pb.NewClusterClient(conn)
	refused := func(when string) {
		t.Helper()
		_, err := cluster.MemberRemove(t.Context(), &pb.MemberRemoveRequest{ID: uint64(m.MemberID())})
		if s := status.Convert(err); s.Code() != codes.Unknown || s.Message() != "etcdserver: re-configuration failed due to not enough started members" {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("alone")
	succeed(t)(cluster.MemberAdd(t.Context(), &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}, IsLearner: true}))
	refused("with a learner")
	mustPut(t, conn, "a", "1")
	if r, err := cluster.MemberList(t.Context(), &pb.MemberListRequest{Linearizable: true}); err != nil || len(r.Members) != 2 {
		t.Errorf("%v, %v", r, err)
	}
}
