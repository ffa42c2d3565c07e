package blobstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-db/holdfast/internal/task"
)

const (
	probeRounds = 3 // Races for each condition: a store that looks first and writes then loses at least one.
	probeRivals = 8
)

// Honours is which conditions a store keeps when writes meet.
type Honours struct {
	Absent bool
	Match  bool
	Why    string // What was seen of those it does not keep.
}

// Probe races writes against each other, because many stores take the header of
// a condition and do nothing, or look first and write then. An error says that
// nothing was found out. Objects are under probe/, and removed.
func Probe(ctx context.Context, s Store) (Honours, error) {
	p := probe{store: s, base: "probe/" + rand.Text() + "/"}
	absent, err := p.races(ctx, "absent", func(string) (Condition, error) { return Condition{Absent: true}, nil })
	if err != nil {
		return Honours{}, fmt.Errorf("probe conditions: %w", err)
	}
	match, err := p.races(ctx, "match", func(name string) (Condition, error) {
		tag, err := s.Put(ctx, name, []byte("to be replaced"), Condition{})
		return Condition{Match: tag}, err
	})
	if err != nil {
		return Honours{}, fmt.Errorf("probe conditions: %w", err)
	}
	h := Honours{Absent: absent == "", Match: match == ""}
	if !h.Absent {
		h.Why = "of writes to an absent object " + absent
	}
	if !h.Match {
		h.Why += "; of writes that replace an object as it is " + match
	}
	h.Why = strings.TrimPrefix(h.Why, "; ")
	return h, nil
}

type probe struct {
	store Store
	base  string
}

// races says how a condition was broken, if it was.
func (p probe) races(ctx context.Context, kind string, condition func(name string) (Condition, error)) (broken string, err error) {
	for round := 0; round < probeRounds && broken == "" && err == nil; round++ {
		name := fmt.Sprintf("%s%s-%d", p.base, kind, round)
		c, failed := condition(name)
		if failed != nil {
			return "", failed
		}
		broken, err = p.race(ctx, name, c)
		err = errors.Join(err, p.store.Delete(ctx, name))
	}
	return broken, err
}

// race has rivals write at once, with bytes of their own, and one more when all
// have been answered.
func (p probe) race(ctx context.Context, name string, c Condition) (broken string, err error) {
	words := func(rival int) []byte { return fmt.Appendf(nil, "%s %d", name, rival) }
	results := make([]error, probeRivals+1)
	write := func(ctx context.Context, rival int) {
		_, results[rival] = p.store.Put(ctx, name, words(rival), c)
	}
	g := task.New(ctx)
	for rival := range probeRivals {
		g.Go("probe", func(ctx context.Context) error { write(ctx, rival); return nil })
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	write(ctx, probeRivals)
	winners, winner := 0, 0
	for rival, result := range results {
		switch {
		case result == nil:
			winners++
			winner = rival
		case errors.Is(result, ErrUnsupported):
			return "none can be: " + ErrUnsupported.Error(), nil
		case !errors.Is(result, ErrCondition):
			return "", result
		}
	}
	if winners != 1 {
		return fmt.Sprintf("%d of %d succeeded", winners, len(results)), nil
	}
	data, _, err := p.store.Get(ctx, name)
	if err == nil && !bytes.Equal(data, words(winner)) || errors.Is(err, ErrNotFound) {
		return "one succeeded, and something else is read", nil
	}
	return "", err
}
