package leader_test

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/leader"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func TestTheFenceOfOneWhoNoLongerLeadsStopsItsWrites(t *testing.T) {
	cluster := kubetest.Start(t)
	c := cluster.Client(auth.Admin("ann"))
	ctx, cancel := context.WithCancel(t.Context())
	fences := make(chan *kubepb.Fence)
	ended := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- leader.Run(ctx, leader.Config{Client: cluster.Store(), Name: "scheduler", TTL: 6, Logger: hclog.NewNullLogger()},
			func(ctx context.Context, f *kubepb.Fence) error {
				select {
				case fences <- f:
				case <-ctx.Done(): // It leads again before it is told to end.
					return ctx.Err()
				}
				<-ctx.Done()
				close(ended)
				return ctx.Err()
			})
	}()
	fence := <-fences
	pod := func(name string) error {
		p := &corev1.Pod{}
		p.Namespace, p.Name = "default", name
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "builtin/demo"}}
		_, err := objects.Create(t.Context(), c, p, objects.Option{Fence: fence})
		return err
	}
	if err := pod("a"); err != nil {
		t.Fatalf("while it leads: %v", err)
	}
	// Its lease is taken away: its leadership ends, and so do its writes.
	r, err := cluster.Store().Get(t.Context(), client.Get{Range: client.One(fence.Key)})
	if err != nil || len(r.Kvs) != 1 {
		t.Fatalf("its claim: %v, %v", r, err)
	}
	if _, err := cluster.Store().Revoke(t.Context(), r.Kvs[0].Lease); err != nil {
		t.Fatal(err)
	}
	if err := pod("b"); !errors.Is(err, objects.ErrGuard) {
		t.Errorf("after its lease has gone: %v", err)
	}
	<-ended
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
