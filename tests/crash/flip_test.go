package crash

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"
)

// Single bits turn over at rest, in files of every kind: found and named, or
// of no consequence, and never a wrong answer.
func TestFlippedBitsAreFoundAndNamed(t *testing.T) {
	perKind := 64
	if *longFlag {
		perKind = 1000
	}
	for _, load := range damageLoads(t, "segments-2", "saves-1", "snapshots-2", "merge-3") {
		t.Run(load.name, func(t *testing.T) {
			t.Parallel()
			p, row := newPatient(t, load, true), flips.row(load.name)
			defer flips.done(row, "flips", time.Now())
			rnd := rand.New(rand.NewPCG(load.seed, 3))
			files := p.files()
			for _, kind := range slices.Sorted(maps.Keys(files)) {
				n := perKind
				if kind == "base.db" {
					n *= 4 // Most of a small one is free.
				}
				for _, path := range files[kind] {
					p.flip(row, kind, path, max(n/len(files[kind]), 8), rnd)
				}
			}
		})
	}
}

// flip turns over bits at places that are spread over all that is written.
func (p *patient) flip(row *row, kind, path string, n int, rnd *rand.Rand) {
	b := p.read(path)
	end := max(written(b), 1)
	for i := range int64(n) {
		low, high := end*i/int64(n), end*(i+1)/int64(n)
		at := low + rnd.Int64N(max(high-low, 1))
		for tries := 0; b[at] == 0 && tries < 20; tries++ { // Rather where something is.
			at = low + rnd.Int64N(max(high-low, 1))
		}
		bit := rnd.IntN(8)
		verdict, err := p.examine(change(path, at, []byte{b[at] ^ 1<<bit}))
		if verdict == harmless && (kind == "wal" || kind == "history" || kind == "key table") {
			verdict = p.inUse(kind, path, at, b[at]^1<<bit)
		}
		p.judge(row, fmt.Sprintf("%s, bit %d of byte %d", path, bit, at), kind, verdict, err)
	}
}

// inUse asks the tools that read whole logs.
func (p *patient) inUse(kind, path string, at int64, with byte) string {
	root := p.dir()
	defer os.RemoveAll(root)
	d, err := p.disk.crash(root, crashNothing, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := change(path, at, []byte{with})(d); err != nil {
		p.t.Fatal(err)
	}
	switch {
	case kind == "key table":
		return rebuilt
	case verifyLogs(d) != nil:
		return onVerify
	}
	return harmless
}
