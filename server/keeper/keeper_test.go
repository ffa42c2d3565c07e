package keeper

import (
	"slices"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/ident"
)

func TestALeaseRunsOutAtItsTimeAndNotBefore(t *testing.T) {
	c := clocktest.New()
	k := New(c, time.Second)
	k.Lead(2)
	k.Granted(1, 10)
	k.Granted(2, 20)
	c.Advance(10*time.Second - 1)
	if ids, _ := k.Due(); len(ids) != 0 {
		t.Fatalf("%v are due too early", ids)
	}
	c.Advance(1)
	ids, term := k.Due()
	if !slices.Equal(ids, []ident.LeaseID{1}) || term != 2 {
		t.Fatalf("due are %v of term %d", ids, term)
	}
	if ids, _ := k.Due(); len(ids) != 0 {
		t.Fatalf("%v are due twice", ids)
	}
	k.Retry([]ident.LeaseID{1, 99})
	if ids, _ := k.Due(); !slices.Equal(ids, []ident.LeaseID{1}) {
		t.Fatalf("after a failed proposal %v are due", ids)
	}
}

func TestRenewalGivesTheFullTimeAgain(t *testing.T) {
	c := clocktest.New()
	k := New(c, time.Second)
	k.Lead(2)
	k.Granted(1, 10)
	c.Advance(9 * time.Second)
	if ttl, gone, leading := k.Renew(1); ttl != 10 || gone != nil || !leading {
		t.Fatalf("renewed for %d s, %v, leading %v", ttl, gone, leading)
	}
	c.Advance(9 * time.Second)
	if ids, _ := k.Due(); len(ids) != 0 {
		t.Fatalf("%v are due in spite of a renewal", ids)
	}
	if left, granted, ok, _ := k.Remaining(1); left != 1 || granted != 10 || !ok {
		t.Fatalf("%d of %d s remain, %v", left, granted, ok)
	}
}

func TestALeaseThatRanOutIsNotRenewedButWaitedFor(t *testing.T) {
	c := clocktest.New()
	k := New(c, time.Second)
	k.Lead(2)
	k.Granted(1, 10)
	c.Advance(10 * time.Second)
	ttl, gone, _ := k.Renew(1)
	if ttl != 0 || gone == nil {
		t.Fatalf("renewed for %d s after its end", ttl)
	}
	k.Due()
	if _, again, _ := k.Renew(1); again == nil {
		t.Fatal("a lease whose expiry is proposed was renewed")
	}
	k.Revoked(1)
	<-gone
	if ttl, gone, leading := k.Renew(1); ttl != 0 || gone != nil || !leading {
		t.Fatalf("a lease that is gone: %d, %v, %v", ttl, gone, leading)
	}
}

func TestANewLeaderGivesEveryLeaseItsFullTimeAndAnElection(t *testing.T) {
	c := clocktest.New()
	k := New(c, time.Second)
	k.Granted(1, 10) // Follows: does not count.
	c.Advance(time.Hour)
	if ids, _ := k.Due(); len(ids) != 0 {
		t.Fatalf("a follower finds %v due", ids)
	}
	if _, _, leading := k.Renew(1); leading {
		t.Fatal("a follower renews")
	}
	k.Lead(3)
	k.Lead(3) // The same leadership does not start anew.
	c.Advance(11*time.Second - 1)
	if ids, _ := k.Due(); len(ids) != 0 {
		t.Fatalf("%v are due too early after an election", ids)
	}
	c.Advance(1)
	if ids, term := k.Due(); len(ids) != 1 || term != 3 {
		t.Fatalf("due are %v of term %d", ids, term)
	}
	k.Retry([]ident.LeaseID{1})
	k.Follow()
	if ids, _ := k.Due(); len(ids) != 0 {
		t.Fatalf("a leader that lost leadership finds %v due", ids)
	}
}
