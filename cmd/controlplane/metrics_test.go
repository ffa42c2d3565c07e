package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func TestMetricsTellWhenTheCertificateOfTheAPIEnds(t *testing.T) {
	end := 1.0
	r := prometheus.NewRegistry()
	r.MustRegister(newMetrics(func() float64 { return end }))
	for end = 1; end < 4; end++ {
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range families {
			if f.GetName() == "controlplane_certificate_expiry_timestamp_seconds" {
				found = true
				if got := f.GetMetric()[0].GetGauge().GetValue(); got != end {
					t.Errorf("%v, want %v", got, end)
				}
			}
		}
		if !found {
			t.Error("it is not among them")
		}
	}
}

func TestMetricsTellOfNodesAndHoldsOnceTheyAreKnown(t *testing.T) {
	m := newMetrics(func() float64 { return 1 })
	r := prometheus.NewRegistry()
	r.MustRegister(m)
	page := func() string {
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, f := range families {
			if n := f.GetName(); n == "controlplane_leader" || strings.HasPrefix(n, "controlplane_api") || strings.HasSuffix(n, "_total") {
				continue
			}
			for _, s := range f.GetMetric() {
				if s.Gauge == nil {
					continue
				}
				fmt.Fprint(&b, f.GetName())
				for _, l := range s.GetLabel() {
					fmt.Fprint(&b, " ", l.GetValue())
				}
				fmt.Fprintln(&b, " =", s.GetGauge().GetValue())
			}
		}
		return b.String()
	}
	const end = "controlplane_certificate_expiry_timestamp_seconds = 1\n"
	if got := page(); got != end {
		t.Errorf("before the store is served:\n%s", got)
	}
	is, err := standing{}, errors.New("the cache is behind")
	look := func() (standing, error) { return is, err }
	m.standing.Store(&look)
	if got := page(); got != end {
		t.Errorf("while nothing is known:\n%s", got)
	}
	is = standing{state.Overview{Nodes: map[corev1.ConditionStatus]int{corev1.ConditionTrue: 2, corev1.ConditionUnknown: 1}, Hold: kubepb.Hold_HOLD_ALL}, time.Unix(77, 0)}
	err = nil
	want := end + `controlplane_evictions_held_until_timestamp_seconds = 77
controlplane_nodes false = 0
controlplane_nodes true = 2
controlplane_nodes unknown = 1
controlplane_recovery_hold = 3
`
	if got := page(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	is.heldUntil = time.Time{}
	if got := page(); !strings.Contains(got, "controlplane_evictions_held_until_timestamp_seconds = 0\n") {
		t.Errorf("while nothing is held:\n%s", got)
	}
}
