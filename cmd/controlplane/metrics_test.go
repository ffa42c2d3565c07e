package main

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
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
