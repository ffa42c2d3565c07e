package snapshot

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

func TestKeysOfAFileAreThoseOfTheStoreByRisingKey(t *testing.T) {
	forSeeds(t, func(t *testing.T, r *rand.Rand) {
		s := newStore(t)
		defer closeStore(t, s)
		sc := &script{r: r}
		sc.begin(t, s)
		sc.run(t, s, 10+r.IntN(150))
		path := filepath.Join(t.TempDir(), "file.snap")
		if err := os.WriteFile(path, snapshotOf(t, s, WriteOptions{}), 0o600); err != nil {
			t.Fatal(err)
		}
		scratch := t.TempDir()
		k, err := OpenKeys(t.Context(), vfs.OS(), path, scratch)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for {
			key, kv, err := k.Next()
			if err != nil {
				t.Fatal(err)
			}
			if key == nil {
				break
			}
			got = append(got, string(kv))
		}
		if want := contents(t, s, s.Head())[s.Head()]; !slices.Equal(got, want) {
			t.Fatalf("%d keys, not the %d of the store", len(got), len(want))
		}
		if got, want := len(k.Rows), len(rows(t, s)); got != want {
			t.Fatalf("%d small rows, not %d", got, want)
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(scratch); len(left) != 0 {
			t.Fatalf("%d files are left in the scratch folder", len(left))
		}
	})
}

func TestKeysOfADamagedFileAreRefused(t *testing.T) {
	s := newStore(t)
	defer closeStore(t, s)
	sc := &script{r: rand.New(rand.NewPCG(1, 1))}
	sc.begin(t, s)
	sc.run(t, s, 60)
	whole := snapshotOf(t, s, WriteOptions{})
	for at := 0; at < len(whole); at += 97 {
		b := slices.Clone(whole)
		b[at] ^= 0x10
		path := filepath.Join(t.TempDir(), "file.snap")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := OpenKeys(t.Context(), vfs.OS(), path, t.TempDir())
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotSnapshot) && !errors.Is(err, ErrNewerFormat) {
			t.Fatalf("byte %d of %d flipped: %v", at, len(b), err)
		}
	}
}
