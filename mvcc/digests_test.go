package mvcc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// Entries that change nothing have an index too, and members that took records
// instead of entries remember the same.
func TestDigestsAreRememberedAtTheSameIndexesByWhateverWayTheyCame(t *testing.T) {
	forSeeds(t, func(t *testing.T, r *rand.Rand) {
		a, b := mustCreate(t, testConfig(t)), mustCreate(t, testConfig(t))
		at := map[ident.Index]ident.Digest{}
		for i := ident.Index(1); i <= 10*DigestEvery; i++ {
			e := a.Begin(i, 1, int64(i))
			if r.IntN(3) == 0 {
				tx := e.Tx()
				if _, err := tx.Put(PutArgs{Key: []byte(fmt.Sprint("k", r.IntN(9))), Value: []byte("v")}); err != nil {
					t.Fatal(err)
				}
				tx.Commit()
			}
			if err := e.Commit(); err != nil {
				t.Fatal(err)
			}
			at[i] = a.Applied().Digest
			if r.IntN(50) == 0 {
				catchUp(t, b, a)
			}
		}
		catchUp(t, b, a)
		for _, s := range []*Store{a, b} {
			now, list := s.Digests(1<<40, 100)
			if now.Index != 10*DigestEvery || now.Digest != at[now.Index] || len(list) != 10 {
				t.Fatalf("stands at %v, remembers %d", now, len(list))
			}
			for i, d := range list {
				if want := ident.Index((10 - i) * DigestEvery); d.Index != want || d.Digest != at[want] {
					t.Fatalf("digest %d is %v, want that of entry %d, %s", i, d, want, at[want])
				}
			}
			if _, few := s.Digests(5*DigestEvery+1, 2); len(few) != 2 || few[0].Index != 5*DigestEvery {
				t.Fatalf("two not above an index: %v", few)
			}
			for i := range at {
				if d, err := s.DigestAt(i); err != nil || d != at[i] {
					t.Fatalf("digest at %d is %s, %v, want %s", i, d, err, at[i])
				}
			}
		}
		mustClose(t, a)
		mustClose(t, b)
	})
}

func TestADigestBeforeHistoryOrBeyondItIsNotGuessed(t *testing.T) {
	s := mustCreate(t, testConfig(t))
	w := &writer{t: t, s: s}
	for i := range 400 {
		w.put(fmt.Sprint("k", i%7), fmt.Sprintf("%0100d", i))
	}
	w.compact(s.Head())
	stepAll(t, s)
	if first := s.History().Segments()[0].Start.Index; first < 10 {
		t.Fatalf("history begins at %d, the test shows nothing", first)
	}
	if _, err := s.DigestAt(5); !errors.Is(err, history.ErrDropped) {
		t.Errorf("digest of what was dropped: %v", err)
	}
	if _, err := s.DigestAt(s.Applied().Position.Index + 1); !errors.Is(err, ErrFutureRevision) {
		t.Errorf("digest of what was not applied: %v", err)
	}
	mustClose(t, s)
}

func TestManyEntriesThatChangedNothingFillTheRingOnce(t *testing.T) {
	s := mustCreate(t, testConfig(t))
	e := s.Begin(1<<40, 1, 1)
	if err := e.Commit(); err != nil {
		t.Fatal(err)
	}
	_, list := s.Digests(1<<50, 1<<20)
	if len(list) != digestsMax || list[0].Index != 1<<40 || list[digestsMax-1].Index != 1<<40-(digestsMax-1)*DigestEvery {
		t.Fatalf("%d digests, from %v to %v", len(list), list[len(list)-1], list[0])
	}
	mustClose(t, s)
}
