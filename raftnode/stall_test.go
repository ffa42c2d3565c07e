package raftnode

import (
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/ident"
)

func TestWhatCountsAsADiskThatTakesNothing(t *testing.T) {
	const limit = 3
	for name, c := range map[string]struct {
		appends           int
		restored, applied ident.Index
		ended             bool // One ends within the limit.
		want              bool
	}{
		"nothing is under way":              {},
		"an append does not end":            {appends: 1, applied: 7, want: true},
		"one ends now and then":             {appends: 2, applied: 7, ended: true},
		"a received state is put in force":  {appends: 1, restored: 9, applied: 7},
		"an append behind one that is over": {appends: 1, restored: 9, applied: 9, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			core := &Core{logger: hclog.NewNullLogger(), log: &recentLog{}, appends: c.appends, restored: c.restored, applied: c.applied, stall: stall{limit: limit}}
			for tick := range 2 * limit {
				core.tickStall()
				if c.ended && tick%2 == 1 {
					core.stall.ticks = 0
				}
			}
			if core.stall.over() != c.want {
				t.Errorf("stalled %t after %d ticks, want %t", core.stall.over(), 2*limit, c.want)
			}
		})
	}
}
