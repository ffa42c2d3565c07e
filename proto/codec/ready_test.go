package codec

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

func randomKV(r *rand.Rand) *mvccpb.KeyValue {
	kv := &mvccpb.KeyValue{}
	fill(r, kv.ProtoReflect(), 0)
	if r.IntN(4) == 0 {
		kv.Value = randomBytes(r, r.IntN(3*spliceBytesMin))
	}
	return kv
}

func randomHeader(r *rand.Rand) *etcdserverpb.ResponseHeader {
	if r.IntN(4) == 0 {
		return nil
	}
	h := &etcdserverpb.ResponseHeader{}
	fill(r, h.ProtoReflect(), 0)
	return h
}

func checkReady(t *testing.T, ready Ready, want proto.Message) {
	t.Helper()
	c := New()
	data, err := c.Marshal(ready)
	if err != nil {
		t.Fatal(err)
	}
	got := data.Materialize()
	data.Free()
	if ready.ReadySize() != len(got) {
		t.Fatalf("promised %d bytes, wrote %d", ready.ReadySize(), len(got))
	}
	if !bytes.Equal(got, standard(t, want)) {
		t.Fatalf("wire form differs from that of %v", want)
	}
	back := want.ProtoReflect().New().Interface()
	if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(got)}, back); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(back, want) {
		t.Fatalf("came back as %v, want %v", back, want)
	}
}

func TestReadyRangeIsARangeResponse(t *testing.T) {
	r := newRand(t)
	for range 300 {
		ready := &RangeReady{Header: randomHeader(r), More: r.IntN(2) == 0, Count: r.Int64N(3)}
		want := &etcdserverpb.RangeResponse{Header: ready.Header, More: ready.More, Count: ready.Count}
		for range r.IntN(60) {
			kv := randomKV(r)
			want.Kvs = append(want.Kvs, kv)
			ready.KVs = append(ready.KVs, standard(t, kv))
		}
		checkReady(t, ready, want)
		checkReady(t, &RangePartReady{*ready}, &etcdserverpb.RangeStreamResponse{RangeResponse: want})
	}
}

func TestReadyWatchIsAWatchResponse(t *testing.T) {
	r := newRand(t)
	for range 300 {
		want := &etcdserverpb.WatchResponse{}
		fill(r, want.ProtoReflect(), 0)
		ready := &WatchReady{
			Header: want.Header, WatchID: want.WatchId, Created: want.Created, Canceled: want.Canceled,
			CompactRevision: want.CompactRevision, CancelReason: want.CancelReason, Fragment: want.Fragment,
		}
		want.Events = nil
		for range r.IntN(60) {
			e := &mvccpb.Event{Type: mvccpb.Event_EventType(r.IntN(2)), Kv: randomKV(r)}
			var prev []byte
			if r.IntN(2) == 0 {
				e.PrevKv = randomKV(r)
				e.PrevKv.Key = []byte("k") // A previous key is never empty.
				prev = standard(t, e.PrevKv)
			}
			want.Events = append(want.Events, e)
			kv := standard(t, e.Kv)
			event := AppendEvent(nil, e.Type, kv, prev)
			if size := EventSize(e.Type, len(kv), len(prev)); size != len(event) {
				t.Fatalf("promised an event of %d bytes, wrote %d", size, len(event))
			}
			ready.Events = append(ready.Events, event)
		}
		checkReady(t, ready, want)
	}
}

func TestLargePartsAreNotCopied(t *testing.T) {
	large := standard(t, &mvccpb.KeyValue{Key: []byte("k"), Value: make([]byte, 2*spliceBytesMin)})
	data, err := New().Marshal(&RangeReady{KVs: [][]byte{large, large}})
	if err != nil {
		t.Fatal(err)
	}
	defer data.Free()
	same := 0
	for _, buf := range data {
		if b := buf.ReadOnlyData(); len(b) == len(large) && &b[0] == &large[0] {
			same++
		}
	}
	if same != 2 {
		t.Fatalf("%d of 2 large parts went out in place", same)
	}
}

func BenchmarkRangeOf100KeysReadyOrBuilt(b *testing.B) {
	kv := &mvccpb.KeyValue{Key: make([]byte, 64), Value: make([]byte, 1024), CreateRevision: 1e6, ModRevision: 1e6, Version: 3}
	header := &etcdserverpb.ResponseHeader{ClusterId: 1 << 60, MemberId: 1 << 60, Revision: 1e6, RaftTerm: 2}
	ready := &RangeReady{Header: header, Count: 100}
	for range 100 {
		ready.KVs = append(ready.KVs, standard(b, kv))
	}
	c := New()
	marshal := func(b *testing.B, v any) {
		data, err := c.Marshal(v)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(data.Len()))
		data.Free()
	}
	b.Run("ready", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			marshal(b, ready)
		}
	})
	b.Run("built", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m := &etcdserverpb.RangeResponse{Header: header, Count: 100}
			for _, wire := range ready.KVs {
				kv := new(mvccpb.KeyValue)
				if err := kv.UnmarshalVTUnsafe(wire); err != nil {
					b.Fatal(err)
				}
				m.Kvs = append(m.Kvs, kv)
			}
			marshal(b, m)
		}
	})
}

func BenchmarkPutRequestOffTheStream(b *testing.B) {
	wire := standard(b, &etcdserverpb.PutRequest{Key: make([]byte, 64), Value: make([]byte, 256)})
	data := mem.BufferSlice{mem.SliceBuffer(wire)}
	c := New()
	b.Run("codec", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := c.Unmarshal(data, new(etcdserverpb.PutRequest)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("copying", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := new(etcdserverpb.PutRequest).UnmarshalVT(wire); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("protobuf", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := proto.Unmarshal(wire, new(etcdserverpb.PutRequest)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestAnAnswerEncodedForManyStreamsIsTheSame(t *testing.T) {
	w := &WatchReady{Header: &etcdserverpb.ResponseHeader{ClusterId: 1, MemberId: 2, Revision: 300, RaftTerm: 4}, WatchID: 5}
	for range 3 {
		var got, want etcdserverpb.WatchResponse
		for m, v := range map[*etcdserverpb.WatchResponse]any{&got: w.Encode(), &want: w} {
			data, err := New().Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if err := New().Unmarshal(data, m); err != nil {
				t.Fatal(err)
			}
		}
		if !proto.Equal(&got, &want) || len(got.Events) != len(w.Events) || len(w.Encode()) != w.ReadySize() {
			t.Fatalf("%v, want %v", &got, &want)
		}
		w.Events = append(w.Events, AppendEvent(nil, mvccpb.Event_DELETE, []byte{10, 1, 'k'}, nil))
	}
}
