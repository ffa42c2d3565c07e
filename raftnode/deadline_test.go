package raftnode

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestAWaitEndsAtItsDeadlineAndNotBefore(t *testing.T) {
	s := newWaiters()
	early, err := s.add([]byte("a"), nil, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	late, err := s.add([]byte("b"), nil, 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	s.expire(2*time.Second - 1)
	if n := s.count.Load(); n != 2 {
		t.Fatalf("%d wait before the first deadline", n)
	}
	s.expire(2 * time.Second)
	if <-early.done; !errors.Is(early.givenUp, context.DeadlineExceeded) {
		t.Errorf("given up with %v", early.givenUp)
	}
	s.resolve(early.request.ID, "too late", nil)
	s.resolve(late.request.ID, "in time", nil)
	if <-late.done; late.value != "in time" || late.givenUp != nil || early.value != nil {
		t.Errorf("answers %v and %v, given up with %v", early.value, late.value, late.givenUp)
	}
	if n, bytes := s.count.Load(), s.bytes.Load(); n != 0 || bytes != 0 {
		t.Errorf("%d waiters of %d bytes are left", n, bytes)
	}
}

func TestNobodyWaitsOnceTheEndHasBegun(t *testing.T) {
	s := newWaiters()
	w, err := s.add([]byte("a"), nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	s.close()
	if <-w.done; w.givenUp != ErrStopped {
		t.Errorf("given up with %v", w.givenUp)
	}
	if _, err := s.add([]byte("b"), nil, time.Hour); err != ErrStopped {
		t.Errorf("added after the end: %v", err)
	}
	if n, bytes := s.count.Load(), s.bytes.Load(); n != 0 || bytes != 0 {
		t.Errorf("%d waiters of %d bytes are left", n, bytes)
	}
}
