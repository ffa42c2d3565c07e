package transport

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
)

// packets is a stream of what lies ready.
type packets [][]byte

func (p *packets) SendMsg(any) error { return nil }

func (p *packets) RecvMsg(m any) error {
	if len(*p) == 0 {
		return io.EOF
	}
	m.(*inPacket).bytes, *p = (*p)[0], (*p)[1:]
	return nil
}

// FuzzChunks receives a snapshot in any packets: two bytes length, then a
// packet, which gets a good checksum of its own if asked for. What is read to
// its end is what the chunks held, and the end agreed with it.
func FuzzChunks(f *testing.F) {
	join := func(list ...[]byte) (b []byte) {
		for _, p := range list {
			b = append(binary.LittleEndian.AppendUint16(b, uint16(len(p))), p...)
		}
		return b
	}
	chunk := func(at uint64, data string) []byte { return append(appendUint64([]byte{packetChunk}, at), data...) }
	end := func(data string) []byte {
		b := appendUint64([]byte{packetEnd}, uint64(len(data)))
		return binary.LittleEndian.AppendUint32(b, crc32.Checksum([]byte(data), castagnoli))
	}
	f.Add(join(chunk(0, "abc"), chunk(3, "de"), end("abcde")), true)
	f.Add(join(chunk(0, "abc"), chunk(2, "cd"), end("abcd")), true)
	f.Add(join(end("")), true)
	f.Add(join(chunk(0, "a"), end("b")), true)
	f.Add(join(seal(end(""), 0)), false)
	f.Fuzz(func(t *testing.T, in []byte, good bool) {
		var list packets
		var want []byte
		for len(in) >= 2 {
			n := min(int(binary.LittleEndian.Uint16(in)), len(in)-2)
			p := bytes.Clone(in[2 : 2+n])
			if len(p) > 9 && p[0] == packetChunk {
				want = append(want, p[9:]...)
			}
			if good {
				p = seal(p, 0)
			}
			list = append(list, p)
			in = in[2+n:]
		}
		stall := clocktest.New().AfterFunc(time.Hour, func() {})
		r := &chunkReader{peer: &peer{}, stream: &list, stall: stall}
		got, err := io.ReadAll(r)
		if err == nil && good && !bytes.HasPrefix(want, got) {
			t.Errorf("read %x out of %x", got, want)
		}
		if err == nil && r.crc != crc32.Checksum(got, castagnoli) {
			t.Errorf("read %x with a checksum of something else", got)
		}
		if err == nil != r.ended {
			t.Errorf("ended %v, %v", r.ended, err)
		}
	})
}
