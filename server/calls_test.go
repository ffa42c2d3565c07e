package server_test

import (
	"strings"
	"testing"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server/servertest"
)

func TestCallsAreCountedByMethodAndOutcome(t *testing.T) {
	m := servertest.New(t, 1, nil).Members[0]
	conn := dial(t, m)
	mustPut(t, conn, "a", "1")
	mustPut(t, conn, "a", "2")
	if _, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{}); err == nil {
		t.Fatal("a put without a key succeeds")
	}
	stream, err := pb.NewLeaseClient(conn).LeaseKeepAlive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: 7}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	put, keepAlive := `grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"`, `grpc_method="LeaseKeepAlive",grpc_service="etcdserverpb.Lease",grpc_type="bidi_stream"`
	var metrics string
	eventually(t, "the last answer is counted, which its reader may have before that", func() bool {
		_, _, metrics = ask(t, "GET", "http://"+m.ClientAddrs()[0]+"/metrics")
		return strings.Contains(metrics, "\ngrpc_server_msg_sent_total{"+keepAlive+"} 3\n")
	})
	for _, want := range []string{
		`grpc_server_started_total{` + put + `} 3`,
		`grpc_server_msg_received_total{` + put + `} 3`,
		`grpc_server_msg_sent_total{` + put + `} 2`,
		`grpc_server_handled_total{grpc_code="OK",` + put + `} 2`,
		`grpc_server_handled_total{grpc_code="InvalidArgument",` + put + `} 1`,
		`grpc_server_handled_total{grpc_code="Unavailable",` + put + `} 0`,
		`grpc_server_started_total{` + keepAlive + `} 1`,
		`grpc_server_msg_received_total{` + keepAlive + `} 3`,
		`grpc_server_handled_total{grpc_code="OK",` + keepAlive + `} 0`,
	} {
		if !strings.Contains(metrics, "\n"+want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	if strings.Contains(metrics, "grpc_server_handling_seconds") {
		t.Error("times of calls are told though nobody asked for extensive metrics")
	}
}
