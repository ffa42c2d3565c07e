package transport

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/ident"
)

func appendOf(from, to uint64, entries ...*raftpb.Entry) *raftpb.Message {
	return &raftpb.Message{
		Type: raftpb.MessageType_MsgApp.Enum(), To: &to, From: &from,
		Term: new(uint64(7)), LogTerm: new(uint64(6)), Index: new(uint64(41)), Commit: new(uint64(40)),
		Entries: entries,
	}
}

func entryOf(term, index uint64, data string) *raftpb.Entry {
	return &raftpb.Entry{Type: raftpb.EntryType_EntryNormal.Enum(), Term: &term, Index: &index, Data: []byte(data)}
}

func heartbeat(from, to uint64) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MessageType_MsgHeartbeat.Enum(), To: &to, From: &from, Term: new(uint64(7)), Commit: new(uint64(40)), Context: []byte("read")}
}

func snapshotOf(from, to uint64) *raftpb.Message {
	return &raftpb.Message{
		Type: raftpb.MessageType_MsgSnap.Enum(), To: &to, From: &from, Term: new(uint64(7)),
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
			Index: new(uint64(40)), Term: new(uint64(6)),
			ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}, Learners: []uint64{3}, AutoLeave: new(false)},
		}},
	}
}

// samples are packets of each type, by name.
func samples() []struct {
	name   string
	packet []byte
} {
	id := Identity{Cluster: 0xc1, Timeline: 2, Member: 0xa, Incarnation: 0x1234}
	frames := []byte{packetFrames}
	frames = appendFrame(frames, Frame{Kind: KindRaft, Message: appendOf(0xa, 0xb, entryOf(6, 42, "x"), entryOf(6, 43, "yz"), entryOf(7, 44, ""))})
	frames = appendFrame(frames, Frame{Kind: KindRaft, Message: heartbeat(0xa, 0xb)})
	frames = appendFrame(frames, Frame{Kind: KindForward, Data: []byte("proposal")})
	roster := &Roster{Cluster: 0xc1, Timeline: 2, Answerer: 0xa, Removed: []ident.MemberID{0xd}, Members: []RosterMember{
		{ID: 0xa, Name: "m1", PeerURLs: []string{"https://m1:2380"}, ClientURLs: []string{"https://m1:2379"}, Incarnation: 0x1234},
		{ID: 0xb, PeerURLs: []string{"https://m2:2380"}, Learner: true},
	}}
	tr := &Transport{cfg: Config{Identity: id}}
	return []struct {
		name   string
		packet []byte
	}{
		{"hello", hello{channel: channelBulk, identity: id, to: 0xb, urls: []string{"https://m1:2380"}}.packet()},
		{"welcome", welcomePacket(id)},
		{"refusal", refusalPacket(fmt.Errorf("member a: %w", ErrRemoved))},
		{"frames", seal(frames, 0)},
		{"ping", seal(appendUint64([]byte{packetPing}, 99), 0)},
		{"offer", seal(appendMessage([]byte{packetOffer}, snapshotOf(0xa, 0xb)), 0)},
		{"chunk", seal(append(appendUint64([]byte{packetChunk}, 5), "bytes"...), 0)},
		{"result", resultPacket(errors.New("disk is full"))},
		{"question", tr.questionPacket(0xb, 3, []byte("how long"))},
		{"roster", roster.packet()},
	}
}

func TestPacketsAreTheBytesOfVersion1(t *testing.T) {
	var text strings.Builder
	for _, s := range samples() {
		fmt.Fprintf(&text, "%s %s\n", s.name, hex.EncodeToString(s.packet))
	}
	golden.File(t, "testdata/v1/packets.txt", text.String())
}

// decodeAny decodes a packet of any type and encodes what it understood.
func decodeAny(packet []byte) (again []byte, err error) {
	kind, body, err := open(packet)
	if err != nil {
		return nil, err
	}
	switch kind {
	case packetHello:
		h, err := decodeHello(packet)
		return h.packet(), err
	case packetWelcome:
		id, err := decodeWelcome(packet)
		return welcomePacket(id), err
	case packetFrames:
		frames, err := decodeFrames(body, 0xa, 0xb)
		b := []byte{packetFrames}
		for _, f := range frames {
			b = appendFrame(b, f)
		}
		return seal(b, 0), err
	case packetOffer:
		m, err := decodeMessage(body)
		if err != nil {
			return nil, err
		}
		return seal(appendMessage([]byte{packetOffer}, m), 0), nil
	case packetRoster:
		r, err := decodeRoster(packet)
		if err != nil {
			return nil, err
		}
		return r.packet(), nil
	}
	return packet, nil
}

