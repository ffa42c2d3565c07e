package controller_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/controller"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// slow is a connection that loses the answer to the first pod that is made, and tells what
// becomes of pods only once it is open.
type slow struct {
	grpc.ClientConnInterface
	open chan struct{}
	made atomic.Int32
}

func (s *slow) Invoke(ctx context.Context, method string, args, reply any, o ...grpc.CallOption) error {
	err := s.ClientConnInterface.Invoke(ctx, method, args, reply, o...)
	r, ok := args.(*kubepb.CreateRequest)
	if ok && err == nil && r.Object.Kind == api.Pod.Name && s.made.Add(1) == 1 {
		return status.Error(codes.Unavailable, "the request timed out")
	}
	return err
}

func (s *slow) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, o ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := s.ClientConnInterface.NewStream(ctx, desc, method, o...)
	return &slowStream{watchStream: watchStream{ClientStream: stream}, of: s}, err
}

// watchStream is a stream that may be a watch of pods.
type watchStream struct {
	grpc.ClientStream
	pods bool
}

func (s *watchStream) SendMsg(m any) error {
	if r, ok := m.(*kubepb.WatchRequest); ok {
		s.pods = r.Kind == api.Pod.Name
	}
	return s.ClientStream.SendMsg(m)
}

// receive is RecvMsg, and tells what has come of pods. Nil: nothing.
func (s *watchStream) receive(m any) (*kubepb.WatchResponse, error) {
	err := s.ClientStream.RecvMsg(m)
	r, ok := m.(*kubepb.WatchResponse)
	if err != nil || !ok || !s.pods {
		return nil, err
	}
	return r, nil
}

func (s *watchStream) until(open <-chan struct{}) error {
	select {
	case <-open:
		return nil
	case <-s.Context().Done():
		return s.Context().Err()
	}
}

type slowStream struct {
	watchStream
	of     *slow
	listed bool
}

func (s *slowStream) RecvMsg(m any) error {
	r, err := s.receive(m)
	if r == nil {
		return err
	}
	if s.listed {
		if err := s.until(s.of.open); err != nil {
			return err
		}
	}
	s.listed = s.listed || slices.ContainsFunc(r.Events, func(e *kubepb.WatchEvent) bool { return e.Type == kubepb.WatchEvent_SYNCED })
	return nil
}

