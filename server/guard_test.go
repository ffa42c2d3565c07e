package server_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

func TestEveryMethodHasARule(t *testing.T) {
	m := servertest.New(t, 1, nil).Members[0]
	methods := m.Methods()
	if len(methods) < 40 {
		t.Fatalf("only %d methods are served", len(methods))
	}
	for _, name := range methods {
		if !server.HasRule(name) {
			t.Errorf("%s has no row in the guard: nobody may call it", name)
		}
	}
}

func TestWhatAClientMustNotWaitForIsRefusedAtOnce(t *testing.T) {
	t.Parallel() // It mostly waits.
	c := servertest.New(t, 2, nil)
	c.Members[1].Stop()
	conn := dial(t, c.Members[0])
	ctx := metadata.AppendToOutgoingContext(t.Context(), "hasleader", "true")
	for { // The member that is left finds out after an election timeout.
		_, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
		if err == nil {
			continue
		}
		if s := status.Convert(err); s.Code() != codes.Unavailable || s.Message() != "etcdserver: no leader" {
			t.Fatalf("without a leader: %v", err)
		}
		break
	}
	_, err := pb.NewKVClient(conn).Put(metadata.AppendToOutgoingContext(t.Context(), "client-api-version", "\xff"), &pb.PutRequest{Key: []byte("a")})
	if err == nil {
		t.Fatal("a client version that is no text was taken")
	}
}
