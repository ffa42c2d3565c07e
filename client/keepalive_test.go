package client_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/client/clienttest"
	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/leak"
)

// grant makes a lease of 9 seconds.
func grant(t *testing.T, c *client.Client) int64 {
	t.Helper()
	lease, err := c.Grant(within(t), 9, 0)
	if err != nil {
		t.Fatal(err)
	}
	return lease.ID
}

// lost waits for the end of renewals, and returns why.
func lost(k *client.KeepAlive) error {
	for range k.Renewals() {
	}
	return k.Err()
}

func TestALeaseIsRenewedAtEachThirdOfItsTTL(t *testing.T) {
	leak.Check(t)
	cluster, clock := clienttest.New(t, 1), clocktest.New()
	c := newClient(t, cluster, func(cfg *client.Config) { cfg.Clock = clock })
	k := c.KeepAlive(within(t), grant(t, c))
	for range 5 {
		if m := <-k.Renewals(); m.GetTTL() != 9 {
			t.Fatalf("renewal is %v, %v", m, k.Err())
		}
		clock.AwaitWaiters(1)
		clock.Advance(3*time.Second - 1)
		select {
		case <-k.Renewals():
			t.Fatal("renewed too early")
		default:
		}
		clock.Advance(1)
	}
	<-k.Renewals()
	k.Stop()
	if err := lost(k); err != nil {
		t.Errorf("stopped: %v", err)
	}
}

func TestRenewalsMoveToAnotherMemberWhenTheirsFallsSilent(t *testing.T) {
	leak.Check(t)
	cluster, clock := clienttest.New(t, 2), clocktest.New()
	c := newClient(t, cluster, func(cfg *client.Config) { cfg.Clock = clock })
	ctx, id := within(t), grant(t, c)
	for seen := map[uint64]bool{}; len(seen) < 2; { // From then on members take turns.
		s, err := c.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		seen[s.Header.MemberId] = true
	}
	var at atomic.Int64
	cluster.SetFaults(clienttest.Faults{Before: func(_ context.Context, member int, _ string) error {
		at.Store(int64(member))
		return nil
	}})
	k := c.KeepAlive(ctx, id)
	<-k.Renewals()
	silent := int(at.Load())
	cluster.Silence(silent, true)
	defer cluster.Silence(silent, false)
	for _, wait := range []time.Duration{3 * time.Second, 3 * time.Second, 100 * time.Millisecond} {
		clock.AwaitWaiters(1) // The next renewal is due, is given up, is tried again.
		clock.Advance(wait)
	}
	if m := <-k.Renewals(); m.GetTTL() != 9 {
		t.Errorf("renewal is %v", m)
	}
}

func TestALeaseThatCannotBeRenewedIsLostWhenItsTimeIsUp(t *testing.T) {
	leak.Check(t)
	cluster, clock := clienttest.New(t, 2), clocktest.New()
	c := newClient(t, cluster, func(cfg *client.Config) { cfg.Clock = clock })
	k := c.KeepAlive(within(t), grant(t, c))
	<-k.Renewals()
	cluster.Stop(0)
	cluster.Stop(1)
	ended := make(chan error, 1)
	go func() { ended <- lost(k) }()
	for {
		select {
		case err := <-ended:
			if !errors.Is(err, client.ErrLeaseNotRenewed) {
				t.Errorf("lost: %v", err)
			}
			if now := clock.Mono(); now < 9*time.Second || now > 10*time.Second {
				t.Errorf("lost after %v", now)
			}
			return
		default:
		}
		if clock.Waiters() > 0 {
			clock.Advance(100 * time.Millisecond)
		}
	}
}

func TestALeaseThatIsGoneIsReportedSo(t *testing.T) {
	leak.Check(t)
	cluster, clock := clienttest.New(t, 1), clocktest.New()
	c, ctx := newClient(t, cluster, func(cfg *client.Config) { cfg.Clock = clock }), within(t)
	id := grant(t, c)
	if _, err := c.Put(ctx, client.Put{Key: "k", Lease: id}); err != nil {
		t.Fatal(err)
	}
	if m, err := c.KeepAliveOnce(ctx, id); err != nil || m.TTL != 9 {
		t.Errorf("renewed once: %v, %v", m, err)
	}
	k := c.KeepAlive(ctx, id)
	<-k.Renewals()
	clock.AwaitWaiters(1)
	cluster.Expire(id)
	clock.Advance(3 * time.Second)
	if err := lost(k); !errors.Is(err, client.ErrLeaseNotFound) {
		t.Errorf("lost: %v", err)
	}
	if got, err := c.Get(ctx, client.Get{Range: client.One("k")}); err != nil || got.Count != 0 {
		t.Errorf("its key: %v, %v", got, err)
	}
	if _, err := c.KeepAliveOnce(ctx, id); !errors.Is(err, client.ErrLeaseNotFound) {
		t.Errorf("renewed once more: %v", err)
	}
	if _, err := c.Revoke(ctx, id); !errors.Is(err, client.ErrLeaseNotFound) {
		t.Errorf("revoked: %v", err)
	}
	if _, err := c.Put(ctx, client.Put{Key: "k", Lease: id}); !errors.Is(err, client.ErrLeaseNotFound) {
		t.Errorf("attached to: %v", err)
	}
}
