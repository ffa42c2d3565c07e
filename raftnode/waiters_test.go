package raftnode

import (
	"errors"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
)

func newWaiters() *waiters {
	s := &waiters{}
	s.init(1, 77)
	return s
}

func add(t *testing.T, s *waiters, data []byte) *waiter {
	t.Helper()
	w, err := s.add(data, nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Rule 21: entries with another nonce answer nobody.
func TestAnEntryOfAnotherBootAnswersNobody(t *testing.T) {
	s := newWaiters()
	w := add(t, s, []byte("x"))
	for _, id := range []ident.RequestID{
		{Member: 1, Nonce: 76, Sequence: w.request.ID.Sequence},
		{Member: 2, Nonce: 77, Sequence: w.request.ID.Sequence},
		{Member: 1, Nonce: 77, Sequence: w.request.ID.Sequence + 1},
	} {
		s.resolve(id, "wrong", nil)
		if len(w.done) != 0 {
			t.Errorf("answered by %v", id)
		}
	}
	s.resolve(w.request.ID, "right", nil)
	s.resolve(w.request.ID, "twice", nil)
	<-w.done
	if w.value != "right" || len(w.done) != 0 || s.count.Load() != 0 || s.bytes.Load() != 0 {
		t.Errorf("value %v, %d waiting, %d bytes", w.value, s.count.Load(), s.bytes.Load())
	}
}

func TestWhatRaftGotCannotBeAbandonedAndWhatIsAbandonedRaftNeverGets(t *testing.T) {
	s := newWaiters()
	w := add(t, s, nil)
	if !w.Claim(5) || w.abandon() {
		t.Error("abandoned what Raft has")
	}
	w.Release()
	if !w.abandon() || !w.Gone() || w.Claim(5) {
		t.Error("claimed what was abandoned")
	}
	w.Release()
	if !w.Gone() {
		t.Error("came back")
	}
}

func TestALaterTermEndsOnlyWhatRaftGotBeforeIt(t *testing.T) {
	s := newWaiters()
	claimed := func(term ident.Term) *waiter {
		w := add(t, s, nil)
		if term != 0 {
			w.Claim(term)
		}
		return w
	}
	old, now, waiting, hidden := claimed(4), claimed(5), claimed(0), claimed(3)
	hidden.claim.Store(claimUnknown)
	s.resolveBefore(5, ErrLeaderChanged)
	if len(old.done) != 1 || !errors.Is(old.err, ErrLeaderChanged) {
		t.Error("the old one still waits")
	}
	if len(now.done)+len(waiting.done)+len(hidden.done) != 0 {
		t.Error("ended too much")
	}
	s.obscure() // A snapshot was installed: what became of them is not known.
	s.resolveBefore(9, ErrLeaderChanged)
	if len(now.done) != 0 || now.abandon() {
		t.Error("told something about a request that a snapshot hides")
	}
	if !waiting.abandon() {
		t.Error("what Raft never got can be abandoned")
	}
}

func TestNothingIsProposedWhileTooMuchWaitsForApply(t *testing.T) {
	n := &Node{cfg: Config{RequestBytesMax: 10}}
	n.commit.Store(ApplyLagMax + 2)
	n.apply.applied.Store(1)
	if _, err := n.propose(t.Context(), []byte("x"), nil); !errors.Is(err, ErrBusy) {
		t.Errorf("%d entries behind: %v", ApplyLagMax+1, err)
	}
}

func TestWaitersAreBounded(t *testing.T) {
	s := newWaiters()
	s.bytes.Store(WaitingBytesMax)
	s.count.Store(1)
	if _, err := s.add([]byte("x"), nil, time.Hour); err != ErrBusy {
		t.Error("more bytes than the limit")
	}
	s.bytes.Store(0)
	s.count.Store(WaitingRequestsMax)
	if _, err := s.add(nil, nil, time.Hour); err != ErrBusy {
		t.Error("more requests than the limit")
	}
	if s.count.Load() != WaitingRequestsMax || s.bytes.Load() != 0 {
		t.Error("refused ones are counted")
	}
}

func TestWhoIsRefusedLeavesNoTraceInTheCounts(t *testing.T) {
	for name, full := range map[string]func(*waiters){
		"requests": func(s *waiters) { s.count.Store(WaitingRequestsMax) },
		"bytes":    func(s *waiters) { s.count.Store(1); s.bytes.Store(WaitingBytesMax) },
	} {
		s := newWaiters()
		full(s)
		count, bytes := s.count.Load(), s.bytes.Load()
		if _, err := s.add([]byte("x"), nil, time.Hour); !errors.Is(err, ErrBusy) {
			t.Errorf("too many %s: %v", name, err)
		}
		if s.count.Load() != count || s.bytes.Load() != bytes {
			t.Errorf("too many %s: %d requests of %d bytes are counted, waiting are %d of %d", name, s.count.Load(), s.bytes.Load(), count, bytes)
		}
	}
}
