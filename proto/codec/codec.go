// Package codec puts messages on gRPC streams and takes them off.
//
// It is protobuf on the wire, so any etcd client understands it; server,
// client and transport set it with ForceServerCodecV2 and ForceCodecV2. It is
// never registered: other users of gRPC in the same process keep theirs.
//
// Three things set it apart. Generated vtprotobuf methods replace reflection.
// A message taken off a stream lies in one buffer of its own, and its byte
// fields point into it. And an answer that implements Ready is written from
// bytes that exist already: keys and values go from history or base to the
// socket without being decoded.
package codec

import (
	"fmt"
	"reflect"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Codec implements gRPC's CodecV2.
type Codec struct {
	pool mem.BufferPool

	textual sync.Map // reflect.Type to bool: whether the message can hold a string.
}

var _ encoding.CodecV2 = (*Codec)(nil)

// New returns a codec. One serves any number of connections.
func New() *Codec {
	var sizes []int
	for n := bufferBytesMin; n <= bufferBytesMax; n *= 2 {
		sizes = append(sizes, n)
	}
	return &Codec{pool: mem.NewTieredBufferPool(sizes...)}
}

// Name is protobuf's: peers negotiate nothing else.
func (c *Codec) Name() string { return "proto" }

// generated is what vtprotobuf adds to a message.
type generated interface {
	proto.Message
	Reset()
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
	UnmarshalVTUnsafe([]byte) error
}

// Marshal encodes an Encoded, a Ready or a proto.Message.
func (c *Codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case Encoded:
		return mem.BufferSlice{mem.SliceBuffer(m)}, nil
	case Ready:
		e := Encoder{pool: c.pool, left: m.ReadySize()}
		m.EncodeReady(&e)
		e.release()
		return e.out, nil
	case generated:
		if c.holdsText(m) {
			return c.marshalSlow(m)
		}
		size := m.SizeVT()
		buf, b := newBuffer(c.pool, size)
		if _, err := m.MarshalToSizedBufferVT(b); err != nil {
			buf.Free()
			return nil, err
		}
		return mem.BufferSlice{buf}, nil
	case proto.Message:
		return c.marshalSlow(m)
	}
	return nil, fmt.Errorf("marshal %T: not a protobuf message", v)
}

func (c *Codec) marshalSlow(m proto.Message) (mem.BufferSlice, error) {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Unmarshal decodes into a proto.Message, whose former content is lost.
func (c *Codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("unmarshal into %T: not a protobuf message", v)
	}
	g, ok := v.(generated)
	if !ok || c.holdsText(g) {
		buf := data.MaterializeToBuffer(c.pool)
		defer buf.Free()
		return proto.Unmarshal(buf.ReadOnlyData(), m)
	}
	b := data.Materialize() // A copy that belongs to m alone: nobody frees or reuses it.
	if err := checkNesting(m, b); err != nil {
		return err
	}
	g.Reset()
	return g.UnmarshalVTUnsafe(b)
}

// holdsText reports whether strings can occur in m. These must be UTF-8, which
// protobuf checks and the generated methods do not: without the check one
// client could store a name that no other can decode. Such messages are rare,
// but for watch answers, whose only string is a reason that the server wrote.
func (c *Codec) holdsText(m generated) bool {
	key := reflect.TypeOf(m)
	if known, ok := c.textual.Load(key); ok {
		return known.(bool)
	}
	d := m.ProtoReflect().Descriptor()
	found := d.FullName() != "etcdserverpb.WatchResponse" && anyString(d, make(map[protoreflect.FullName]bool))
	c.textual.Store(key, found)
	return found
}

func anyString(d protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	if seen[d.FullName()] {
		return false
	}
	seen[d.FullName()] = true
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if f.Kind() == protoreflect.StringKind {
			return true
		}
		if f.Message() != nil && anyString(f.Message(), seen) {
			return true
		}
	}
	return false
}
