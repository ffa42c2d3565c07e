package mvcc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// FuzzRange reads any range, at any revision, with any options, from a store
// whose state lies in base, in tables and in lists, and from the model.
func FuzzRange(f *testing.F) {
	s := newScript(rand.New(rand.NewPCG(7, 8)))
	store, m := mustCreate(f, testConfig(f)), newModel()
	f.Cleanup(func() { store.Close() })
	for i := range 160 {
		e := s.entry()
		m.apply(&e)
		if err := e.apply(store); err != nil {
			f.Fatal(err)
		}
		if i%40 == 20 {
			stepAll(f, store)
		}
	}
	for _, k := range []string{"", "a", s.key(), s.key()} {
		f.Add([]byte(k), []byte{}, int64(0), int64(0), byte(0), byte(0), int64(0), int64(0), int64(0), int64(0))
		f.Add([]byte(k), []byte{0}, int64(m.head), int64(3), byte(1), byte(1), int64(2), int64(0), int64(0), int64(m.head))
		f.Add([]byte(k), []byte(s.key()), int64(m.compacted), int64(1), byte(2), byte(14), int64(0), int64(9), int64(1), int64(0))
	}
	f.Fuzz(func(t *testing.T, key, end []byte, revision, limit int64, order, options byte, minMod, maxMod, minCreate, maxCreate int64) {
		if len(key) == 0 {
			return // Refused before it gets here.
		}
		a := RangeArgs{
			Key: key, End: end, Revision: ident.Revision(revision), Limit: limit,
			SortOrder: SortOrder(order % 3), SortTarget: SortTarget(options >> 2 % 5), CountOnly: options&1 != 0, KeysOnly: options&2 != 0,
			MinMod: ident.Revision(minMod), MaxMod: ident.Revision(maxMod), MinCreate: ident.Revision(minCreate), MaxCreate: ident.Revision(maxCreate),
		}
		v := store.View()
		defer v.Release()
		got, err := v.Range(context.Background(), a)
		want, wantErr := m.read(a, m.head)
		compareRange(t, fmt.Sprintf("%+v", a), got, err, want, wantErr)
	})
}
