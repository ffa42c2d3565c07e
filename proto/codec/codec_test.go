package codec

import (
	"bytes"
	"errors"
	"flag"
	"math/rand/v2"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"

	_ "github.com/holdfast-db/holdfast/proto/authpb"
	_ "github.com/holdfast-db/holdfast/proto/holdfastpb"
	_ "github.com/holdfast-db/holdfast/proto/v3electionpb"
	_ "github.com/holdfast-db/holdfast/proto/v3lockpb"
)

var seedFlag = flag.Uint64("seed", 0, "seed of random messages; 0 draws one")

func newRand(t testing.TB) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("replay with -seed=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// eachType calls f for every message type of ours, services' and log's alike.
func eachType(f func(protoreflect.MessageType)) {
	protoregistry.GlobalTypes.RangeMessages(func(mt protoreflect.MessageType) bool {
		switch mt.Descriptor().ParentFile().Package() {
		case "etcdserverpb", "mvccpb", "authpb", "v3lockpb", "v3electionpb", "holdfastpb":
			f(mt)
		}
		return true
	})
}

// fill sets about half of the fields at random.
func fill(r *rand.Rand, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if r.IntN(2) == 0 || f.Message() != nil && depth > 4 {
			continue
		}
		if !f.IsList() {
			m.Set(f, value(r, f, m.NewField(f), depth))
			continue
		}
		list := m.Mutable(f).List()
		for range r.IntN(4) {
			list.Append(value(r, f, list.NewElement(), depth))
		}
	}
}

func value(r *rand.Rand, f protoreflect.FieldDescriptor, empty protoreflect.Value, depth int) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.MessageKind:
		fill(r, empty.Message(), depth+1)
		return empty
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(randomBytes(r, r.IntN(40)))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString([]string{"", "name", "Ω名前"}[r.IntN(3)])
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(r.IntN(2) == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(r.IntN(4)))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(r.Uint64() >> r.IntN(64)))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(r.Uint64() >> r.IntN(64))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(r.Uint32())
	}
	panic("no random value of kind " + f.Kind().String())
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func wire(t testing.TB, c *Codec, v any) []byte {
	t.Helper()
	data, err := c.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Free()
	return data.Materialize()
}

// pieces cuts b into buffers, as it may come off a connection.
func pieces(r *rand.Rand, b []byte) mem.BufferSlice {
	var s mem.BufferSlice
	for len(b) > 0 {
		n := 1 + r.IntN(len(b))
		s, b = append(s, mem.SliceBuffer(b[:n])), b[n:]
	}
	return s
}

func standard(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEveryMessageHasTheStandardWireFormAndComesBackEqual(t *testing.T) {
	r, c, types := newRand(t), New(), 0
	eachType(func(mt protoreflect.MessageType) {
		types++
		for range 50 {
			m := mt.New().Interface()
			fill(r, m.ProtoReflect(), 0)
			want := standard(t, m)
			got := wire(t, c, m)
			if !bytes.Equal(got, want) {
				t.Fatalf("%s: wire form is %x, want %x", mt.Descriptor().FullName(), got, want)
			}
			back := mt.New().Interface()
			fill(r, back.ProtoReflect(), 0) // What was there before must not show.
			if err := c.Unmarshal(pieces(r, got), back); err != nil {
				t.Fatalf("%s: %v", mt.Descriptor().FullName(), err)
			}
			if !proto.Equal(m, back) {
				t.Fatalf("%s: came back as %v, want %v", mt.Descriptor().FullName(), back, m)
			}
		}
	})
	if types < 100 {
		t.Fatalf("only %d message types are known", types)
	}
}

func TestUnmarshalledMessageDoesNotShareBytesWithTheStream(t *testing.T) {
	c := New()
	b := wire(t, c, &etcdserverpb.PutRequest{Key: []byte("key"), Value: []byte("value")})
	var m etcdserverpb.PutRequest
	if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, &m); err != nil {
		t.Fatal(err)
	}
	clear(b)
	if string(m.Key) != "key" || string(m.Value) != "value" {
		t.Fatalf("reused buffer changed the message to %q = %q", m.Key, m.Value)
	}
}

