package cluster

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Who decides is shown which node says what, what is against it, and what it would mean
// to believe it.
func TestClaimsAreListedWithWhatIsAgainstThem(t *testing.T) {
	var out bytes.Buffer
	wall := &atomic.Int64{}
	wall.Store(1060)
	s := &session{Config: Config{Out: &out, Clock: stopped{clock.Real(), wall}}}
	is := &kubepb.RecoveryResponse{
		State: kubepb.RecoveryResponse_OPEN, Timeline: 2, Since: 1000, Undecided: 2,
		Nodes: []*kubepb.NodeReport{
			{Node: "n1", Reported: 1030, Pods: 3, Claims: 1},
			{Node: "n2", Reported: 1030, Pods: 9, Claims: 9, Doubtful: 8, Doubt: "it is not recorded"},
			{Node: "n3", GivenUp: true, Distrusted: true},
		},
		Pods: []*kubepb.RecoveredPod{
			{List: kubepb.RecoveredPod_RUNNING, Namespace: "a", Name: "web-1", Node: "n1", Running: true, Note: "recorded without a node: adoption binds it"},
			{
				List: kubepb.RecoveredPod_RUNNING, Namespace: "a", Name: "x", Node: "n2", Running: true, Doubt: "only its node says what it is",
				Labels: map[string]string{"tier": "front", "app": "api"}, Names: []string{"Secret/db"},
			},
		},
	}
	if err := s.showRecovery(is, "table"); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, line := range strings.Split(out.String(), "\n") {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	want := `The store was restored 60s ago (timeline 2); nothing is started or ended before it is settled what runs.

NODE TOLD PODS CLAIMS DOUBTFUL NOTE
n1 30s ago 3 1 0
n2 30s ago 9 9 8 it is not recorded
n3 distrusted 0 0 0

LIST NAMESPACE NAME NODE RUNS RESTARTS CONTROLLER NOTE
running a web-1 n1 yes 0 <none> recorded without a node: adoption binds it
running a x n2 yes 0 <none> only its node says what it is (--as-told); labels app=api,tier=front; may read Secret/db

2 pods to be decided about: --adopt records them, --prune lets them end.
`
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// A singleton that may still run keeps the hold up when all else is settled.
func TestAHoldOfSingletonsIsNotCalledSettled(t *testing.T) {
	show := func(hold kubepb.Hold) string {
		var out bytes.Buffer
		s := &session{Config: Config{Out: &out, Clock: clock.Real()}}
		is := &kubepb.RecoveryResponse{
			State: kubepb.RecoveryResponse_SETTLED, Hold: hold, Timeline: 2,
			Nodes: []*kubepb.NodeReport{{Node: "n1", Reported: 1, Pods: 1, Claims: 1}},
			Pods:  []*kubepb.RecoveredPod{{List: kubepb.RecoveredPod_RUNNING, Namespace: "a", Name: "one", Node: "n1", Running: true, Singleton: true}},
		}
		if err := s.showRecovery(is, "table"); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if got := show(kubepb.Hold_HOLD_NONE); got != "All is settled since the store was restored last, or it never was.\n" {
		t.Error(got)
	}
	got := show(kubepb.Hold_HOLD_SINGLETONS)
	for _, want := range []string{"singletons that a node may still run are not started elsewhere", "one", "n1", "--distrust NODE"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
}