// TestAPodOfWhichNobodyKnowsWhetherItWasMadeIsNotMadeTwice, though the set has changed
// since, and so have the names that it would give.
func TestAPodOfWhichNobodyKnowsWhetherItWasMadeIsNotMadeTwice(t *testing.T) {
	w := newWorld(t, 1)
	s := &slow{ClientConnInterface: w.cluster.Service.Dial(auth.Controllers()), open: make(chan struct{})}
	m, err := controller.New(controller.Config{Client: objects.New(s, "controllers"), Store: w.cluster.Store(), Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	w.run(m, w.lead())
	like := web(1, "one").Spec
	make1(w, &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec:       appsv1.ReplicaSetSpec{Replicas: like.Replicas, Selector: like.Selector, Template: like.Template},
	})
	get := func() *appsv1.ReplicaSet {
		set, err := objects.Get[*appsv1.ReplicaSet](t.Context(), w.client, "default", "web")
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	w.eventually("the set tells of the failure", func() (bool, string) {
		set := get()
		return len(set.Status.Conditions) > 0, set.Status.String()
	})
	w.eventually("somebody changes the set", func() (bool, string) {
		set := get()
		set.Labels = map[string]string{"a": "b"}
		_, err := objects.Update(t.Context(), w.client, set)
		return err == nil, ""
	})
	for range 100 { // As long as the controllers need to do something wrong.
		if n := len(w.pods("default")); n != 1 {
			t.Fatalf("%d pods of a set of one", n)
		}
	}
	close(s.open)
	w.eventually("it is as it should be", func() (bool, string) {
		set := get()
		return set.Status.AvailableReplicas == 1 && len(set.Status.Conditions) == 0, set.Status.String()
	})
	if n := s.made.Load(); n != 1 {
		t.Errorf("%d pods were made", n)
	}
	w.replay()
}

// forgetful is a connection that loses the answer to the first pod that is deleted. Before
// that it makes another the cheapest; what comes after is seen once it is open.
type forgetful struct {
	slow
	world   *world
	closed  atomic.Bool
	once    sync.Once
	seen    atomic.Int64 // Revision of the last change of a pod that was passed on.
	deleted struct {
		sync.Mutex
		names []string
	}
}

func (f *forgetful) Invoke(ctx context.Context, method string, args, reply any, o ...grpc.CallOption) error {
	r, ok := args.(*kubepb.DeleteRequest)
	if !ok || r.Object.Kind != api.Pod.Name {
		return f.ClientConnInterface.Invoke(ctx, method, args, reply, o...)
	}
	f.deleted.Lock()
	f.deleted.names = append(f.deleted.names, r.Object.Name)
	first := len(f.deleted.names) == 1
	f.deleted.Unlock()
	if first {
		f.cheapen(r.Object.Name)
	}
	err := f.ClientConnInterface.Invoke(ctx, method, args, reply, o...)
	if first && err == nil {
		return status.Error(codes.Unavailable, "the request timed out")
	}
	f.once.Do(func() { close(f.open) })
	return err
}

// cheapen has another pod than this one be deleted first, by all that is seen.
func (f *forgetful) cheapen(than string) {
	for _, p := range f.world.pods("default") {
		if p.Name == than {
			continue
		}
		p.Annotations = map[string]string{corev1.PodDeletionCost: "-100"}
		now, err := objects.Update(f.world.Context(), f.world.client, p)
		if err != nil {
			f.world.Error(err)
			return
		}
		f.world.eventually("that is seen", func() (bool, string) {
			at, err := api.ParseVersion(now.ResourceVersion)
			return err == nil && f.seen.Load() >= at, now.ResourceVersion
		})
		f.closed.Store(true)
		return
	}
}

func (f *forgetful) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, o ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := f.ClientConnInterface.NewStream(ctx, desc, method, o...)
	return &forgetfulStream{watchStream{ClientStream: stream}, f}, err
}

type forgetfulStream struct {
	watchStream
	of *forgetful
}

func (s *forgetfulStream) RecvMsg(m any) error {
	r, err := s.receive(m)
	if r == nil {
		return err
	}
	if s.of.closed.Load() {
		if err := s.until(s.of.open); err != nil {
			return err
		}
	}
	for _, e := range r.Events {
		s.of.seen.Store(max(s.of.seen.Load(), e.Object.GetResourceVersion()))
	}
	return nil
}

// TestAPodOfWhichNobodyKnowsWhetherItWasDeletedIsDeletedAgain, and no other in its place,
// though another would be the first by all that is seen since.
func TestAPodOfWhichNobodyKnowsWhetherItWasDeletedIsDeletedAgain(t *testing.T) {
	w := newWorld(t, 1)
	f := &forgetful{slow: slow{ClientConnInterface: w.cluster.Service.Dial(auth.Controllers()), open: make(chan struct{})}, world: w}
	m, err := controller.New(controller.Config{Client: objects.New(f, "controllers"), Store: w.cluster.Store(), Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	w.run(m, w.lead())
	like := web(3, "one").Spec
	make1(w, &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec:       appsv1.ReplicaSetSpec{Replicas: like.Replicas, Selector: like.Selector, Template: like.Template},
	})
	available := func(n int32) func() (bool, string) {
		return func() (bool, string) {
			set, err := objects.Get[*appsv1.ReplicaSet](t.Context(), w.client, "default", "web")
			return err == nil && set.Status.AvailableReplicas == n && set.Status.Replicas == n, set.Status.String()
		}
	}
	w.eventually("three pods are available", available(3))
	w.eventually("one is too many", func() (bool, string) {
		_, err := w.client.Scale(t.Context(), &kubepb.ScaleRequest{Object: &kubepb.Ref{Kind: "ReplicaSet", Namespace: "default", Name: "web"}, Replicas: 2})
		return err == nil, fmt.Sprint(err)
	})
	w.eventually("two pods are available", available(2))
	f.deleted.Lock()
	defer f.deleted.Unlock()
	if names := f.deleted.names; len(names) != 2 || names[0] != names[1] {
		t.Errorf("deleted, one after the other: %v", names)
	}
	w.replay()
}
