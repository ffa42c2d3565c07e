package main

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/server"
)

func TestADamagedMemberIsStartedAgainUnlessItEndsAtOnce(t *testing.T) {
	damaged, other := fmt.Errorf("page 7: %w", server.ErrDamaged), errors.New("no such flag")
	type run struct {
		took time.Duration
		err  error
	}
	for _, test := range []struct {
		what string
		runs []run
	}{
		{"told to end", []run{{time.Hour, nil}}},
		{"another error", []run{{time.Hour, other}}},
		{"damaged, then told to end", []run{{repairedMin, damaged}, {time.Second, nil}}},
		{"damaged again and again, but not at once", []run{{time.Hour, damaged}, {repairedMin, damaged}, {time.Hour, nil}}},
		{"damaged at once", []run{{repairedMin - 1, damaged}}},
		{"damaged at once the second time", []run{{time.Hour, damaged}, {0, damaged}}},
	} {
		c, n := clocktest.New(), 0
		err := repeat(c, hclog.NewNullLogger(), func() error {
			c.Advance(test.runs[n].took)
			n++
			return test.runs[n-1].err
		})
		if want := test.runs[len(test.runs)-1].err; n != len(test.runs) || err != want {
			t.Errorf("%s: %d runs, %v", test.what, n, err)
		}
	}
}
