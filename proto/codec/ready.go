package codec

import (
	"github.com/holdfast-db/holdfast/internal/assert"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// Numbers of the fields that come ready-made.
const (
	rangeKVs     protowire.Number = 2
	streamRange  protowire.Number = 1
	watchEvents  protowire.Number = 11
	eventKV      protowire.Number = 2
	eventPrevKV  protowire.Number = 3
	eventTypeTag                  = 1<<3 | byte(protowire.VarintType)
)

// Encoded is a message in wire form, never written to again.
type Encoded []byte

// RangeReady is an etcdserverpb.RangeResponse whose keys are encoded already.
type RangeReady struct {
	Header *etcdserverpb.ResponseHeader
	KVs    [][]byte // Each an mvccpb.KeyValue in wire form, never written to again.
	More   bool
	Count  int64
}

// ReadySize implements Ready.
func (r *RangeReady) ReadySize() int {
	head := etcdserverpb.RangeResponse{Header: r.Header, More: r.More, Count: r.Count}
	size := head.SizeVT()
	for _, kv := range r.KVs {
		size += messageSize(rangeKVs, len(kv))
	}
	return size
}

// EncodeReady implements Ready. Fields go out in the order of their numbers, as
// a RangeResponse's do.
func (r *RangeReady) EncodeReady(e *Encoder) {
	head := etcdserverpb.RangeResponse{Header: r.Header}
	b := e.Reserve(head.SizeVT())
	n, err := head.MarshalToSizedBufferVT(b)
	mustFill(b, n, err)
	for _, kv := range r.KVs {
		e.Message(rangeKVs, kv)
	}
	tail := etcdserverpb.RangeResponse{More: r.More, Count: r.Count}
	b = e.Reserve(tail.SizeVT())
	n, err = tail.MarshalToSizedBufferVT(b)
	mustFill(b, n, err)
}

// RangePartReady is an etcdserverpb.RangeStreamResponse around a RangeReady.
type RangePartReady struct {
	RangeReady // Without a header but in the last.
}

// ReadySize implements Ready.
func (r *RangePartReady) ReadySize() int { return messageSize(streamRange, r.RangeReady.ReadySize()) }

// EncodeReady implements Ready.
func (r *RangePartReady) EncodeReady(e *Encoder) {
	inner := r.RangeReady.ReadySize()
	b := e.Reserve(messageSize(streamRange, inner) - inner)[:0]
	b = protowire.AppendTag(b, streamRange, protowire.BytesType)
	protowire.AppendVarint(b, uint64(inner))
	r.RangeReady.EncodeReady(e)
}

// WatchReady is an etcdserverpb.WatchResponse whose events are encoded already,
// once for all the streams that want them.
type WatchReady struct {
	Header          *etcdserverpb.ResponseHeader
	WatchID         int64
	Created         bool
	Canceled        bool
	CompactRevision int64
	CancelReason    string // Valid UTF-8.
	Fragment        bool
	Events          [][]byte // Each an mvccpb.Event in wire form, as AppendEvent makes it, never written to again.
}

// ReadySize implements Ready.
func (w *WatchReady) ReadySize() int {
	var head etcdserverpb.WatchResponse
	w.setHead(&head)
	size := head.SizeVT()
	for _, event := range w.Events {
		size += messageSize(watchEvents, len(event))
	}
	return size
}

// EncodeReady implements Ready. Events have the highest number, so all else
// comes first.
func (w *WatchReady) EncodeReady(e *Encoder) {
	var head etcdserverpb.WatchResponse
	w.setHead(&head)
	b := e.Reserve(head.SizeVT())
	n, err := head.MarshalToSizedBufferVT(b)
	mustFill(b, n, err)
	for _, event := range w.Events {
		e.Message(watchEvents, event)
	}
}

// Encode makes an Encoded that many streams can send.
func (w *WatchReady) Encode() Encoded {
	var head etcdserverpb.WatchResponse
	w.setHead(&head)
	b := make([]byte, head.SizeVT(), w.ReadySize())
	n, err := head.MarshalToSizedBufferVT(b)
	mustFill(b, n, err)
	for _, event := range w.Events {
		b = protowire.AppendTag(b, watchEvents, protowire.BytesType)
		b = protowire.AppendBytes(b, event)
	}
	return b
}

// setHead sets all but the events. The caller's m stays on its stack.
func (w *WatchReady) setHead(m *etcdserverpb.WatchResponse) {
	m.Header = w.Header
	m.WatchId = w.WatchID
	m.Created = w.Created
	m.Canceled = w.Canceled
	m.CompactRevision = w.CompactRevision
	m.CancelReason = w.CancelReason
	m.Fragment = w.Fragment
}

// AppendEvent appends the wire form of an mvccpb.Event whose key values are
// encoded already. An empty prev is left out.
func AppendEvent(b []byte, kind mvccpb.Event_EventType, kv, prev []byte) []byte {
	if kind != mvccpb.Event_PUT {
		b = append(b, eventTypeTag, byte(kind))
	}
	b = protowire.AppendTag(b, eventKV, protowire.BytesType)
	b = protowire.AppendBytes(b, kv)
	if len(prev) > 0 {
		b = protowire.AppendTag(b, eventPrevKV, protowire.BytesType)
		b = protowire.AppendBytes(b, prev)
	}
	return b
}

// EventSize is how much AppendEvent appends.
func EventSize(kind mvccpb.Event_EventType, kvBytes, prevBytes int) int {
	size := messageSize(eventKV, kvBytes)
	if kind != mvccpb.Event_PUT {
		size += 2
	}
	if prevBytes > 0 {
		size += messageSize(eventPrevKV, prevBytes)
	}
	return size
}

// mustFill checks a generated method against its own SizeVT.
func mustFill(b []byte, n int, err error) {
	if err != nil || n != len(b) {
		assert.Failf("encoded %d of %d bytes: %v", n, len(b), err)
	}
}
