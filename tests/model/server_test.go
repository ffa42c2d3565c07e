package model

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// call sends a request to the method that takes it.
func call(ctx context.Context, conn grpc.ClientConnInterface, req proto.Message) (proto.Message, error) {
	kv, leases := pb.NewKVClient(conn), pb.NewLeaseClient(conn)
	switch r := req.(type) {
	case *pb.RangeRequest:
		return answer(kv.Range(ctx, r))
	case *pb.PutRequest:
		return answer(kv.Put(ctx, r))
	case *pb.DeleteRangeRequest:
		return answer(kv.DeleteRange(ctx, r))
	case *pb.TxnRequest:
		return answer(kv.Txn(ctx, r))
	case *pb.CompactionRequest:
		return answer(kv.Compact(ctx, r))
	case *pb.LeaseGrantRequest:
		return answer(leases.LeaseGrant(ctx, r))
	}
	return answer(leases.LeaseRevoke(ctx, req.(*pb.LeaseRevokeRequest)))
}

// headless leaves of a header what the model knows.
func headless(m proto.Message) proto.Message {
	if h, ok := m.(interface{ GetHeader() *pb.ResponseHeader }); ok && h.GetHeader() != nil {
		*h.GetHeader() = pb.ResponseHeader{Revision: h.GetHeader().Revision}
	}
	return m
}

// TestAMemberAnswersAsTheModel sends what no server should accept as well. The
// events that a watch brings at the end are those of the model.
func TestAMemberAnswersAsTheModel(t *testing.T) {
	seed := rand.Uint64()
	if *seedFlag != 0 {
		seed = *seedFlag
	}
	t.Logf("-seed %d", seed)
	conn, err := servertest.New(t, 1, nil).Members[0].DialInside()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m, d := New(), NewDraw(rand.New(rand.NewPCG(seed, 0)))
	m.TTLMin, d.Invalid = 1, 15 // The election timeout of servertest is half a second.
	kinds := map[string]int{}
	missing := func() (list []error) {
		for _, err := range []error{ErrEmptyKey, ErrValueProvided, ErrLeaseProvided, ErrDuplicateKey, ErrSortOption, ErrLeaseNotFound} {
			if kinds[err.Error()] == 0 {
				list = append(list, err)
			}
		}
		return list
	}
	for n := 0; n < 1500 || n < 15_000 && len(missing()) > 0; n++ { // Some are rare.
		req := d.Request(m)
		if _, ok := req.(*pb.CompactionRequest); ok {
			continue // So that the watch may begin at the beginning.
		}
		if g, ok := req.(*pb.LeaseGrantRequest); ok && g.TTL < 60 {
			g.TTL += 24 * 60 * 60 // Never runs out here, however long a sync takes.
		}
		got, gotErr := call(t.Context(), conn, req)
		want, wantErr := m.Execute(req)
		switch {
		case (gotErr == nil) != (wantErr == nil) || gotErr != nil && status.Convert(gotErr).Message() != wantErr.Error():
			t.Fatalf("%s\nis answered with error %v, the model has %v", show(req), gotErr, wantErr)
		case wantErr != nil:
			kinds[wantErr.Error()]++
		case !proto.Equal(headless(got), want):
			t.Fatalf("%s\nis answered with\n%s\nthe model has\n%s", show(req), show(got), show(want))
		}
	}
	for _, err := range missing() {
		t.Errorf("nothing was refused with %v", err)
	}
	compareEvents(t, conn, m)
	t.Logf("%d revisions, refused: %v", m.Revision(), kinds)
}

func compareEvents(t *testing.T, conn grpc.ClientConnInterface, m *Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		RangeEnd: []byte{0}, StartRevision: 1, PrevKv: true,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	want := m.Events(1, m.Revision())
	for len(want) > 0 {
		r, err := stream.Recv()
		if err != nil {
			t.Fatalf("with %d events to come: %v", len(want), err)
		}
		for _, e := range r.Events {
			if len(want) == 0 {
				t.Fatalf("an event too many: %s", show(e))
			}
			if prev := m.Get(string(e.Kv.Key), e.Kv.ModRevision-1); !proto.Equal(e.PrevKv, prev) {
				t.Fatalf("before %s was %s", show(e), show(prev))
			}
			e.PrevKv = nil
			if !proto.Equal(e, want[0]) {
				t.Fatalf("event is %s, the model has %s", show(e), show(want[0]))
			}
			want = want[1:]
		}
	}
}
