package archive

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// openEmpty is an archive that has only begun.
func openEmpty(t *testing.T, store *memStore) *Archive {
	t.Helper()
	text, err := encodeText(Meta{FormatVersion, testUUID})
	if err == nil {
		_, err = store.Put(t.Context(), testUUID.String()+"/"+metaName, text, blobstore.Condition{})
	}
	if err != nil {
		t.Fatal(err)
	}
	a, err := Open(t.Context(), store, UUID{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func epochOf(operator int) Epoch {
	return Epoch{Number: 4, Successor: fmt.Sprintf("%x", 0xc0+operator), Plan: "same facts, same plan", By: "operator " + fmt.Sprint(operator)}
}

func TestOfOperatorsWhoTakeOneEpochOneWins(t *testing.T) {
	for round := range 100 {
		a := openEmpty(t, newMemStore())
		var results [4]error
		g := task.New(t.Context())
		for i := range results {
			g.Go("operator", func(ctx context.Context) error {
				_, results[i] = a.TakeEpoch(ctx, epochOf(i))
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		wins := 0
		for i, err := range results {
			switch {
			case err == nil:
				wins++
				if e, err := a.Epoch(t.Context(), 4); err != nil || e.By != epochOf(i).By {
					t.Errorf("round %d: operator %d won, the epoch is %+v, %v", round, i, e, err)
				}
			case !errors.Is(err, ErrEpochTaken):
				t.Errorf("round %d: %v", round, err)
			}
		}
		if wins != 1 {
			t.Fatalf("round %d: %d operators won", round, wins)
		}
	}
}

// Whoever comes back to an epoch of theirs that was given up meanwhile loses too.
func TestAnEpochThatWasSupersededIsNobodys(t *testing.T) {
	a := openEmpty(t, newMemStore())
	at := func(n ident.Timeline, operator int) Epoch {
		e := epochOf(operator)
		e.Number = n
		return e
	}
	for _, step := range []struct {
		epoch Epoch
		wins  bool
	}{{at(5, 1), true}, {at(5, 1), true}, {at(6, 2), true}, {at(5, 1), false}, {at(4, 3), false}, {at(6, 2), true}} {
		if _, err := a.TakeEpoch(t.Context(), step.epoch); (err == nil) != step.wins || err != nil && !errors.Is(err, ErrEpochTaken) {
			t.Errorf("epoch %d of %s: %v", step.epoch.Number, step.epoch.By, err)
		}
	}
}

func TestAnEpochThatWasTakenInATryThatTimedOutIsOurs(t *testing.T) {
	store := newMemStore()
	a := openEmpty(t, store)
	if n, err := a.NewestEpoch(t.Context()); n != 0 || err != nil {
		t.Fatalf("epoch %d, %v", n, err)
	}
	first, err := a.TakeEpoch(t.Context(), epochOf(1))
	if err != nil || first.Fence != FenceUnknown {
		t.Fatalf("%+v, %v", first, err)
	}
	again := epochOf(1)
	again.By, again.Made = "the same operator, later", "later"
	if got, err := a.TakeEpoch(t.Context(), again); err != nil || *got != *first {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := a.TakeEpoch(t.Context(), epochOf(2)); !errors.Is(err, ErrEpochTaken) || !strings.Contains(err.Error(), "operator 1") {
		t.Errorf("a second operator: %v", err)
	}
	if n, err := a.NewestEpoch(t.Context()); n != 4 || err != nil {
		t.Errorf("epoch %d, %v", n, err)
	}
	c, err := a.Catalogue(t.Context())
	if err != nil || c.Epoch != 4 || len(c.Foreign) > 0 {
		t.Errorf("%+v, %v", c, err)
	}
	_, err = a.Inspect(t.Context(), func(f Found) error {
		if f.Kind == foundEpoch && (f.Err != nil || !strings.Contains(f.Note, "given up")) {
			t.Errorf("%+v", f)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAnArchiveThatIsGoneIsNotOneWithoutEpochs(t *testing.T) {
	store := newMemStore()
	a := openEmpty(t, store)
	if _, err := a.TakeEpoch(t.Context(), epochOf(1)); err != nil {
		t.Fatal(err)
	}
	clear(store.objects) // As a mount that is gone.
	if n, err := a.NewestEpoch(t.Context()); err == nil {
		t.Errorf("epoch %d", n)
	}
}

func TestTheFenceOfTheOldSideIsToldWithTheEpoch(t *testing.T) {
	for _, fenced := range []bool{false, true} {
		c, store := newCluster(t, 3), newMemStore()
		cfg := c.config(store, &alarms{})
		cfg.Fenced = fenced
		c.run(3)
		a := c.archived(store, cfg, 1, 3)
		e, err := a.TakeEpoch(t.Context(), epochOf(1))
		if want := map[bool]string{false: FenceOff, true: FenceOn}[fenced]; err != nil || e.Fence != want {
			t.Errorf("%+v, %v; want %s", e, err, want)
		}
	}
}

func TestTheArchiveIsAWitness(t *testing.T) {
	c, store := newCluster(t, 8), newMemStore()
	c.run(20)
	a := c.archived(store, c.config(store, &alarms{}), 2, 20)
	cat, err := a.Catalogue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tip, found, err := a.Tip(t.Context(), cat, testIdentity.Timeline)
	if err != nil || !found || tip.Index == 0 {
		t.Fatalf("%s, %t, %v", tip, found, err)
	}
	known := 0
	for i := cat.Latest().Log[0].First; i <= tip.Index; i++ {
		got, ok, err := a.DigestAt(t.Context(), cat, testIdentity.Timeline, i)
		if err != nil || !ok {
			t.Fatalf("entry %d: %t, %v", i, ok, err)
		}
		if want, err := c.store.DigestAt(i); err == nil {
			known++
			if Digest(want) != got {
				t.Errorf("entry %d: digest %s, the store has %s", i, got, want)
			}
		}
	}
	if known < 20 {
		t.Errorf("only %d digests were compared", known)
	}
	if _, ok, err := a.DigestAt(t.Context(), cat, testIdentity.Timeline, tip.Index+1); ok || err != nil {
		t.Errorf("beyond the end: %t, %v", ok, err)
	}
	if _, found, err := a.Tip(t.Context(), cat, 99); found || err != nil {
		t.Errorf("another timeline: %t, %v", found, err)
	}
}
