package wire

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// store answers a range with as many keys as its limit says, of a MiB each.
type store struct{ pb.UnimplementedKVServer }

func (store) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if string(r.Key) == "bad" {
		return nil, status.Error(codes.NotFound, "no such thing")
	}
	answer := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: 42}}
	for i := range r.Limit {
		answer.Kvs = append(answer.Kvs, &mvccpb.KeyValue{Key: []byte{r.Key[0], byte(i)}, Value: bytes.Repeat([]byte{byte(i)}, 1<<20)})
	}
	return answer, nil
}

func serve(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	pb.RegisterKVServer(s, store{})
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

func TestLargeAnswersArriveWhole(t *testing.T) {
	c, err := Dial(serve(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		body, err := c.Ask(Range, AppendRange(nil, &RangeRequest{Key: []byte("k"), Limit: 40}))
		if err != nil {
			t.Fatal(err)
		}
		if rev, err := Revision(body); rev != 42 || err != nil {
			t.Fatalf("revision %d, %v", rev, err)
		}
		n := 0
		err = KeyValues(body, func(key, value []byte) error {
			if want := []byte{'k', byte(n)}; !bytes.Equal(key, want) || !bytes.Equal(value, bytes.Repeat([]byte{byte(n)}, 1<<20)) {
				t.Errorf("key %q is not the one that was stored", key)
			}
			n++
			return nil
		})
		if n != 40 || err != nil {
			t.Fatalf("%d keys, %v", n, err)
		}
	}
}

func TestAnErrorIsToldWithItsText(t *testing.T) {
	_, err := Ask(serve(t), Range, AppendRange(nil, &RangeRequest{Key: []byte("bad")}), 10*time.Second)
	if err == nil || !strings.Contains(err.Error(), "status 5: no such thing") {
		t.Fatalf("error %v", err)
	}
}

func TestManyCallsThatExceedTheWindowOfTheConnectionAllEnd(t *testing.T) {
	c, err := Dial(serve(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const calls = 300
	ended := 0
	for range calls {
		call := &Call{End: func(status int, text string) error {
			if status != 0 {
				t.Errorf("status %d: %s", status, text)
			}
			if ended++; ended == calls {
				return errDone
			}
			return nil
		}}
		if err := c.Start(Range, AppendRange(nil, &RangeRequest{Key: bytes.Repeat([]byte("x"), 10_000)}), call, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Run(); err != errDone {
		t.Fatal(err)
	}
}
