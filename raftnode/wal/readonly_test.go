package wal

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

// flipped returns a log with one bit of a segment flipped, in half of all cases
// without the file that tells damage from a torn tail.
func flipped(t *testing.T, fs *vfstest.Mem, rnd *rand.Rand) *vfstest.Mem {
	t.Helper()
	image := fs.Crash(vfstest.Crash{Image: vfstest.Everything})
	names, err := image.List(testDir)
	must(t, err)
	var segments []string
	for _, name := range names {
		if strings.HasSuffix(name, segmentSuffix) {
			segments = append(segments, testDir+"/"+name)
		}
	}
	if rnd.IntN(2) == 0 {
		must(t, image.Remove(testDir+"/"+markFileName))
		segments = segments[len(segments)-1:]
	}
	must(t, image.Flip(segments[rnd.IntN(len(segments))], headerBytes+rnd.Int64N(1500), uint(rnd.IntN(8))))
	return image
}

func TestALogThatIsOpenedToReadTellsWhatOpenFindsAndStaysAsItIs(t *testing.T) {
	cuts, whole := 0, 0
	for _, w := range workloads() {
		t.Run(w.name, func(t *testing.T) {
			rnd := seededRand(t, 7)
			fs := newMem(t)
			must(t, w.run(testConfig(fs), &model{}))
			for range 40 {
				image := flipped(t, fs, rnd)
				image.Record()
				l, seen, err := OpenRead(testConfig(image))
				if changes := image.Transcript(); changes != "" {
					t.Fatalf("reading made changes:\n%s", changes)
				}
				_, r, openErr := openView(image)
				if (err == nil) != (openErr == nil) {
					t.Fatalf("read %v, open %v", err, openErr)
				}
				if err != nil {
					continue
				}
				whole++
				if seen.Last != r.Last || seen.Start != r.Start || seen.HardState != r.HardState || (seen.Cut == nil) != (r.Cut == nil) {
					t.Errorf("read %+v, open %+v", seen, r)
				}
				if seen.Cut != nil {
					cuts++
				}
				if n := int(seen.Last.Index - seen.Start.Index); n > 0 {
					got, err := l.Entries(seen.Start.Index+1, seen.Last.Index+1, 1<<30)
					if err != nil || len(got) != n {
						t.Errorf("%d entries of %d, %v", len(got), n, err)
					}
				}
				if err := l.Append(nil, &seen.HardState); !errors.Is(err, ErrReadOnly) {
					t.Errorf("append: %v", err)
				}
				must(t, l.Close())
			}
		})
	}
	t.Logf("%d logs opened, %d with a torn tail", whole, cuts)
	if cuts == 0 || whole == cuts {
		t.Error("too little happened")
	}
}
