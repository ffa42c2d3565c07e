package transport

import (
	"fmt"

	"google.golang.org/grpc/mem"
)

// rawCodec hands packets to gRPC as they are. An *outPacket goes out and its
// buffer returns to the pool; an *inPacket comes in as one slice of its own,
// because decoded entries keep pointing into it.
type rawCodec struct{}

type outPacket struct{ bytes []byte }

type inPacket struct{ bytes []byte }

func (rawCodec) Name() string { return "holdfast-peer" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	p, ok := v.(*outPacket)
	if !ok {
		return nil, fmt.Errorf("peer codec cannot send a %T", v)
	}
	return mem.BufferSlice{mem.NewBuffer(&p.bytes, mem.DefaultBufferPool())}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	p, ok := v.(*inPacket)
	if !ok {
		return fmt.Errorf("peer codec cannot receive into a %T", v)
	}
	p.bytes = data.Materialize()
	return nil
}

// packetBuffer returns an empty buffer from the pool that outPacket gives back.
func packetBuffer(size int) []byte { return (*mem.DefaultBufferPool().Get(size))[:0] }

// pipe is one end of a peer stream, on either side.
type pipe interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

func sendPacket(p pipe, packet []byte) error { return p.SendMsg(&outPacket{packet}) }

func recvPacket(p pipe) ([]byte, error) {
	var in inPacket
	err := p.RecvMsg(&in)
	return in.bytes, err
}
