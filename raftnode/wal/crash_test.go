package wal

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

var imagesFlag = flag.Int("images", 1, "random crash images at each boundary")

// crashImages returns file systems as a power loss now may leave them.
func crashImages(fs *vfstest.Mem, rnd *rand.Rand, random int) []*vfstest.Mem {
	var out []*vfstest.Mem
	for _, image := range []vfstest.Image{vfstest.Nothing, vfstest.Everything, vfstest.NoNames, vfstest.NoData} {
		out = append(out, fs.Crash(vfstest.Crash{Image: image, Rand: rnd}))
	}
	for i := range random {
		for _, image := range []vfstest.Image{vfstest.Prefix, vfstest.Torn, vfstest.Random} {
			keep := -1
			if i == 0 {
				keep = max(0, fs.Pending()-1)
			}
			out = append(out, fs.Crash(vfstest.Crash{Image: image, Keep: keep, Rand: rnd}))
		}
	}
	return out
}

// survives opens an image of a crash and checks what it finds. With nested
// the recovery is crashed at each of its own boundaries as well.
func survives(image *vfstest.Mem, m *model, rnd *rand.Rand, nested bool) error {
	var inner error
	if nested {
		image.Inject(func(op vfstest.Op) error {
			if op.Changes() && inner == nil {
				for _, again := range crashImages(image, rnd, 1) {
					if inner = survives(again, m, rnd, false); inner != nil {
						inner = fmt.Errorf("crash in recovery before %q: %w", op, inner)
						break
					}
				}
			}
			return nil
		})
	}
	v, _, err := openView(image)
	image.Inject(nil)
	if inner != nil {
		return inner
	}
	if errors.Is(err, ErrNotFound) && !m.created {
		return nil
	}
	if err != nil {
		return err
	}
	if err := m.allows(v); err != nil {
		return err
	}
	return continues(image, v)
}

// continues proves that what was recovered is durable at once, and that the
// log takes more.
func continues(image *vfstest.Mem, v view) error {
	found, _, err := openView(image.Crash(vfstest.Crash{Image: vfstest.Nothing}))
	if err != nil {
		return fmt.Errorf("after a second power loss: %w", err)
	}
	if !found.same(v) || found.hs != v.hs {
		return fmt.Errorf("after a second power loss: %s, was %s", found, v)
	}
	cfg := testConfig(image)
	l, r, err := Open(cfg)
	if err != nil {
		return fmt.Errorf("second open: %w", err)
	}
	m := &model{log: l, created: true, states: []view{v}}
	if err := m.append(makeEntries(r.Last.Index+1, max(r.Last.Term, v.hs.Term)+1, 3, 700), nil); err != nil {
		return err
	}
	if err := m.sync(); err != nil {
		return err
	}
	if found, _, err = openView(image.Crash(vfstest.Crash{Image: vfstest.Nothing})); err != nil {
		return fmt.Errorf("after going on: %w", err)
	}
	if !found.same(m.now()) {
		return fmt.Errorf("went on to %s, found %s", m.now(), found)
	}
	return m.reopen(cfg)
}

func TestACrashAtAnyBoundaryLosesNothingSyncedAndInventsNothing(t *testing.T) {
	total := 0
	nestedEach := 7 // One image in so many is crashed again during recovery.
	if testing.Short() {
		nestedEach = 29
	}
	for _, w := range workloads() {
		t.Run(w.name, func(t *testing.T) {
			rnd := seededRand(t, 1)
			fs := newMem(t)
			m := &model{}
			boundary := 0
			fs.Inject(func(op vfstest.Op) error {
				if !op.Changes() || t.Failed() {
					return nil
				}
				if boundary++; boundary%quick.Stride() != 0 {
					return nil
				}
				for i, image := range crashImages(fs, rnd, *imagesFlag) {
					total++
					if err := survives(image, m, rnd, i%nestedEach == boundary%nestedEach); err != nil {
						t.Errorf("boundary %d before %q, image %d: %v", boundary, op, i, err)
						return nil
					}
				}
				return nil
			})
			if err := w.run(testConfig(fs), m); err != nil {
				t.Fatal(err)
			}
			fs.Inject(nil)
			for i, image := range crashImages(fs, rnd, 4**imagesFlag) {
				if err := survives(image, m, rnd, true); err != nil {
					t.Fatalf("at the end, image %d: %v", i, err)
				}
			}
		})
	}
	t.Logf("%d images", total)
}
