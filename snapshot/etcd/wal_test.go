package etcd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// facts of a log, for comparison.
func factsOf(l *log) string {
	return fmt.Sprint(l.first, l.places, l.state.GetCommit(), l.state.GetTerm(), l.cluster)
}

func TestAFlippedBitInTheLogIsFoundOrHarmless(t *testing.T) {
	m := newModel()
	_, wal := dataDir(t, m, oneVoter, 12, 12, func(i uint64) []byte { return putRequest("key", "value") })
	folder := filepath.Dir(wal)
	read := func() (string, bool, error) {
		l, err := openLog(vfs.OS(), folder, 1)
		if err != nil {
			return "", false, err
		}
		defer l.close()
		return factsOf(l), l.torn, nil
	}
	want, torn, err := read()
	if err != nil || torn {
		t.Fatal(err, torn)
	}
	whole := readFile(t, wal)
	used := len(whole) - 5000
	last := used - 40 // The newest record, which a power cut may take.
	found := 0
	f, err := os.OpenFile(wal, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at := range used {
		for bit := range 8 {
			if _, err := f.WriteAt([]byte{whole[at] ^ 1<<bit}, int64(at)); err != nil {
				t.Fatal(err)
			}
			got, torn, err := read()
			switch {
			case err != nil:
				if !errors.Is(err, ErrDamaged) {
					t.Fatalf("byte %d, bit %d: %v", at, bit, err)
				}
				found++
			case torn && at >= last:
			case got != want:
				t.Fatalf("byte %d of %d, bit %d: unnoticed, %s instead of %s", at, used, bit, got, want)
			}
		}
		if _, err := f.WriteAt(whole[at:at+1], int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if found < used*8*9/10 {
		t.Fatalf("only %d of %d flips were found", found, used*8)
	}
}

func TestARecordThatLooksTornIsDamageWhenMoreFollows(t *testing.T) {
	for name, harm := range map[string]func(b []byte, from, to int){
		"its sectors":               func(b []byte, from, to int) { clear(b[from+100 : to]) },
		"its sectors and beginning": func(b []byte, from, to int) { clear(b[from+100 : to]); b[from+9] = 0xff },
	} {
		l := newLogFile(0)
		l.entry(t, 1, 1, []byte("some data"))
		from := len(l.b)
		l.entry(t, 2, 1, bytes.Repeat([]byte{7}, 4000))
		to := len(l.b)
		l.entry(t, 3, 1, []byte("some data"))
		harm(l.b, from, to)
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "0000000000000000-0000000000000000.wal"), l.b)
		if _, err := openLog(vfs.OS(), dir, 1); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAWriteThatAPowerCutEndedIsLeftOut(t *testing.T) {
	l := newLogFile(0)
	for i := uint64(1); i <= 3; i++ {
		l.entry(t, i, 1, []byte("some data"))
	}
	l.state(3, 1)
	before := len(l.b)
	l.entry(t, 4, 1, bytes.Repeat([]byte{7}, 4000))
	for _, c := range []struct {
		name string
		harm func(b []byte) []byte
		torn bool
	}{
		{"its later sectors were never written", func(b []byte) []byte {
			clear(b[before+100:])
			return append(b, make([]byte, 9000)...)
		}, true},
		{"the file ends within it", func(b []byte) []byte { return b[:len(b)-700] }, true},
		{"nothing of it was written", func(b []byte) []byte { clear(b[before:]); return b }, false},
	} {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "0000000000000000-0000000000000000.wal"), c.harm(slices.Clone(l.b)))
		got, err := openLog(vfs.OS(), dir, 1)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got.last() != 3 || got.torn != c.torn {
			t.Errorf("%s: last entry %d, torn %v", c.name, got.last(), got.torn)
		}
		got.close()
	}
}
