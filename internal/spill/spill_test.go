package spill

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// sorted is all that a sorter gives back, as key=value.
func sorted(t *testing.T, s *Sorter) []string {
	t.Helper()
	it, err := s.Sorted()
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	var got []string
	for {
		key, value, ok, err := it.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return got
		}
		got = append(got, fmt.Sprintf("%s=%s", key, value))
	}
}

func TestTheLastOfEqualKeysStaysInWhateverRunItIs(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := New(Config{FS: vfs.OS(), Dir: t.TempDir(), MemoryBytes: 200 + r.IntN(4000)})
		want := map[string]string{}
		for i := range 500 {
			key, value := fmt.Sprintf("k%03d", r.IntN(200)), strings.Repeat("v", r.IntN(90))+fmt.Sprint(i)
			want[key] = value
			if err := s.Add([]byte(key), []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		var list []string
		for k, v := range want {
			list = append(list, k+"="+v)
		}
		slices.Sort(list)
		if got := sorted(t, s); !slices.Equal(got, list) {
			t.Fatalf("seed %d: got\n%q\nwant\n%q", seed, got, list)
		}
		if len(s.runs) == 0 {
			t.Fatalf("seed %d: nothing was spilled", seed)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(s.cfg.Dir); len(left) != 0 {
			t.Fatalf("seed %d: %d files are left", seed, len(left))
		}
	}
}

func TestARecordLargerThanMemoryAndTheBufferIsSorted(t *testing.T) {
	s := New(Config{FS: vfs.OS(), Dir: t.TempDir(), MemoryBytes: 100})
	large := strings.Repeat("x", 3*bufferBytes)
	for _, key := range []string{"c", "a", "b", ""} {
		if err := s.Add([]byte(key), []byte(large+key)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := sorted(t, s), []string{"=" + large, "a=" + large + "a", "b=" + large + "b", "c=" + large + "c"}; !slices.Equal(got, want) {
		t.Fatalf("%d records are not the ones that were added", len(got))
	}
}

func TestADamagedRunIsNoticed(t *testing.T) {
	for _, harm := range []struct {
		name string
		do   func(b []byte) []byte
	}{
		{"flipped", func(b []byte) []byte { b[len(b)/2] ^= 4; return b }},
		{"cut", func(b []byte) []byte { return b[:len(b)-3] }},
	} {
		dir := t.TempDir()
		s := New(Config{FS: vfs.OS(), Dir: dir, MemoryBytes: 100})
		for i := range 20 {
			if err := s.Add(fmt.Appendf(nil, "key%d", i), []byte("some value")); err != nil {
				t.Fatal(err)
			}
		}
		name := filepath.Join(dir, "run-000000")
		b, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(name, harm.do(b), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		it, err := s.Sorted()
		for ok := true; ok && err == nil; {
			_, _, ok, err = it.Next()
		}
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", harm.name, err)
		}
		it.Close()
	}
}
