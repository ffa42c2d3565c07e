package mvcc

import (
	"bytes"
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// Lists, tables, merged tables, tables of a restart, and what a compaction left
// of them.
func TestTheKeyIndexesKnowEveryChangeSinceM(t *testing.T) {
	found, refused := 0, 0
	forSeeds(t, func(t *testing.T, r *rand.Rand) {
		cfg := testConfig(t)
		cfg.SegmentBytes = 16 << 10
		s := mustCreate(t, cfg)
		m, sc := newModel(), newScript(r)
		for range 60 {
			for range 1 + r.IntN(10) {
				sc.head = m.head
				e := sc.entry()
				if err := e.apply(s); err != nil {
					t.Fatal(err)
				}
				m.apply(&e)
			}
			if r.IntN(3) == 0 {
				stepAll(t, s)
			}
			if r.IntN(20) == 0 {
				if err := s.checkpoint(); err != nil {
					t.Fatal(err)
				}
				mustClose(t, s)
				s = mustOpen(t, cfg)
			}
			for range 5 {
				n, ok := checkChanges(t, r, sc, s, m)
				found += n
				if !ok {
					refused++
				}
			}
		}
		mustClose(t, s)
	})
	if found == 0 || refused == 0 {
		t.Errorf("%d changes found, %d times refused", found, refused)
	}
}

func checkChanges(t *testing.T, r *rand.Rand, sc *script, s *Store, m *model) (found int, ok bool) {
	t.Helper()
	v := s.View()
	defer v.Release()
	a := &ChangesArgs{Key: []byte(sc.key()), From: ident.Revision(r.Int64N(int64(m.head) + 3)), Enough: 1 + r.IntN(200), Max: 1 << 20, VisitsMax: 1 << 20}
	switch r.IntN(3) {
	case 0:
		a.End = []byte{0}
	case 1:
		a.End = append(bytes.Clone(a.Key), 0xff)
	}
	c, ok := v.Changes(a)
	if ok != (a.From > v.Merged()) {
		t.Fatalf("changes from %d, merged through %d: %v", a.From, v.Merged(), ok)
	}
	if !ok {
		return 0, false
	}
	if len(c.List) < a.Enough && c.Through != m.head {
		t.Fatalf("%d changes up to %d, want %d or the head, %d", len(c.List), c.Through, a.Enough, m.head)
	}
	got := slices.Clone(c.List)
	slices.SortFunc(got, func(x, y Change) int { return cmp.Or(cmp.Compare(x.Mod, y.Mod), bytes.Compare(x.Key, y.Key)) })
	for rev := a.From; rev <= c.Through; rev++ {
		for _, key := range m.in(a.Key, a.End) {
			want, ok := m.version(key, rev)
			if !ok {
				continue
			}
			if len(got) == 0 || string(got[0].Key) != key || got[0].Mod != rev || got[0].Tombstone != want.deleted {
				t.Fatalf("changes of %q to %q from %d up to %d lack %q at %d: %v", a.Key, a.End, a.From, c.Through, key, rev, got)
			}
			checkChange(t, v, &got[0], want)
			got = got[1:]
		}
	}
	if len(got) > 0 || !slices.IsSortedFunc(c.List, func(x, y Change) int { return cmp.Compare(x.Mod, y.Mod) }) {
		t.Fatalf("changes of %q to %q from %d: too many or out of order: %v", a.Key, a.End, a.From, c.List)
	}
	tooMuch := *a
	if tooMuch.VisitsMax = len(c.List) - 1; len(c.List) > 0 {
		if less, ok := v.Changes(&tooMuch); ok && less.Through >= c.Through {
			t.Fatalf("%d changes found with %d visits", len(less.List), tooMuch.VisitsMax)
		}
	}
	return len(c.List), true
}

func checkChange(t *testing.T, v *View, c *Change, want modelVersion) {
	t.Helper()
	if want.deleted {
		return
	}
	kv, err := v.Value(c)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kv, wireOf(want.row)) || c.Create != want.create {
		t.Fatalf("%q at %d: %x, created %d; want %x, created %d", c.Key, c.Mod, kv, c.Create, wireOf(want.row), want.create)
	}
}
