package server

import (
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
)

func TestAVacancyLastsFromItsBeginningAndUntilSomebodyLeads(t *testing.T) {
	const bound = 3 * time.Second
	var v vacancy
	for _, step := range []struct {
		now    time.Duration
		leader ident.MemberID
		want   bool
	}{
		{0, 0, false}, // A clock may begin at 0.
		{bound, 0, false},
		{bound + 1, 0, true},
		{bound + 2, 7, false},
		{2 * bound, 0, false},
		{3 * bound, 0, false},
		{3*bound + 1, 0, true},
		{3*bound + 2, 7, false},
		{9 * bound, 7, false},
		{9*bound + 1, 0, false}, // Not since the last one.
	} {
		if got := v.lasts(step.leader, step.now, bound); got != step.want {
			t.Errorf("at %s, while %d leads: %t", step.now, step.leader, got)
		}
	}
}
