package transport

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
)

// sourceOf writes bytes and remembers what the receiver had.
type sourceOf struct {
	data  []byte
	have  []byte
	err   error
	begun chan struct{}
}

func source(data []byte) *sourceOf { return &sourceOf{data: data, begun: make(chan struct{}, 1)} }

func (s *sourceOf) WriteTo(w io.Writer, have []byte) error {
	s.have = have
	select {
	case s.begun <- struct{}{}:
	default:
	}
	for data := s.data; len(data) > 0; {
		n, err := w.Write(data[:min(len(data), 100_000)])
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return s.err
}

func randomBytes(n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(data)
	return data
}

func TestASnapshotArrivesWholeAndTellsWhatTheReceiverHas(t *testing.T) {
	_, a, b := pair(t)
	for _, size := range []int{0, 1, chunkBytes - 1, chunkBytes, 3<<20 + 17} {
		src := source(randomBytes(size))
		b.have = []byte("index 7")
		var got []byte
		b.take = func(r io.Reader) (err error) {
			got, err = io.ReadAll(r)
			return err
		}
		done := make(chan error, 1)
		a.transport.SendSnapshot(2, snapshotOf(1, 2), src, func(err error) { done <- err })
		if err := receive(t, "done", done); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, src.data) || string(src.have) != "index 7" {
			t.Errorf("%d bytes of %d arrived, have %q", len(got), size, src.have)
		}
	}
	if stats := a.transport.Stats()[0]; stats.SnapshotsSent != 5 || stats.SnapshotsFailed != 0 {
		t.Errorf("counts %+v", stats)
	}
}

func TestACutSnapshotIsDroppedAndCanBeginAgain(t *testing.T) {
	net, a, b := pair(t)
	src := source(randomBytes(40 << 20))
	taken := make(chan error, 1)
	b.take = func(r io.Reader) error {
		_, err := io.CopyN(io.Discard, r, 1<<20)
		if err == nil {
			net.setCut(address(2), true)
			_, err = io.Copy(io.Discard, r)
		}
		taken <- err
		return err
	}
	done := make(chan error, 1)
	a.transport.SendSnapshot(2, snapshotOf(1, 2), src, func(err error) { done <- err })
	if err := receive(t, "done", done); err == nil {
		t.Error("the sender takes a cut snapshot for sent")
	}
	if err := receive(t, "end at the receiver", taken); err == nil {
		t.Error("the receiver takes a cut snapshot for whole")
	}
	net.setCut(address(2), false)
	a.awaitLink(2)
	b.take = func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
	a.transport.SendSnapshot(2, snapshotOf(1, 2), src, func(err error) { done <- err })
	if err := receive(t, "done", done); err != nil {
		t.Error(err)
	}
}

func TestFailuresOfASnapshotReachTheSender(t *testing.T) {
	_, a, b := pair(t)
	all := func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
	cases := []struct {
		name  string
		size  int
		err   error
		take  func(io.Reader) error
		words string
	}{
		{"source fails", 1 << 20, errors.New("base is damaged"), all, "base is damaged"},
		{"receiver fails at the end", 1 << 20, nil, func(r io.Reader) error { return errors.Join(all(r), errors.New("digest differs")) }, "digest differs"},
		{"receiver fails at once", 40 << 20, nil, func(io.Reader) error { return errors.New("disk is full") }, "disk is full"},
		{"receiver stops early", 1 << 20, nil, func(io.Reader) error { return nil }, "before its end"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b.take = c.take
			src := source(randomBytes(c.size))
			src.err = c.err
			done := make(chan error, 1)
			a.transport.SendSnapshot(2, snapshotOf(1, 2), src, func(err error) { done <- err })
			if err := receive(t, "done", done); err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("done with %v", err)
			}
		})
	}
}

func TestOneSnapshotAtATimeToAMember(t *testing.T) {
	_, a, b := pair(t)
	release := make(chan struct{})
	b.take = func(r io.Reader) error {
		<-release
		_, err := io.Copy(io.Discard, r)
		return err
	}
	src := source(randomBytes(1000))
	first, second, third := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	a.transport.SendSnapshot(2, snapshotOf(1, 2), src, func(err error) { first <- err })
	receive(t, "begin", src.begun)
	a.transport.SendSnapshot(2, snapshotOf(1, 2), source(nil), func(err error) { second <- err })
	if err := receive(t, "second done", second); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	a.transport.SendSnapshot(9, snapshotOf(1, 9), source(nil), func(err error) { third <- err })
	if err := receive(t, "third done", third); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
	close(release)
	if err := receive(t, "first done", first); err != nil {
		t.Error(err)
	}
}

