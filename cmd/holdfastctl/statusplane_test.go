package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/quick"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// gauges are metrics of a control plane, as its member shows them.
func gauges(values map[string]float64) prometheus.Collector {
	r := prometheus.NewRegistry()
	for name, value := range values {
		labels := prometheus.Labels{}
		name, rest, ok := strings.Cut(name, "{")
		if ok {
			key, text, _ := strings.Cut(strings.TrimSuffix(rest, `"}`), `="`)
			labels[key] = text
		}
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, ConstLabels: labels, Help: "of a test"})
		g.Set(value)
		r.MustRegister(g)
	}
	return r
}

const leadsControllers = `controlplane_leader{of="controllers"}`

func TestStatusOfAStoreSaysNothingOfNodesAndThatOfAControlPlaneDoes(t *testing.T) {
	quick.LeaveOut(t)
	c := servertest.New(t, 1, nil)
	page, code := statusOf(t, c)
	text, _ := statusOf(t, c, "-w", "json")
	if strings.Contains(page, "nodes ") || strings.Contains(text, "control_plane") || code != 0 {
		t.Errorf("exit code %d of a store:\n%s%s", code, page, text)
	}
	soon := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	if err := c.Members[0].Collect(gauges(map[string]float64{
		`controlplane_nodes{ready="true"}`: 2, `controlplane_nodes{ready="false"}`: 1, `controlplane_nodes{ready="unknown"}`: 3,
		"controlplane_recovery_hold": 3, leadsControllers: 1, "controlplane_evictions_held_until_timestamp_seconds": float64(soon.Unix()),
		"controlplane_certificate_expiry_timestamp_seconds": float64(soon.Unix()),
	})); err != nil {
		t.Fatal(err)
	}
	text, code = statusOf(t, c, "-w", "json")
	var st clusterStatus
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	want := planeStatus{Controllers: "m0", Nodes: nodeCounts{2, 1, 3}, HeldUntil: soon, Hold: "all"}
	if st.Plane == nil || *st.Plane != want || code != exitFailed {
		t.Errorf("exit code %d, %+v, want %+v", code, st.Plane, want)
	}
	if !st.Members[0].CertEnds.Equal(soon) {
		t.Errorf("the certificate of the API ends %v, not %v", st.Members[0].CertEnds, soon)
	}
	page, _ = statusOf(t, c)
	for _, want := range []string{
		"nodes     2 ready, 1 not ready, 3 unknown\n", "evictions from silent nodes held for another ", "! 3 nodes are silent", "! 1 node is not ready",
		"! pods of silent nodes are kept there until " + soon.Format(time.RFC3339), "recover pods --adopt",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q:\n%s", want, page)
		}
	}
}

// What the page says of each state that a control plane can be in.
func TestTheControlPlaneOnThePage(t *testing.T) {
	now := time.Unix(1_000_000, 0).UTC()
	var all strings.Builder
	for _, s := range []struct {
		what string
		m    map[string]float64
	}{
		{"all is well", map[string]float64{leadsControllers: 1, `controlplane_nodes{ready="true"}`: 3, "controlplane_recovery_hold": 0}},
		{"it has just started", map[string]float64{leadsControllers: 1, `controlplane_nodes{ready="true"}`: 3, "controlplane_recovery_hold": 0, "controlplane_evictions_held_until_timestamp_seconds": 1_000_042}},
		{"many nodes fell silent", map[string]float64{leadsControllers: 1, `controlplane_nodes{ready="true"}`: 1, `controlplane_nodes{ready="unknown"}`: 3, "controlplane_recovery_hold": 0, "controlplane_evictions_held_until_timestamp_seconds": 1_000_042}},
		{"that is over", map[string]float64{leadsControllers: 1, `controlplane_nodes{ready="unknown"}`: 1, "controlplane_recovery_hold": 0, "controlplane_evictions_held_until_timestamp_seconds": 999_999}},
		{"nobody leads", map[string]float64{leadsControllers: 0, `controlplane_nodes{ready="true"}`: 1, "controlplane_recovery_hold": 0}},
		{"restored", map[string]float64{leadsControllers: 1, "controlplane_recovery_hold": 3}},
		{"restored, and it went on", map[string]float64{leadsControllers: 1, "controlplane_recovery_hold": 2}},
		{"restored, and settled but for a singleton", map[string]float64{leadsControllers: 1, "controlplane_recovery_hold": 1}},
	} {
		st := clusterStatus{Members: []memberStatus{{Name: "m0", Role: "leader", answer: &pb.StatusResponse{}, metrics: s.m}}}
		st.joinPlane()
		p := &page{}
		st.Plane.page(p, now)
		st.Plane.judge(now, func(format string, args ...any) { p.printf("! "+format+"\n", args...) })
		all.WriteString("# " + s.what + "\n" + p.String() + "\n")
	}
	golden.File(t, "testdata/statusplane.golden", all.String())
}

// A control plane that is cut off knows of old. Who leads the controllers is asked, else
// who is ahead.
func TestTheWordOfWhoLeadsTheControllersCounts(t *testing.T) {
	member := func(name string, applied uint64, leads, ready float64) memberStatus {
		return memberStatus{Name: name, answer: &pb.StatusResponse{RaftAppliedIndex: applied}, metrics: map[string]float64{
			leadsControllers: leads, `controlplane_nodes{ready="true"}`: ready, "controlplane_recovery_hold": 0,
		}}
	}
	store := memberStatus{Name: "s", answer: &pb.StatusResponse{RaftAppliedIndex: 99}}
	for _, c := range []struct {
		members []memberStatus
		ready   int
	}{
		{[]memberStatus{member("a", 9, 0, 1), member("b", 5, 1, 2), member("c", 9, 0, 3)}, 2},
		{[]memberStatus{member("a", 8, 0, 1), member("b", 9, 0, 2), member("c", 7, 0, 3), store}, 2},
	} {
		st := clusterStatus{Members: c.members}
		if st.joinPlane(); st.Plane.Nodes.Ready != c.ready {
			t.Errorf("%+v, want %d ready", st.Plane, c.ready)
		}
	}
}