func TestABufferIsNotMuchLargerThanItsMessage(t *testing.T) {
	c := New()
	for size := bufferBytesMin + 1; size <= bufferBytesMax; size = size*3/2 + 1 {
		buf, b := newBuffer(c.pool, size)
		if cap(b) > 2*size {
			t.Errorf("%d bytes of buffer for %d", cap(b), size)
		}
		buf.Free()
	}
}

func TestInvalidUTF8IsRefusedBothWays(t *testing.T) {
	c := New()
	if _, err := c.Marshal(&etcdserverpb.AuthUserAddRequest{Name: "\xff"}); err == nil {
		t.Error("marshalled a name that is not UTF-8")
	}
	b := protowire.AppendTag(nil, 1, protowire.BytesType)
	b = protowire.AppendBytes(b, []byte{0xff})
	if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, new(etcdserverpb.AuthUserAddRequest)); err == nil {
		t.Error("unmarshalled a name that is not UTF-8")
	}
}

func TestWhatIsNotAMessageIsAnError(t *testing.T) {
	c := New()
	if _, err := c.Marshal("text"); err == nil {
		t.Error("marshalled a string")
	}
	if err := c.Unmarshal(nil, new(string)); err == nil {
		t.Error("unmarshalled into a string")
	}
}

func TestTransactionsNestedTooDeepAreRefused(t *testing.T) {
	nest := func(depth int) []byte {
		var txn []byte
		for range depth - 1 {
			op := protowire.AppendTag(nil, opTxn, protowire.BytesType)
			op = protowire.AppendBytes(op, txn)
			txn = protowire.AppendTag(nil, txnSuccess, protowire.BytesType)
			txn = protowire.AppendBytes(txn, op)
		}
		return txn
	}
	if err := checkNesting(new(etcdserverpb.TxnRequest), nest(nestingMax)); err != nil {
		t.Errorf("depth %d: %v", nestingMax, err)
	}
	err := New().Unmarshal(mem.BufferSlice{mem.SliceBuffer(nest(nestingMax + 1))}, new(etcdserverpb.TxnRequest))
	if !errors.Is(err, ErrNestedTooDeep) {
		t.Errorf("depth %d: got %v, want %v", nestingMax+1, err, ErrNestedTooDeep)
	}
}

func FuzzUnmarshalAgreesWithProtobuf(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	requests := []proto.Message{
		new(etcdserverpb.RangeRequest), new(etcdserverpb.PutRequest), new(etcdserverpb.DeleteRangeRequest), new(etcdserverpb.TxnRequest),
		new(etcdserverpb.WatchRequest), new(etcdserverpb.LeaseKeepAliveRequest), new(etcdserverpb.RangeResponse), new(etcdserverpb.WatchResponse),
		new(mvccpb.KeyValue), new(etcdserverpb.AuthUserAddRequest),
	}
	for i, m := range requests {
		for range 5 {
			proto.Reset(m)
			fill(r, m.ProtoReflect(), 0)
			f.Add(byte(i), standard(f, m))
		}
	}
	c := New()
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		kind := requests[int(which)%len(requests)].ProtoReflect().Type()
		got, want := kind.New().Interface(), kind.New().Interface()
		err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(bytes.Clone(b))}, got)
		if err != nil || proto.Unmarshal(b, want) != nil {
			return // Each refuses some oddities that the other takes as unknown fields; it is enough that both end.
		}
		if !proto.Equal(got, want) && len(want.ProtoReflect().GetUnknown()) == 0 {
			t.Fatalf("%s: got %v, want %v", kind.Descriptor().FullName(), got, want)
		}
	})
}
