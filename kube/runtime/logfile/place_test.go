package logfile

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// reading is what a read that was told places has written.
func reading(t *testing.T, path string, o Options) (text string, places []Place, ends []int) {
	t.Helper()
	var out bytes.Buffer
	from := Source{Path: path, Clock: restless{clock.Real()}, Reached: func(of string, at Place) error {
		if of != path {
			t.Errorf("told of %s", of)
		}
		places, ends = append(places, at), append(ends, out.Len())
		return nil
	}}
	o.Follow = true
	if err := Read(t.Context(), from, o, &out); err != nil {
		t.Fatal(err)
	}
	return out.String(), places, ends
}

// manyLines writes lines of all sorts, whole and in parts, over files of 100 to 300 KB.
func manyLines(t *testing.T, random *rand.Rand, path string) {
	t.Helper()
	w := &rotating{t: t, path: path}
	defer w.close()
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 3 {
		var text []byte
		for size := 100_000 + random.IntN(200_000); len(text) < size; {
			if random.IntN(3) > 0 { // Many lines have the same time, and some an earlier one.
				at = at.Add(time.Duration(random.IntN(5)-1) * time.Second)
			}
			stream := []string{Stdout, Stderr}[random.IntN(2)]
			text = appendLine(text, at, stream, random.IntN(4) > 0, []byte(strings.Repeat("same", random.IntN(100))))
		}
		w.write(string(text))
		w.rotate()
	}
	w.write("2031-01-01T00:00:00Z stdout F last\n")
}

func TestALogGoesOnFromAPlaceByteForByte(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	path := Path(t.TempDir(), 0)
	manyLines(t, random, path)
	for _, o := range []Options{{Tail: -1}, {Tail: -1, Timestamps: true}, {Tail: 1000}, {Tail: -1, Since: time.Date(2030, 1, 1, 0, 20, 0, 0, time.UTC)}} {
		text, places, ends := reading(t, path, o)
		if len(places) < 3 {
			t.Errorf("%+v: %d places of %d bytes", o, len(places), len(text))
		}
		for i := range places {
			again := o
			again.After, again.Tail, again.Since = &places[i], 1, time.Time{}
			rest, told, at := reading(t, path, again)
			if rest != text[ends[i]:] {
				t.Errorf("%+v: after %d of %d bytes come %d", o, ends[i], len(text), len(rest))
			}
			if told[0] != places[i] || at[0] != 0 {
				t.Errorf("%+v: asked to go on from %+v, it goes on from %+v", o, places[i], told[0])
			}
		}
	}
}

func TestAPlaceIsFoundAfterARotationOrElseTheOldestLineThereIs(t *testing.T) {
	path := Path(t.TempDir(), 0)
	w := &rotating{t: t, path: path}
	w.write("2030-01-01T00:00:00Z stdout F one\n2030-01-01T00:00:00Z stdout P t")
	_, places, _ := reading(t, path, Options{Tail: 1})
	at := places[len(places)-1]
	w.write("w\n2030-01-01T00:00:00Z stdout F o\n")
	w.rotate()
	w.write("2030-01-01T00:00:00Z stdout F three\n")
	w.close()
	if text, _, _ := reading(t, path, Options{After: &at}); text != "two\nthree\n" {
		t.Errorf("after a rotation: %q", text)
	}
	// The file is gone, and its inode is that of another.
	old := at
	old.File = strings.Replace(at.File, "2030", "2029", 1)
	text, told, _ := reading(t, path, Options{After: &old})
	if text != "one\ntwo\nthree\n" || told[0] == old {
		t.Errorf("of a file that is gone: %q, %+v", text, told[0])
	}
	beyond := at
	beyond.Offset = 1 << 40
	if text, told, _ := reading(t, path, Options{After: &beyond}); text != "one\ntwo\nthree\n" || told[0] == beyond {
		t.Errorf("beyond the end: %q, %+v", text, told[0])
	}
}

func TestThePlaceInALogWithoutALineIsItsStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, places, _ := reading(t, path, Options{Tail: 0})
	w := &rotating{t: t, path: path}
	w.write(fmt.Sprintln("2030-01-01T00:00:00Z stdout F one"))
	w.close()
	if text, told, _ := reading(t, path, Options{After: &places[0]}); text != "one\n" || told[0] != places[0] {
		t.Errorf("%q, %+v", text, told)
	}
}
