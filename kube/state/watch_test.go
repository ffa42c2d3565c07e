package state_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func jsonHas(raw []byte, field string) bool { return bytes.Contains(raw, []byte(`"`+field+`"`)) }

// receive returns n events of a watch as text.
func receive(t *testing.T, stream kubepb.ClusterState_WatchClient, n int) []string {
	t.Helper()
	var all []string
	for len(all) < n {
		m, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %q: %v", all, err)
		}
		for _, e := range m.Events {
			all = append(all, fmt.Sprintf("%s %s", e.Type, e.Object.Name))
		}
	}
	return all
}

func TestAWatchGoesOnFromAResourceVersion(t *testing.T) {
	_, c := admin(t)
	a := create(t, c, podOf("a", "1"))
	create(t, c, podOf("b", "1"))
	if err := objects.Delete[*corev1.Pod](t.Context(), c, "default", "a"); err != nil {
		t.Fatal(err)
	}
	version, _ := api.ParseVersion(a.ResourceVersion)
	stream, err := c.RPC().Watch(t.Context(), &kubepb.WatchRequest{Kind: "Pod", ResourceVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(receive(t, stream, 2)); got != "[ADDED b DELETED a]" {
		t.Error(got)
	}
}

func TestAWatchFromAVersionThatIsForgottenOrWasNeverExpires(t *testing.T) {
	cluster, c := admin(t)
	a := create(t, c, podOf("a", "1"))
	version, _ := api.ParseVersion(a.ResourceVersion)
	create(t, c, podOf("b", "1"))
	later := cluster.Another() // It has read what is there, and not how it came to be.
	if err := later.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, version := range map[string]int64{"forgotten": version, "never": 1 << 40} {
		stream, err := kubepb.NewClusterStateClient(later.Dial(auth.Admin("ann"))).Watch(t.Context(), &kubepb.WatchRequest{Kind: "Pod", ResourceVersion: version})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.OutOfRange {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// quick beats more often than the clock that it stands for.
type quick struct{ clock.Clock }

func (q quick) NewTicker(time.Duration) clock.Ticker { return q.Clock.NewTicker(5 * time.Millisecond) }

func TestABookmarkTellsAnIdleWatchHowFarItIs(t *testing.T) {
	cluster := kubetest.Start(t, func(c *state.Config) { c.Clock = quick{clock.Real()} })
	c := cluster.Client(auth.Admin("ann"))
	stream, err := c.RPC().Watch(t.Context(), &kubepb.WatchRequest{Kind: "Secret", Bookmarks: true})
	if err != nil {
		t.Fatal(err)
	}
	receive(t, stream, 1) // SYNCED.
	made, _ := api.ParseVersion(create(t, c, podOf("p", "1")).ResourceVersion)
	for {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range m.Events {
			if e.Type != kubepb.WatchEvent_BOOKMARK {
				t.Fatalf("a %s of %s", e.Type, e.Object.Name)
			}
			if e.Object.ResourceVersion >= made {
				return
			}
		}
	}
}
