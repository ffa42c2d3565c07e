package client_test

import (
	"context"
	"io"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/client/clienttest"
	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// A call that was sent with the first token is refused only after another has
// fetched the second: it goes on with that one, and so does everybody else.
func TestARefusedTokenCostsNobodyTheOneThatCameAfterIt(t *testing.T) {
	for _, c := range lateCalls {
		t.Run(c.method, func(t *testing.T) { refuseLate(t, c) })
	}
}

// lateCall is a call that is slow to be refused.
type lateCall struct {
	method string
	slow   func(context.Context, *client.Client) error
}

var lateCalls = []lateCall{
	{"MemberList", func(ctx context.Context, c *client.Client) error { _, err := c.MemberList(ctx, true); return err }},
	{"RangeStream", func(ctx context.Context, c *client.Client) error {
		_, err := c.GetStream(ctx, client.Get{Range: client.One("k")}, func([]*mvccpb.KeyValue) error { return nil })
		if status.Code(err) == codes.Unimplemented { // The members of this test have no such call.
			return nil
		}
		return err
	}},
	{"Watch", func(ctx context.Context, c *client.Client) error {
		w := c.Watch(ctx, client.Watch{Range: client.One("k"), Created: true})
		if _, ok := <-w.Reports(); !ok {
			return w.Err()
		}
		return nil
	}},
	{"LeaseKeepAlive", func(ctx context.Context, c *client.Client) error {
		lease, err := c.Grant(ctx, 9, 0)
		if err != nil {
			return err
		}
		k := c.KeepAlive(ctx, lease.ID)
		if _, ok := <-k.Renewals(); !ok {
			return k.Err()
		}
		return nil
	}},
	{"LeaseKeepAlive", func(ctx context.Context, c *client.Client) error {
		lease, err := c.Grant(ctx, 9, 0)
		if err == nil {
			_, err = c.NewRenewer(1).Renew(ctx, lease.ID)
		}
		return err
	}},
	{"Snapshot", func(ctx context.Context, c *client.Client) error {
		s, err := c.Snapshot(ctx)
		if err == nil {
			_, err = io.Copy(io.Discard, s)
		}
		return err
	}},
}

func refuseLate(t *testing.T, c lateCall) {
	leak.Check(t)
	cluster := clienttest.New(t, 1)
	cl, ctx := newClient(t, cluster, func(cfg *client.Config) { cfg.User, cfg.Password = "u", "p" }), within(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	void, sent := map[string]bool{}, []string{}
	cluster.SetFaults(clienttest.Faults{Before: func(ctx context.Context, _ int, method string) error {
		if method == "Authenticate" {
			return nil
		}
		md, _ := metadata.FromIncomingContext(ctx)
		token := md["token"][0]
		if method == c.method {
			mu.Lock()
			sent = append(sent, token)
			first := len(sent) == 1
			mu.Unlock()
			if first {
				close(arrived)
				<-release
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if void[token] {
			return status.Error(codes.Unauthenticated, "etcdserver: invalid auth token")
		}
		return nil
	}})
	slow := make(chan error, 1)
	go func() { slow <- c.slow(ctx, cl) }()
	<-arrived
	mu.Lock()
	void["token-1"] = true
	mu.Unlock()
	if _, err := cl.Get(ctx, client.Get{Range: client.One("k")}); err != nil {
		t.Fatal(err)
	}
	close(release)
	if err := <-slow; err != nil {
		t.Error(err)
	}
	if want := []string{"token-1", "token-2"}; !slices.Equal(sent, want) || cluster.Calls("Authenticate") != 2 {
		t.Errorf("sent with %q, want %q; logged in %d times", sent, want, cluster.Calls("Authenticate"))
	}
}
