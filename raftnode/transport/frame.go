package transport

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// Kind says what a frame carries.
type Kind uint8

const (
	KindRaft    Kind = 1 // A raftpb.Message.
	KindForward Kind = 2 // Proposals for the leader. Travels with the appends.
	KindAnswer  Kind = 3 // What became of forwarded proposals, refusals included.
	KindNotice  Kind = 4 // Anything else that package raftnode tells its peers.
)

// Frame is one thing said to a peer. The transport knows the inside of
// KindRaft only; Data of the others belongs to package raftnode.
type Frame struct {
	Kind    Kind
	Message *raftpb.Message // KindRaft only. Read-only once sent or delivered.
	Data    []byte          // Read-only once sent or delivered.
}

// size is an upper bound of the frame's encoding.
func (f Frame) size() int {
	if f.Kind == KindRaft {
		return 16 + messageSize(f.Message)
	}
	return 16 + len(f.Data)
}

// bulk reports whether the frame travels with the appends. All appends do, the
// empty ones too, since Raft is quickest when they arrive in order.
func (f Frame) bulk() bool {
	if f.Kind == KindRaft {
		return f.Message.GetType() == raftpb.MessageType_MsgApp
	}
	return f.Kind == KindForward
}

// appendFrame encodes kind, length and payload. The length is a fixed 4 bytes,
// since it is known only afterwards.
func appendFrame(b []byte, f Frame) []byte {
	b = append(b, byte(f.Kind), 0, 0, 0, 0)
	at := len(b)
	if f.Kind == KindRaft {
		b = appendMessage(b, f.Message)
	} else {
		b = append(b, f.Data...)
	}
	binary.LittleEndian.PutUint32(b[at-4:], uint32(len(b)-at))
	return b
}

// decodeFrames reads the body of a packet of frames that from sent to us.
func decodeFrames(body []byte, from, to ident.MemberID) ([]Frame, error) {
	var frames []Frame
	d := &decoder{rest: body}
	for len(d.rest) > 0 {
		f := Frame{Kind: Kind(d.byte())}
		lengths := d.take(4)
		if d.failed {
			break
		}
		payload := d.take(uint64(binary.LittleEndian.Uint32(lengths)))
		if d.failed {
			break
		}
		switch f.Kind {
		case KindRaft:
			m, err := decodeMessage(payload)
			if err != nil {
				return nil, err
			}
			if m.GetFrom() != uint64(from) || m.GetTo() != uint64(to) {
				return nil, fmt.Errorf("raft message from %x to %x on the stream from %s to %s: %w", m.GetFrom(), m.GetTo(), from, to, ErrDamaged)
			}
			f.Message = m
		case KindForward, KindAnswer, KindNotice:
			f.Data = payload
		default:
			return nil, fmt.Errorf("frame of kind %d: %w", f.Kind, ErrDamaged)
		}
		frames = append(frames, f)
	}
	return frames, d.end("frames")
}
