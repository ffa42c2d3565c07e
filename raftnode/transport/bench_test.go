package transport

import (
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
)

// counter is a node that only counts.
type counter struct {
	frames atomic.Int64
	woken  chan struct{}
}

func (c *counter) Deliver(_ ident.MemberID, frames []Frame) {
	c.frames.Add(int64(len(frames)))
	select {
	case c.woken <- struct{}{}:
	default:
	}
}
func (c *counter) Unreachable(ident.MemberID) {}
func (c *counter) Have() []byte               { return nil }
func (c *counter) ReceiveSnapshot(_ ident.MemberID, _ *raftpb.Message, r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// benchPair is two members over TCP and mutual TLS.
func benchPair(b *testing.B) (*Transport, *counter) {
	ca := newAuthority(b)
	listeners := make([]net.Listener, 2)
	var peers []Peer
	for i := range listeners {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		listeners[i] = l
		peers = append(peers, Peer{ID: ident.MemberID(i + 1), URLs: []string{"https://" + l.Addr().String()}})
	}
	transports, counters := make([]*Transport, 2), make([]*counter, 2)
	for i, l := range listeners {
		conf := ca.config(b, "localhost")
		t, err := New(Config{
			Identity: idOf(ident.MemberID(i + 1)), TLS: always(conf), Clock: clock.Real(), Logger: hclog.NewNullLogger(),
			Roster: func() *Roster { return &Roster{} },
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { t.Close() })
		counters[i] = &counter{woken: make(chan struct{}, 1)}
		transports[i] = t
		t.Listen(l, conf)
		t.Start(counters[i])
		t.SetPeers(peers)
	}
	n := &node{t: b, id: 1, transport: transports[0]}
	n.awaitLink(2)
	return transports[0], counters[1]
}

// What does one append cost when many are under way?
func BenchmarkAppendsInFlight(b *testing.B) {
	t, c := benchPair(b)
	m := raftFrame(appendOf(1, 2, entryOf(1, 2, string(make([]byte, 300)))))
	b.SetBytes(300)
	b.ReportAllocs()
	sent := int64(0)
	for b.Loop() {
		for sent-c.frames.Load() > 256 {
			<-c.woken
		}
		t.Send(2, m)
		sent++
	}
	for c.frames.Load() < sent {
		<-c.woken
	}
}

// How long does one append take when it is alone?
func BenchmarkAppendAlone(b *testing.B) {
	t, c := benchPair(b)
	m := raftFrame(appendOf(1, 2, entryOf(1, 2, string(make([]byte, 300)))))
	b.ReportAllocs()
	for b.Loop() {
		before := c.frames.Load()
		t.Send(2, m)
		for c.frames.Load() == before {
			<-c.woken
		}
	}
}

// How fast does a snapshot go?
func BenchmarkSnapshot(b *testing.B) {
	t, _ := benchPair(b)
	src := source(make([]byte, 64<<20))
	b.SetBytes(int64(len(src.data)))
	for b.Loop() {
		done := make(chan error, 1)
		t.SendSnapshot(2, snapshotOf(1, 2), src, func(err error) { done <- err })
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

// What does the codec alone cost?
func BenchmarkMessageCodec(b *testing.B) {
	m := appendOf(1, 2)
	for i := range uint64(10) {
		m.Entries = append(m.Entries, entryOf(1, i+1, string(make([]byte, 300))))
	}
	var buffer []byte
	b.ReportAllocs()
	for b.Loop() {
		buffer = appendMessage(buffer[:0], m)
		if _, err := decodeMessage(buffer); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(buffer)))
}
