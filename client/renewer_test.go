package client_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/client/clienttest"
	"github.com/holdfast-db/holdfast/internal/leak"
)

func TestManyLeasesAreRenewedOverFewStreams(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 1)
	c := newClient(t, cluster)
	r := c.NewRenewer(2)
	ctx := within(t)
	var wg sync.WaitGroup
	for range 100 {
		id := grant(t, c)
		wg.Go(func() {
			for range 3 {
				if m, err := r.Renew(ctx, id); err != nil || m.ID != id || m.TTL != 9 {
					t.Errorf("renewal of %d is %v, %v", id, m, err)
				}
			}
		})
	}
	wg.Wait()
	if n := cluster.Calls("LeaseKeepAlive"); n < 1 || n > 2 {
		t.Errorf("%d streams", n)
	}
	if _, err := r.Renew(ctx, 12345); !errors.Is(err, client.ErrLeaseNotFound) {
		t.Errorf("a lease that there is not: %v", err)
	}
	c.Close()
	if _, err := r.Renew(ctx, 1); !errors.Is(err, client.ErrClosed) {
		t.Errorf("after the client's end: %v", err)
	}
}

func TestRenewalsOfManyGoOnOverAnotherStreamWhenTheirsBreaks(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 2)
	c := newClient(t, cluster)
	r := c.NewRenewer(1)
	ctx, id := within(t), grant(t, c)
	for i := range 4 {
		if m, err := r.Renew(ctx, id); err != nil || m.TTL != 9 {
			t.Fatalf("renewal %d is %v, %v", i, m, err)
		}
		cluster.Stop(i % 2)
		cluster.Start(i % 2)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := r.Renew(gone, id); !errors.Is(err, context.Canceled) {
		t.Errorf("for who has gone: %v", err)
	}
}
