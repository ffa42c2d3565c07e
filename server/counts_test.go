package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Clients choose what they say they are: they must not fill a member's memory by it.
func TestWhatClientsSayTheyAreIsBounded(t *testing.T) {
	v := &clientVersions{all: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "x"}, []string{"kind", "version"})}
	registry := prometheus.NewRegistry()
	registry.MustRegister(v.all)
	v.count("unary", strings.Repeat("9", 1<<20))
	for i := range 100 {
		v.count("unary", fmt.Sprint("3.", i))
	}
	v.count("unary", "3.0")
	all, err := registry.Gather()
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	counts := map[string]float64{}
	for _, m := range all[0].Metric {
		for _, l := range m.Label {
			if l.GetName() == "version" {
				counts[l.GetValue()] = m.Counter.GetValue()
			}
		}
	}
	if len(counts) != clientVersionsMax+1 || counts["3.0"] != 2 || counts["other"] != 101-clientVersionsMax {
		t.Errorf("%d labels: %v", len(counts), counts)
	}
}
