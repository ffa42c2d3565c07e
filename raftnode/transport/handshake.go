package transport

// The handshake: hello from the dialer, then welcome or refusal.
//
//	hello    version, channel, cluster, timeline, from, to, incarnation, URLs
//	welcome  version, cluster, timeline, member, incarnation
//	refusal  version, code, text
//
// The version comes first, and nothing after it is read when it is not ours.

import (
	"errors"
	"fmt"

	"github.com/holdfast-db/holdfast/internal/ident"
)

type hello struct {
	channel  byte
	identity Identity
	to       ident.MemberID
	urls     []string // Where the dialer listens.
}

func (h hello) packet() []byte {
	b := []byte{packetHello, protocolVersion, h.channel}
	b = appendIdentity(b, h.identity)
	b = appendUint64(b, uint64(h.to))
	b = appendTexts(b, h.urls)
	return seal(b, 0)
}

func decodeHello(packet []byte) (hello, error) {
	var h hello
	d, err := openVersioned(packetHello, packet)
	if err != nil {
		return h, err
	}
	h.channel = d.byte()
	h.identity = d.identity()
	h.to = ident.MemberID(d.uint64())
	h.urls = d.texts(urlsMax, urlBytesMax)
	return h, d.end("handshake")
}

// decodeWelcome reads the answer to a hello: an identity, or the refusal as error.
func decodeWelcome(packet []byte) (Identity, error) {
	kind, _, err := open(packet)
	if err != nil {
		return Identity{}, err
	}
	if kind == packetRefusal {
		return Identity{}, decodeRefusal(packet)
	}
	d, err := openVersioned(packetWelcome, packet)
	if err != nil {
		return Identity{}, err
	}
	id := d.identity()
	return id, d.end("welcome")
}

func welcomePacket(id Identity) []byte {
	return seal(appendIdentity([]byte{packetWelcome, protocolVersion}, id), 0)
}

func openVersioned(kind byte, packet []byte) (*decoder, error) {
	body, err := openAs(kind, packet)
	if err != nil {
		return nil, err
	}
	d := &decoder{rest: body}
	if v := d.byte(); v != protocolVersion {
		return nil, fmt.Errorf("peer speaks version %d, this member %d: %w", v, protocolVersion, ErrVersion)
	}
	return d, nil
}

func appendIdentity(b []byte, id Identity) []byte {
	b = appendUint64(b, uint64(id.Cluster))
	b = appendUint64(b, uint64(id.Timeline))
	b = appendUint64(b, uint64(id.Member))
	return appendUint64(b, id.Incarnation)
}

func (d *decoder) identity() Identity {
	return Identity{
		Cluster:     ident.ClusterID(d.uint64()),
		Timeline:    ident.Timeline(d.uint64()),
		Member:      ident.MemberID(d.uint64()),
		Incarnation: d.uint64(),
	}
}

// refusals maps errors to what stands for them on the wire. Never reuse a code.
var refusals = []struct {
	code byte
	err  error
}{
	{1, ErrCluster},
	{2, ErrTimeline},
	{3, ErrWrongMember},
	{4, ErrIncarnation},
	{5, ErrRemoved},
	{6, ErrVersion},
	{7, ErrStarting},
	{8, ErrBusy},
}

func refusalPacket(reason error) []byte {
	var code byte
	for _, r := range refusals {
		if errors.Is(reason, r.err) {
			code = r.code
		}
	}
	text := reason.Error()
	if len(text) > reasonBytesMax {
		text = text[:reasonBytesMax]
	}
	b := []byte{packetRefusal, protocolVersion, code}
	return seal(appendBytes(b, []byte(text)), 0)
}

// RefusedError is a peer's refusal. errors.Is finds its reason.
type RefusedError struct {
	Reason error  // One of this package's errors, or nil when the peer's code is unknown here.
	Text   string // The peer's own words.
}

func (e *RefusedError) Error() string { return "peer refused: " + e.Text }

func (e *RefusedError) Unwrap() error { return e.Reason }

func decodeRefusal(packet []byte) error {
	d, err := openVersioned(packetRefusal, packet)
	if err != nil {
		return err
	}
	code := d.byte()
	refused := &RefusedError{Text: d.text(reasonBytesMax)}
	for _, r := range refusals {
		if r.code == code {
			refused.Reason = r.err
		}
	}
	if err := d.end("refusal"); err != nil {
		return err
	}
	return refused
}

// checkIdentity compares what both sides of any handshake must share.
func checkIdentity(mine, theirs Identity) error {
	if mine.Cluster != theirs.Cluster {
		return fmt.Errorf("member %s is of cluster %s, member %s of cluster %s: %w",
			theirs.Member, theirs.Cluster, mine.Member, mine.Cluster, ErrCluster)
	}
	if mine.Timeline != theirs.Timeline {
		return fmt.Errorf("member %s is on timeline %d, member %s on timeline %d of cluster %s: %w",
			theirs.Member, theirs.Timeline, mine.Member, mine.Timeline, mine.Cluster, ErrTimeline)
	}
	return nil
}
