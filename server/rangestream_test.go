package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/quick"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// merged is what all parts of a stream make together, and how many there were.
func merged(ctx context.Context, kv pb.KVClient, r *pb.RangeRequest) (*pb.RangeResponse, int, error) {
	stream, err := kv.RangeStream(ctx, r)
	if err != nil {
		return nil, 0, err
	}
	whole := &pb.RangeResponse{}
	for parts := 0; ; parts++ {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return whole, parts, nil
		}
		if err != nil {
			return nil, parts, err
		}
		if whole.Header != nil {
			return nil, parts, errors.New("a part after the last")
		}
		proto.Merge(whole, part.RangeResponse)
	}
}

func TestAStreamOfARangeIsTheRange(t *testing.T) {
	conn := dial(t, servertest.New(t, 1, nil).Members[0])
	kv := pb.NewKVClient(conn)
	value := bytes.Repeat([]byte("v"), 50<<10)
	for i := range 40 {
		if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: fmt.Appendf(nil, "k%02d", i), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	all := []byte{0}
	for _, c := range []struct {
		name  string
		r     *pb.RangeRequest
		parts int // At least.
	}{
		{"all", &pb.RangeRequest{Key: all, RangeEnd: all}, 3},
		{"ascending", &pb.RangeRequest{Key: all, RangeEnd: all, SortOrder: pb.RangeRequest_ASCEND}, 3},
		{"a past", &pb.RangeRequest{Key: all, RangeEnd: all, Revision: 30}, 2},
		{"a limit", &pb.RangeRequest{Key: all, RangeEnd: all, Limit: 25}, 2},
		{"a limit that is reached", &pb.RangeRequest{Key: all, RangeEnd: all, Limit: 40}, 3},
		{"a limit that ends with a part", &pb.RangeRequest{Key: all, RangeEnd: all, Limit: 11}, 1},
		{"a limit that ends with the second part", &pb.RangeRequest{Key: all, RangeEnd: all, Limit: 22}, 2},
		{"one key", &pb.RangeRequest{Key: []byte("k07")}, 1},
		{"no key", &pb.RangeRequest{Key: []byte("x")}, 1},
		{"an empty range", &pb.RangeRequest{Key: []byte("x"), RangeEnd: []byte("y")}, 1},
		{"keys only", &pb.RangeRequest{Key: all, RangeEnd: all, KeysOnly: true}, 1},
		{"count only", &pb.RangeRequest{Key: all, RangeEnd: all, CountOnly: true}, 1},
		{"serializable", &pb.RangeRequest{Key: []byte("k1"), RangeEnd: []byte("k2"), Serializable: true}, 1},
	} {
		want, err := kv.Range(t.Context(), c.r)
		if err != nil {
			t.Fatal(err)
		}
		got, parts, err := merged(t.Context(), kv, c.r)
		if err != nil || !proto.Equal(got, want) || parts < c.parts {
			t.Errorf("%s: %d parts, %v, header %v, %d keys, count %d, more %v", c.name, parts, err, got.GetHeader(), len(got.GetKvs()), got.GetCount(), got.GetMore())
		}
	}
	for _, c := range []struct {
		r    *pb.RangeRequest
		code codes.Code
		text string
	}{
		{&pb.RangeRequest{Key: all, RangeEnd: all, SortOrder: pb.RangeRequest_DESCEND}, codes.Unimplemented, "RangeStream does not support custom sort orders"},
		{&pb.RangeRequest{Key: all, RangeEnd: all, SortTarget: pb.RangeRequest_MOD, SortOrder: pb.RangeRequest_ASCEND}, codes.Unimplemented, "RangeStream does not support custom sort orders"},
		{&pb.RangeRequest{Key: all, RangeEnd: all, MinModRevision: 3}, codes.Unimplemented, "RangeStream does not support revision filters"},
		{&pb.RangeRequest{}, codes.InvalidArgument, "etcdserver: key is not provided"},
		{&pb.RangeRequest{Key: all, RangeEnd: all, Revision: 99}, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
	} {
		if _, _, err := merged(t.Context(), kv, c.r); status.Code(err) != c.code || status.Convert(err).Message() != c.text {
			t.Errorf("%v: %v", c.r, err)
		}
	}
}

func TestAStreamOfARangeIsOfOneRevision(t *testing.T) {
	c := servertest.New(t, 1, nil)
	cl := clientOf(t, c)
	value := bytes.Repeat([]byte("v"), 100<<10)
	for i := range 20 {
		if _, err := cl.Put(t.Context(), client.Put{Key: fmt.Sprintf("k%02d", i), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	parts, keys := 0, 0
	answer, err := cl.GetStream(t.Context(), client.Get{Range: client.Prefix("k")}, func(kvs []*mvccpb.KeyValue) error {
		parts++
		keys += len(kvs)
		for _, kv := range kvs {
			if kv.Version != 1 {
				t.Errorf("%s was written meanwhile, and shows", kv.Key)
			}
		}
		for i := range 20 {
			if _, err := cl.Put(t.Context(), client.Put{Key: fmt.Sprintf("k%02d", i)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || keys != 20 || parts < 3 || answer.Count != 20 || answer.Header.Revision != 21 {
		t.Fatalf("%d keys in %d parts, %v, %v", keys, parts, answer, err)
	}
	stop := errors.New("enough")
	if _, err := cl.GetStream(t.Context(), client.Get{Range: client.Prefix("k")}, func([]*mvccpb.KeyValue) error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("a reader that has enough: %v", err)
	}
}

// TestAStreamOfARangeNeedsLittleMemory reads 96 MiB with both sides in this
// process: what is live at any part must not grow with what was read.
func TestAStreamOfARangeNeedsLittleMemory(t *testing.T) {
	quick.LeaveOut(t)
	const keys, valueBytes, extraMax = 96, 1 << 20, 64 << 20
	c := servertest.New(t, 1, nil)
	cl := clientOf(t, c)
	for i := range keys {
		if _, err := cl.Put(t.Context(), client.Put{Key: fmt.Sprintf("k%03d", i), Value: bytes.Repeat([]byte{byte(i)}, valueBytes)}); err != nil {
			t.Fatal(err)
		}
	}
	live := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most, read := live(), uint64(0), 0
	_, err := cl.GetStream(t.Context(), client.Get{Range: client.Prefix("k")}, func(kvs []*mvccpb.KeyValue) error {
		for _, kv := range kvs {
			read += len(kv.Value)
		}
		if read%(16<<20) < valueBytes {
			most = max(most, live())
		}
		return nil
	})
	if err != nil || read != keys*valueBytes {
		t.Fatalf("read %d bytes, %v", read, err)
	}
	if most > before+extraMax {
		t.Errorf("%d MiB live while reading, %d before", most>>20, before>>20)
	}
	t.Logf("%d MiB live while reading %d MiB, %d before", most>>20, read>>20, before>>20)
}

// What clients do not read waits in memory, so there is a bound on how many may do that.
func TestClientsThatDoNotReadTheirRangesAreFew(t *testing.T) {
	const most = 8 // MiB for streams.
	m := servertest.New(t, 1, func(_ int, c *server.Config) { c.ClientBufferBytes = 2 * most << 20 }).Members[0]
	kv := pb.NewKVClient(dial(t, m))
	for i := range 40 {
		if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: fmt.Appendf(nil, "k%02d", i), Value: bytes.Repeat([]byte("v"), 1<<20)}); err != nil {
			t.Fatal(err)
		}
	}
	all := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var slow []pb.KV_RangeStreamClient
	for range most {
		stream, err := kv.RangeStream(ctx, all)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, stream)
	}
	if _, _, err := merged(t.Context(), kv, all); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("one more than %d: %v", len(slow), err)
	}
	if _, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("k07")}); err != nil {
		t.Errorf("other calls go on: %v", err)
	}
	leave()
	eventually(t, "the places to be free", func() bool {
		whole, _, err := merged(t.Context(), kv, all)
		return err == nil && whole.Count == 40
	})
}
