package main

import (
	"fmt"
	"time"

	"github.com/holdfast-db/holdfast/cmd/holdfastctl/cluster"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// planeStatus is what the members that are a control plane say of the layer over the
// store. It is in the metrics that are read of each member anyway.
type planeStatus struct {
	Controllers string     `json:"controllers"` // Who leads them; empty: nobody.
	Nodes       nodeCounts `json:"nodes"`
	HeldUntil   time.Time  `json:"evictions_held_until,omitzero"`
	Hold        string     `json:"recovery_hold"` // none, singletons, unlisted, all.

	hold kubepb.Hold
}

type nodeCounts struct {
	Ready    int `json:"ready"`
	NotReady int `json:"not_ready"`
	Unknown  int `json:"unknown"`
}

// holdMeans is what waits.
var holdMeans = map[kubepb.Hold]string{
	kubepb.Hold_HOLD_NONE:       "nothing waits for a decision",
	kubepb.Hold_HOLD_SINGLETONS: "singletons that a node may still run are not started elsewhere",
	kubepb.Hold_HOLD_UNLISTED:   "singletons and what is not recorded wait for a decision",
	kubepb.Hold_HOLD_ALL:        "nothing is started or ended before it is settled what runs",
}

// joinPlane takes the word of who leads the controllers, else of who has applied most:
// others may be behind.
func (s *clusterStatus) joinPlane() {
	var best *memberStatus
	leads := func(m *memberStatus) bool { return m.metrics[`controlplane_leader{of="controllers"}`] == 1 }
	for i := range s.Members {
		m := &s.Members[i]
		if _, told := m.metrics["controlplane_recovery_hold"]; !told || m.answer == nil {
			continue
		}
		if best == nil || !leads(best) && (leads(m) || m.answer.RaftAppliedIndex > best.answer.RaftAppliedIndex) {
			best = m
		}
	}
	if best == nil {
		return
	}
	count := func(ready string) int { return int(best.metrics[`controlplane_nodes{ready="`+ready+`"}`]) }
	hold := kubepb.Hold(best.metrics["controlplane_recovery_hold"])
	s.Plane = &planeStatus{
		Nodes: nodeCounts{Ready: count("true"), NotReady: count("false"), Unknown: count("unknown")},
		Hold:  cluster.HoldWord(hold), hold: hold,
	}
	if leads(best) {
		s.Plane.Controllers = best.Name
		s.Plane.HeldUntil = moment(best.metrics["controlplane_evictions_held_until_timestamp_seconds"])
	}
}

func (p *planeStatus) held(now time.Time) bool { return p.HeldUntil.After(now) }

func (p *planeStatus) judge(now time.Time, problem func(format string, args ...any)) {
	if p.Controllers == "" {
		problem("no control plane leads the controllers: nobody notices that nodes die; look again in 15 s, then into the logs of the control planes")
	}
	if n := p.Nodes.Unknown; n > 0 {
		problem("%s: 'get nodes' tells which; start the machine and its kubelet, or 'delete node' what does not come back", plural(n, "node is silent", "nodes are silent"))
	}
	if n := p.Nodes.NotReady; n > 0 {
		problem("%s: 'describe node' tells why", plural(n, "node is not ready", "nodes are not ready"))
	}
	if p.held(now) && p.Nodes.Unknown > 0 { // Else nobody is kept from anything, as in the minute after a start.
		problem("pods of silent nodes are kept there until %s or longer, as too many fell silent at once, the control plane had no quorum or has just started, or the store was restored: bring the nodes back before, or their pods go", p.HeldUntil.Format(time.RFC3339))
	}
	switch p.hold {
	case kubepb.Hold_HOLD_UNLISTED, kubepb.Hold_HOLD_ALL:
		problem("the store was restored, and %s: see 'recover pods', and end it with 'recover pods --adopt' or '--prune'; for a node that does not come back also '--give-up NODE'", holdMeans[p.hold])
	case kubepb.Hold_HOLD_SINGLETONS:
		problem("the store was restored, and %s: 'recover pods' names the nodes; end it with 'recover pods --distrust NODE' once none runs there", holdMeans[p.hold])
	}
}

// page is the part of the status for people.
func (p *planeStatus) page(out *page, now time.Time) {
	controllers := "controllers led by nobody"
	if p.Controllers != "" {
		controllers = "controllers led by " + p.Controllers
	}
	out.printf("plane     %s\n", controllers)
	out.printf("nodes     %d ready, %d not ready, %d unknown\n", p.Nodes.Ready, p.Nodes.NotReady, p.Nodes.Unknown)
	evictions := "from silent nodes not held"
	switch {
	case p.Controllers == "":
		evictions = "unknown: nobody leads the controllers"
	case p.held(now):
		evictions = "from silent nodes held for another " + p.HeldUntil.Sub(now).Round(time.Second).String()
	}
	out.printf("evictions %s\n", evictions)
	out.printf("restore   %s\n", holdMeans[p.hold])
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
