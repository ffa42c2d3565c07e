package mvcc

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

// crashImage is what a power loss would leave at one moment: some of what
// history had not synced, and base as of its last commit.
type crashImage struct {
	mem  *vfstest.Mem
	base []byte
	what string

	damaged bool // The newest meta page of base.
}

// crashRun is one member that notes images of itself while it works.
type crashRun struct {
	t      *testing.T
	r      *rand.Rand
	cfg    Config
	mem    *vfstest.Mem
	images []crashImage
	log    []logEntry
	models map[ident.Index]*model
}

func newCrashRun(t *testing.T, r *rand.Rand) *crashRun {
	c := &crashRun{t: t, r: r, mem: vfstest.NewMem(), models: map[ident.Index]*model{0: newModel()}}
	c.cfg = diskConfig(t)
	c.cfg.mergeKeys = 1 + r.IntN(10) // Crashes amid a merge are what rule 1 is about.
	c.cfg.FS, c.cfg.BaseFS, c.cfg.BaseDir, c.cfg.Dir = c.mem, vfs.OS(), c.cfg.Dir, "/member/gen"
	if err := c.mem.MkdirAll(c.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/", "/member"} { // What package datadir does.
		if err := c.mem.SyncDir(dir); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// watch notes an image before one in so many operations on history's files.
func (c *crashRun) watch(oneIn int) {
	c.mem.Inject(func(op vfstest.Op) error {
		if c.r.IntN(oneIn) == 0 {
			c.note(op.String())
		}
		return nil
	})
}

func (c *crashRun) note(what string) {
	base, err := os.ReadFile(filepath.Join(c.cfg.BaseDir, baseName))
	if err != nil {
		c.t.Fatal(err)
	}
	damaged := c.r.IntN(3) == 0
	if damaged {
		what += ", newest meta page damaged"
		damageNewestMeta(base)
	}
	image := vfstest.Images[c.r.IntN(len(vfstest.Images))]
	c.images = append(c.images, crashImage{c.mem.Crash(vfstest.Crash{Image: image, Keep: -1, Rand: c.r}), base, what + ", " + image.String(), damaged})
}

// damageNewestMeta makes bbolt fall back to the meta page before, as a torn
// write of it does.
func damageNewestMeta(base []byte) {
	const page, txid = 4096, 16 + 48 // bbolt: a header, then the transaction behind 48 bytes of meta.
	first, second := binary.LittleEndian.Uint64(base[txid:]), binary.LittleEndian.Uint64(base[page+txid:])
	switch {
	case max(first, second) <= 3: // There is no checkpoint before.
	case first > second:
		base[txid+1] ^= 1
	default:
		base[page+txid+1] ^= 1
	}
}

// reopen opens the store that an image leaves, and returns its configuration.
func (c *crashRun) reopen(image crashImage) (*Store, Config) {
	cfg := c.cfg
	cfg.FS, cfg.BaseDir = image.mem, c.t.TempDir()
	if err := os.WriteFile(filepath.Join(cfg.BaseDir, baseName), image.base, 0o600); err != nil {
		c.t.Fatal(err)
	}
	s, err := Open(cfg)
	if err != nil {
		c.t.Fatalf("open after a crash before %s: %v", image.what, err)
	}
	return s, cfg
}

// recovers proves that an image holds some checkpoint, exactly, and that the
// log leads from there to the end.
func (c *crashRun) recovers(image crashImage, last *model) {
	c.t.Helper()
	s, cfg := c.reopen(image)
	if c.r.IntN(2) == 0 { // A crash again, before, while or after it goes on.
		for range c.r.IntN(6) {
			if _, err := s.Step(); err != nil {
				c.t.Fatal(err)
			}
		}
		base, err := os.ReadFile(filepath.Join(cfg.BaseDir, baseName))
		if err != nil {
			c.t.Fatal(err)
		}
		if !image.damaged && c.r.IntN(2) == 0 {
			damageNewestMeta(base)
		}
		again := crashImage{image.mem.Crash(vfstest.Crash{Image: vfstest.Random, Rand: c.r}), base, "recovery after " + image.what, true}
		mustClose(c.t, s)
		s, _ = c.reopen(again)
	}
	at := s.Applied().Position.Index
	m, ok := c.models[at]
	if !ok {
		c.t.Fatalf("crash before %s: recovered to entry %d, which nobody applied", image.what, at)
	}
	checkAll(c.t, s, m)
	for i := range c.log {
		if c.log[i].index <= at {
			continue
		}
		if err := c.log[i].apply(s); err != nil {
			c.t.Fatal(err)
		}
		if c.r.IntN(4) == 0 {
			if _, err := s.Step(); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	checkAll(c.t, s, last)
	stepAll(c.t, s)
	checkAll(c.t, s, last)
	if report, err := s.Base().Verify(context.Background(), nil); err != nil {
		c.t.Fatalf("crash before %s: base: %v, %+v", image.what, err, report)
	}
	mustClose(c.t, s)
}

func TestACrashAnywhereLeavesACheckpointFromWhichTheLogLeadsOn(t *testing.T) {
	forSeeds(t, func(t *testing.T, r *rand.Rand) {
		c, sc, m := newCrashRun(t, r), newScript(r), newModel()
		s := mustCreate(t, c.cfg)
		c.watch(15)
		for range 50 {
			sc.head = m.head
			e := sc.entry()
			c.log = append(c.log, e)
			m.apply(&e)
			c.models[e.index] = m.clone()
			if err := e.apply(s); err != nil {
				t.Fatal(err)
			}
			switch r.IntN(8) {
			case 0:
				s.mu.asked++
			case 1, 2, 3:
				if _, err := s.Step(); err != nil {
					t.Fatal(err)
				}
				if r.IntN(8) == 0 {
					c.note("a step's end")
				}
			}
		}
		stepAll(t, s)
		c.note("the end")
		mustClose(t, s)
		r.Shuffle(len(c.images), func(i, j int) { c.images[i], c.images[j] = c.images[j], c.images[i] })
		for _, image := range c.images[:min(len(c.images), 4)] {
			c.recovers(image, m)
		}
	})
}
