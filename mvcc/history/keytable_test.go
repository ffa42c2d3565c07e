package history

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sort"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// randomVersions makes versions of a key, some keys with very many.
func randomVersions(rng *rand.Rand, segment uint64) []Version {
	n := 1
	if rng.IntN(3) == 0 {
		n += rng.IntN(4 * runVersions)
	}
	mod := ident.Revision(0)
	var versions []Version
	for range n {
		mod += ident.Revision(rng.Int64N(1 << rng.IntN(20)))
		mod = max(mod, 1)
		if rng.IntN(4) == 0 {
			versions = append(versions, Version{Mod: mod, Tombstone: true})
			continue
		}
		v := Version{
			Mod: mod, Create: 1 + ident.Revision(rng.Int64N(int64(mod))), Version: 1 + rng.Int64N(1<<rng.IntN(40)),
			Loc: Loc{Segment: segment, Offset: rng.Uint32(), Length: rng.Uint32N(1 << 20)},
		}
		if rng.IntN(2) == 0 {
			v.Lease = ident.LeaseID(rng.Uint64() | 1)
		}
		versions = append(versions, v)
	}
	return versions
}

func randomContent(rng *rand.Rand, segment uint64) map[string][]Version {
	content := make(map[string][]Version)
	for range rng.IntN(200) {
		key := fmt.Sprintf("%0*d", 1+rng.IntN(6), rng.IntN(1000))
		if rng.IntN(10) == 0 {
			key = string(append([]byte(key), make([]byte, rng.IntN(300))...))
		}
		content[key] = randomVersions(rng, segment)
	}
	return content
}

func tableOf(t testing.TB, content map[string][]Version, segment uint64) (*KeyTable, []string) {
	t.Helper()
	keys := make([]string, 0, len(content))
	for key := range content {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	b := NewKeyTableBuilder(segment)
	for _, key := range keys {
		if err := b.Add([]byte(key), content[key]); err != nil {
			t.Fatal(err)
		}
	}
	return b.Finish(), keys
}

func TestAKeyTableIsASortedMap(t *testing.T) {
	for seed := range uint64(*seeds) * 10 {
		rng := rand.New(rand.NewPCG(seed, 3))
		content := randomContent(rng, 9)
		built, keys := tableOf(t, content, 9)
		table, err := decodeKeyTable(bytes.Clone(built.data))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if table.Len() != len(keys) || table.Segment() != 9 {
			t.Fatalf("seed %d: %d keys of segment %d", seed, table.Len(), table.Segment())
		}
		versions := 0
		at := 0
		_ = table.Each(func(key []byte, got []Version) error {
			if string(key) != keys[at] || !reflect.DeepEqual(got, content[keys[at]]) {
				t.Fatalf("seed %d: key %q has %v, want %q with %v", seed, key, got, keys[at], content[keys[at]])
			}
			versions += len(got)
			at++
			return nil
		})
		if at != len(keys) || versions != table.Versions() {
			t.Fatalf("seed %d: %d keys with %d versions, want %d with %d", seed, at, versions, len(keys), table.Versions())
		}
		for range 300 {
			checkLookup(t, seed, rng, table, keys, content)
		}
	}
}

// checkLookup looks for a key that may be there, at a revision.
func checkLookup(t *testing.T, seed uint64, rng *rand.Rand, table *KeyTable, keys []string, content map[string][]Version) {
	key := fmt.Sprintf("%0*d", 1+rng.IntN(6), rng.IntN(1000))
	if len(keys) > 0 && rng.IntN(2) == 0 {
		key = keys[rng.IntN(len(keys))]
	}
	rev := ident.Revision(rng.Int64N(1 << rng.IntN(26)))
	var want Version
	for _, v := range content[key] {
		if v.Mod <= rev {
			want = v
		}
	}
	if got, ok := table.Find([]byte(key), rev); ok != (want.Mod > 0) || got != want {
		t.Fatalf("seed %d: %q at %d is %+v, %v, want %+v", seed, key, rev, got, ok, want)
	}
	i := sort.SearchStrings(keys, key)
	it := table.Iter()
	for ok := it.Seek([]byte(key)); ; ok = it.Next() {
		if ok != (i < len(keys)) || ok != it.Valid() {
			t.Fatalf("seed %d: seek %q: %v at %d of %d keys", seed, key, ok, i, len(keys))
		}
		if !ok {
			break
		}
		got, found := it.Find(rev)
		same, sameFound := table.Find([]byte(keys[i]), rev)
		if string(it.Key()) != keys[i] || got != same || found != sameFound {
			t.Fatalf("seed %d: seek %q: %q with %+v, want %q with %+v", seed, key, it.Key(), got, keys[i], same)
		}
		i++
		if rng.IntN(3) == 0 {
			break
		}
	}
}

func TestAKeyTableIsBuiltInOrder(t *testing.T) {
	good := Version{Mod: 5, Create: 5, Version: 1, Loc: Loc{Segment: 1, Offset: 80, Length: 9}}
	with := func(change func(*Version)) []Version {
		v := good
		change(&v)
		return []Version{v}
	}
	cases := map[string]struct {
		key      string
		versions []Version
	}{
		"the same key again":       {"b", []Version{good}},
		"a smaller key":            {"a", []Version{good}},
		"no versions":              {"c", nil},
		"an older version later":   {"c", append([]Version{good}, with(func(v *Version) { v.Mod, v.Create = 4, 4 })...)},
		"another segment":          {"c", with(func(v *Version) { v.Loc.Segment = 2 })},
		"no revision":              {"c", with(func(v *Version) { v.Mod = 0 })},
		"created later":            {"c", with(func(v *Version) { v.Create = 6 })},
		"version zero":             {"c", with(func(v *Version) { v.Version = 0 })},
		"a tombstone with a value": {"c", with(func(v *Version) { v.Tombstone = true })},
	}
	for name, c := range cases {
		b := NewKeyTableBuilder(1)
		if err := b.Add([]byte("b"), []Version{good}); err != nil {
			t.Fatal(err)
		}
		if err := b.Add([]byte(c.key), c.versions); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := NewKeyTableBuilder(1).Add(nil, []Version{good}); !errors.Is(err, ErrInvalid) {
		t.Errorf("an empty key: %v", err)
	}
}

func TestAKeyTableWithoutKeysIsEmpty(t *testing.T) {
	table, err := decodeKeyTable(NewKeyTableBuilder(4).Finish().data)
	if err != nil {
		t.Fatal(err)
	}
	it := table.Iter()
	if _, ok := table.Find([]byte("a"), 9); ok || it.First() || it.Seek([]byte("a")) || it.Valid() || table.Len() != 0 {
		t.Error("something was found")
	}
}

func TestEveryBitOfAKeyTableCounts(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 3))
	content := make(map[string][]Version)
	for i := range 20 {
		content[fmt.Sprint(i)] = randomVersions(rng, 5)
	}
	table, _ := tableOf(t, content, 5)
	data := table.data
	for i := range len(data) * 8 {
		bad := slices.Clone(data)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := decodeKeyTable(bad); !errors.Is(err, ErrMalformed) {
			t.Fatalf("bit %d was turned over: %v", i, err)
		}
	}
	for n := range len(data) {
		if _, err := decodeKeyTable(data[:n]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}
