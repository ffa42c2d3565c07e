package server

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/ident"
)

func TestAMemberAcknowledgesOnlyWhileItKnowsThatItsClusterWasNotGivenUp(t *testing.T) {
	now := clocktest.New()
	f := newEpochFence(now, true)
	epoch, down := ident.Timeline(0), error(nil)
	var takes time.Duration // The store's part of a look.
	newest := func(ctx context.Context) (ident.Timeline, error) {
		now.Advance(takes)
		return epoch, errors.Join(down, ctx.Err())
	}
	look := func() { f.look(t.Context(), newest) } //nolint:errcheck // What the fence makes of it is seen.
	is := func(what string, want error) {
		t.Helper()
		if got := f.open(); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	is("before the first look", errEpochUnread)
	look()
	is("right after a look", nil)
	now.Advance(8 * time.Second)
	is("8 s later", nil)
	down = errors.New("503")
	look()
	now.Advance(time.Second)
	is("9 s later, and the last look failed", errEpochUnread)
	down = nil
	look()
	is("the archive is back", nil)
	now.Advance(8 * time.Second)
	takes = 2 * time.Second
	look() // What it found may be older than its end.
	now.Advance(7 * time.Second)
	is("9 s after a look was begun", errEpochUnread)
	takes = epochLookMax
	look()
	is("a look that took too long does not count", errEpochUnread)
	takes = 0
	look()
	is("a look", nil)
	now.SetWall(now.Wall().Add(time.Minute))
	is("the machine has slept, and the monotonic clock with it", errEpochUnread)
	look()
	is("a look", nil)
	epoch = 4
	look()
	is("there is an epoch", errSuperseded)
	epoch = 0
	look()
	is("for good", errSuperseded)

	f = newEpochFence(now, false)
	is("the policy is off", nil)
}

func TestThePolicyForEpochsFollowsTheMode(t *testing.T) {
	for _, x := range []struct {
		url, mode, policy string
		want              bool
	}{
		{"", ArchiveAsync, EpochAuto, false},
		{"file:///x", ArchiveAsync, EpochAuto, false},
		{"file:///x", ArchiveAsync, EpochStrict, true},
		{"file:///x", ArchiveSync, EpochAuto, true},
		{"file:///x", ArchiveSync, EpochOff, false},
	} {
		c := Config{ArchiveURL: x.url, ArchiveMode: x.mode, ArchiveEpoch: x.policy}
		if got := c.EpochStrict(); got != x.want {
			t.Errorf("%+v: %t", x, got)
		}
	}
}

func TestAlarmsOfTheArchiveAreShownInWordsForAWhile(t *testing.T) {
	now := clocktest.New()
	a := &archiving{}
	if list := a.alarms(now.Mono()); len(list) != 0 {
		t.Errorf("none was raised: %q", list)
	}
	a.alarm.Store(&archiveAlarm{errors.New("entries between 3 and 9 are missing"), now.Mono()})
	a.refused.Store(true)
	want := []string{"holdfast: nothing is archived: the store does not keep conditional writes", "holdfast: archive: entries between 3 and 9 are missing"}
	if list := a.alarms(now.Mono()); !slices.Equal(list, want) {
		t.Errorf("%q", list)
	}
	now.Advance(archiveAlarmShown)
	if list := a.alarms(now.Mono()); !slices.Equal(list, want[:1]) {
		t.Errorf("%q", list)
	}
}