func TestCloseEndsASnapshotAndCallsDone(t *testing.T) {
	_, a, b := pair(t)
	src := source(randomBytes(40 << 20))
	b.take = func(r io.Reader) error {
		_, err := io.Copy(io.Discard, io.LimitReader(r, 10))
		<-b.transport.group.Context().Done()
		return err
	}
	done := make(chan error, 1)
	a.transport.SendSnapshot(2, snapshotOf(1, 2), src, func(err error) { done <- err })
	receive(t, "begin", src.begun)
	a.transport.Close()
	if err := receive(t, "done", done); err == nil {
		t.Error("no error")
	}
}

// Whoever takes the place of a member that was too slow needs a state too, and
// gets none while the old one is being sent.
func TestASnapshotEndsWhenItsMemberIsRemoved(t *testing.T) {
	_, a, b := pair(t)
	release := make(chan struct{})
	b.take = func(io.Reader) error { <-release; return nil }
	defer close(release)
	src := source(randomBytes(40 << 20))
	done := make(chan error, 1)
	a.transport.SendSnapshot(2, snapshotOf(1, 2), src, func(err error) { done <- err })
	receive(t, "begin", src.begun)
	a.transport.SetPeers(peersOf("http", 1))
	if err := receive(t, "done", done); err == nil {
		t.Error("a snapshot was sent to a member that was removed and took nothing")
	}
}

// slow is a stream on which time passes with each packet.
type slow struct {
	pipe
	pass func()
}

func (s slow) SendMsg(m any) error { s.pass(); return s.pipe.SendMsg(m) }
func (s slow) RecvMsg(m any) error { s.pass(); return s.pipe.RecvMsg(m) }

// A receiver may copy gigabytes of its own before it reads on, and that is no
// silence of the sender.
func TestAReceiverThatWorksIsNotStalled(t *testing.T) {
	clock := clocktest.New()
	stalls := 0
	stall := clock.AfterFunc(snapshotStallMax, func() { stalls++ })
	var wait time.Duration
	r := &chunkReader{peer: &peer{}, stall: stall, stream: slow{&packets{
		seal(append(appendUint64([]byte{packetChunk}, 0), 'a'), 0),
		seal(append(appendUint64([]byte{packetChunk}, 1), 'b'), 0),
		seal(append(appendUint64([]byte{packetChunk}, 2), 'c'), 0),
	}, func() { clock.Advance(wait) }}}
	one := make([]byte, 1)
	for _, step := range []struct {
		work, wait time.Duration
		stalls     int
	}{{0, 0, 0}, {time.Hour, snapshotStallMax - 1, 0}, {time.Hour, snapshotStallMax, 1}} {
		clock.Advance(step.work)
		wait = step.wait
		if _, err := r.Read(one); err != nil || stalls != step.stalls {
			t.Errorf("%d stalls after %s of work and %s without a chunk, %v", stalls, step.work, step.wait, err)
		}
	}
}

func TestASenderIsPatientWithAReceiverThatWorks(t *testing.T) {
	clock := clocktest.New()
	stalls := 0
	stall := clock.AfterFunc(snapshotStallMax, func() { stalls++ })
	wait := snapshotTakeMax - 1
	w := &chunkWriter{ctx: t.Context(), peer: &peer{}, stream: slow{discard{}, func() { clock.Advance(wait) }}, clock: clock, stall: stall}
	for range 2 {
		if _, err := w.Write(make([]byte, chunkBytes)); err != nil || stalls != 0 {
			t.Fatalf("%d stalls, %v", stalls, err)
		}
	}
	wait = snapshotTakeMax
	if _, err := w.Write(make([]byte, chunkBytes)); err != nil || stalls != 1 {
		t.Errorf("%d stalls after %s without room, %v", stalls, wait, err)
	}
}

func TestTheRateOfASnapshotIsHeld(t *testing.T) {
	clock := clocktest.New()
	stall := clock.AfterFunc(time.Hour, func() { t.Error("stalled") })
	w := &chunkWriter{ctx: t.Context(), peer: &peer{}, stream: discard{}, clock: clock, stall: stall, rate: chunkBytes}
	done := make(chan error, 1)
	writer := func() {
		_, err := w.Write(make([]byte, 4*chunkBytes))
		done <- err
	}
	started := clock.Mono()
	go writer()
	for range 3 { // The first chunk is due at once, the others a second apart.
		clock.AwaitWaiters(2)
		clock.Advance(time.Second)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if took := clock.Mono() - started; took != 3*time.Second || w.sent != 4*chunkBytes {
		t.Errorf("%d bytes in %s", w.sent, took)
	}
}

// discard is the stream to nowhere.
type discard struct{ grpc.ClientStream }

func (discard) SendMsg(any) error { return nil }