func TestEachPacketDecodesToWhatWasEncoded(t *testing.T) {
	for _, s := range samples() {
		again, err := decodeAny(s.packet)
		if err != nil || string(again) != string(s.packet) {
			t.Errorf("%s: %v\n%x became\n%x", s.name, err, s.packet, again)
		}
	}
}

func TestEveryFlippedBitOfAPacketIsNoticed(t *testing.T) {
	for _, s := range samples() {
		for bit := range 8 * len(s.packet) {
			damaged := []byte(string(s.packet))
			damaged[bit/8] ^= 1 << (bit % 8)
			if _, _, err := open(damaged); !errors.Is(err, ErrDamaged) {
				t.Fatalf("%s with bit %d flipped: %v", s.name, bit, err)
			}
		}
	}
}

func TestANewerVersionIsRefusedByName(t *testing.T) {
	for _, s := range samples() {
		kind, body, _ := open(s.packet)
		newer := seal(append([]byte{kind, protocolVersion + 1}, body[1:]...), 0)
		var err error
		switch kind {
		case packetHello:
			_, err = decodeHello(newer)
		case packetWelcome, packetRefusal:
			_, err = decodeWelcome(newer)
		case packetRoster:
			_, err = decodeRoster(newer)
		default:
			continue
		}
		if !errors.Is(err, ErrVersion) {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}

// randomMessage draws each part present, absent or zero.
func randomMessage(r *rand.Rand) *raftpb.Message {
	number := func() *uint64 {
		return []*uint64{nil, new(uint64(0)), new(r.Uint64N(300)), new(r.Uint64())}[r.IntN(4)]
	}
	bytes := func() []byte {
		return [][]byte{nil, {}, []byte("abc"), make([]byte, r.IntN(300))}[r.IntN(4)]
	}
	m := &raftpb.Message{
		Type: raftpb.MessageType_MsgApp.Enum(), To: new(uint64(0xb)), From: new(uint64(0xa)),
		Term: number(), LogTerm: number(), Index: number(), Commit: number(), Vote: number(), RejectHint: number(),
		Reject:  []*bool{nil, new(true), new(false)}[r.IntN(3)],
		Context: bytes(),
	}
	for range r.IntN(4) {
		m.Entries = append(m.Entries, &raftpb.Entry{
			Type: []*raftpb.EntryType{nil, raftpb.EntryType_EntryNormal.Enum(), raftpb.EntryType_EntryConfChangeV2.Enum()}[r.IntN(3)],
			Term: number(), Index: number(), Data: bytes(),
		})
	}
	if r.IntN(3) == 0 {
		m.Snapshot = &raftpb.Snapshot{Data: bytes()}
		if r.IntN(3) > 0 {
			m.Snapshot.Metadata = &raftpb.SnapshotMetadata{Index: number(), Term: number()}
			if r.IntN(3) > 0 {
				m.Snapshot.Metadata.ConfState = &raftpb.ConfState{
					Voters: []uint64{r.Uint64()}, VotersOutgoing: []uint64{1, 2}, AutoLeave: []*bool{nil, new(true), new(false)}[r.IntN(3)],
				}
			}
		}
	}
	return m
}

func TestRandomMessagesSurviveTheWire(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 5000 {
		want := randomMessage(r)
		b := appendMessage(nil, want)
		if len(b) > messageSize(want) {
			t.Fatalf("%d bytes, said at most %d: %v", len(b), messageSize(want), want)
		}
		got, err := decodeMessage(b)
		if err != nil || !proto.Equal(got, want) {
			t.Fatalf("%v\nsent     %v\nreceived %v", err, want, got)
		}
	}
}

func TestMessagesToAMembersOwnStorageAreRefused(t *testing.T) {
	for kind := raftpb.MessageType(0); kind < 40; kind++ {
		m := &raftpb.Message{Type: kind.Enum(), From: new(uint64(0xa)), To: new(uint64(0xb))}
		_, err := decodeMessage(appendMessage(nil, m))
		if travels(kind) != (err == nil) || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func FuzzPacket(f *testing.F) {
	for _, s := range samples() {
		f.Add(s.packet[:len(s.packet)-crcBytes])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		packet := seal([]byte(string(data)), 0)
		again, err := decodeAny(packet)
		if err == nil && string(again) != string(packet) {
			t.Fatalf("%x was understood as %x", packet, again)
		}
		decodeRefusal(packet)
		decodeReply(packet)
		decodeResult(packet)
	})
}
