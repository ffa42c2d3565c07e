package main

import (
	"strings"
	"testing"
)

func TestBadFlagsSayWhatIsRight(t *testing.T) {
	for _, c := range []struct {
		flags flags
		want  string
	}{
		{flags{workers: 0, seeds: 1, first: 1, worker: -1}, "give 1 to 64"},
		{flags{workers: 1, seeds: 0, first: 1, worker: -1}, "give at least 1"},
		{flags{workers: 1, seeds: 1, first: 0, worker: -1}, "seeds begin at 1"},
		{flags{workers: 1, seeds: 1, first: 1, minutes: -1, worker: -1}, "positive"},
		{flags{workers: 1, seeds: 1, first: 1, worker: -1, seed: "x"}, "give a number from 1 on"},
		{flags{workers: 1, seeds: 1, first: 1, worker: -1, scenario: "nowhere.json"}, "no such file"},
	} {
		if err := c.flags.run(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.flags, err, c.want)
		}
	}
}
