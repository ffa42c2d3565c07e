package state_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// inFlight is how many binds a scheduler has under way.
const inFlight = 64

func together(n int, f func(i int) error) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	failed := make(chan error, inFlight)
	for range inFlight {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// How many pods a second can be bound, to 1,000 nodes?
func BenchmarkBind(b *testing.B) {
	cluster := kubetest.Start(b)
	c := cluster.Client(auth.Admin("ann"))
	const nodes = 1000
	if err := together(nodes, func(i int) error {
		_, err := objects.Create(b.Context(), c, nodeOf(fmt.Sprintf("n%d", i), "1000"))
		return err
	}); err != nil {
		b.Fatal(err)
	}
	create := func(i int) error {
		_, err := objects.Create(b.Context(), c, podOf(fmt.Sprintf("p%d", i), "1m"))
		return err
	}
	if err := together(b.N, create); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	if err := together(b.N, func(i int) error {
		_, err := c.Bind(b.Context(), &kubepb.BindRequest{Pod: &kubepb.Ref{Namespace: "default", Name: fmt.Sprintf("p%d", i)}, Node: fmt.Sprintf("n%d", i%nodes)})
		return err
	}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pods/s")
}

// How long does a list of 10,000 pods take?
func BenchmarkListOfTenThousand(b *testing.B) {
	cluster := kubetest.Start(b)
	c := cluster.Client(auth.Admin("ann"))
	if err := together(10000, func(i int) error {
		_, err := objects.Create(b.Context(), c, podOf(fmt.Sprintf("p%d", i), "1m"))
		return err
	}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		pods, _, err := objects.List[*corev1.Pod](b.Context(), c, objects.ListOptions{})
		if err != nil || len(pods) != 10000 {
			b.Fatal(len(pods), err)
		}
	}
}

// How long does a heartbeat of one of 1,000 nodes take?
func BenchmarkHeartbeat(b *testing.B) {
	cluster := kubetest.Start(b)
	c := cluster.Client(auth.Admin("ann"))
	const nodes = 1000
	streams := make([]kubepb.ClusterState_HeartbeatClient, nodes)
	beat := func(i int) error {
		name := fmt.Sprintf("n%d", i%nodes)
		err := streams[i%nodes].Send(&kubepb.HeartbeatRequest{Node: name, Instance: "i"})
		if err != nil {
			return err
		}
		_, err = streams[i%nodes].Recv()
		return err
	}
	if err := together(nodes, func(i int) error {
		name := fmt.Sprintf("n%d", i)
		if _, err := objects.Create(b.Context(), c, nodeOf(name, "1")); err != nil {
			return err
		}
		var err error
		if streams[i], err = cluster.Client(auth.Node(name)).RPC().Heartbeat(b.Context()); err != nil {
			return err
		}
		return beat(i)
	}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += nodes { // A stream takes one at a time.
		if err := together(min(nodes, b.N-done), beat); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "beats/s")
}
