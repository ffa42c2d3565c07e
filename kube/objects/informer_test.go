package objects_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// script answers each watch with the next of its parts, and breaks off.
type script struct {
	kubepb.UnimplementedClusterStateServer
	parts [][]*kubepb.WatchEvent
	asked []int64 // Resource versions that the watches began with.
	done  chan struct{}
}

func (s *script) Watch(r *kubepb.WatchRequest, stream kubepb.ClusterState_WatchServer) error {
	s.asked = append(s.asked, r.ResourceVersion) // Watches come one after the other.
	if len(s.asked) > len(s.parts) {
		close(s.done)
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	if err := stream.Send(&kubepb.WatchResponse{Events: s.parts[len(s.asked)-1]}); err != nil {
		return err
	}
	return status.Error(codes.Unavailable, "it breaks off")
}

func event(t *testing.T, kind kubepb.WatchEvent_Type, name string, version int64) *kubepb.WatchEvent {
	t.Helper()
	m := &kubepb.Object{Kind: api.ConfigMap.Name, Namespace: "default", Name: name, ResourceVersion: version}
	if name != "" {
		o := &corev1.ConfigMap{}
		o.Namespace, o.Name = "default", name
		raw, err := api.Encode(o)
		if err != nil {
			t.Fatal(err)
		}
		m.Raw = raw
	}
	return &kubepb.WatchEvent{Type: kind, Object: m}
}

// serve is a connection to a server of the script.
func serve(t *testing.T, s *script) *grpc.ClientConn {
	t.Helper()
	g := grpc.NewServer()
	kubepb.RegisterClusterStateServer(g, s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go g.Serve(l)
	t.Cleanup(g.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestAWatchThatBreaksOffWithinARevisionIsTakenUpThere: one transaction deletes many
// objects, of which a stream may have told some.
func TestAWatchThatBreaksOffWithinARevisionIsTakenUpThere(t *testing.T) {
	const added, modified, deleted, synced = kubepb.WatchEvent_ADDED, kubepb.WatchEvent_MODIFIED, kubepb.WatchEvent_DELETED, kubepb.WatchEvent_SYNCED
	s := &script{done: make(chan struct{}), parts: [][]*kubepb.WatchEvent{
		{event(t, added, "a", 3)}, // It breaks off before all is told.
		{event(t, added, "a", 3), event(t, added, "b", 4), event(t, added, "c", 5), event(t, synced, "", 7)},
		{event(t, modified, "c", 8), event(t, deleted, "a", 10)},
		{event(t, deleted, "a", 10), event(t, deleted, "b", 10), event(t, modified, "c", 11)},
		{event(t, modified, "c", 11), event(t, kubepb.WatchEvent_BOOKMARK, "", 12)},
	}}
	i := objects.NewInformer[*corev1.ConfigMap](objects.New(serve(t, s), "test"), objects.ListOptions{}, hclog.NewNullLogger())
	var told []string
	i.OnChange(func(old, new *corev1.ConfigMap) {
		switch {
		case old == nil:
			told = append(told, "+"+new.Name)
		case new == nil:
			told = append(told, "-"+old.Name)
		default:
			told = append(told, "~"+new.Name+new.ResourceVersion)
		}
	})
	go i.Run(t.Context())
	select {
	case <-s.done:
	case <-time.After(time.Minute):
		t.Fatal("it does not resume")
	}
	if got, want := strings.Join(told, " "), "+a +b +c ~c8 -a -b ~c11"; got != want {
		t.Errorf("told %s\nwant %s", got, want)
	}
	if got, want := fmt.Sprint(s.asked), "[0 0 7 9 10 12]"; got != want {
		t.Errorf("watches began at %s, want %s", got, want)
	}
	if i.Revision() != 12 {
		t.Errorf("revision %d", i.Revision())
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // Who only asks has a context that is over.
		if err := i.Synced(over); err != nil {
			t.Fatalf("all was told, and it says %v", err)
		}
	}
}

// sharing is a connection to a server that has some objects decoded.
type sharing struct {
	*grpc.ClientConn
	has map[string]api.Object
}

func (s sharing) Decoded(m *kubepb.Object) api.Object { return s.has[m.Name] }

func TestWhatIsNotReadIsTakenFromObjectsThatNobodyElseHas(t *testing.T) {
	s := &script{done: make(chan struct{}), parts: [][]*kubepb.WatchEvent{
		{event(t, kubepb.WatchEvent_ADDED, "own", 3), event(t, kubepb.WatchEvent_ADDED, "shared", 4), event(t, kubepb.WatchEvent_SYNCED, "", 7)},
	}}
	shared := &corev1.ConfigMap{}
	shared.Namespace, shared.Name, shared.ResourceVersion = "default", "shared", "4"
	i := objects.NewInformer[*corev1.ConfigMap](objects.New(sharing{serve(t, s), map[string]api.Object{"shared": shared}}, "test"), objects.ListOptions{}, hclog.NewNullLogger())
	i.Reduce(func(c *corev1.ConfigMap) { c.Labels = map[string]string{"reduced": "yes"} })
	var told []string
	i.OnChange(func(_, new *corev1.ConfigMap) { told = append(told, new.Name+new.Labels["reduced"]) })
	go i.Run(t.Context())
	select {
	case <-s.done:
	case <-time.After(time.Minute):
		t.Fatal("nothing is told")
	}
	if got, want := strings.Join(told, " "), "ownyes shared"; got != want {
		t.Errorf("told %s, want %s", got, want)
	}
}
