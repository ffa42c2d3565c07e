package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// folder makes files of a log: by name, with their text.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	oldest = "2030-01-01T00:00:00.1Z stdout F one\n2030-01-01T00:00:01Z stderr F two\n"
	middle = "2030-01-01T00:00:02Z stdout F three\n2030-01-01T00:00:03Z stdout P fo\n"
	newest = "2030-01-01T00:00:03.5Z stdout F ur\n2030-01-01T00:00:04Z stdout F \n2030-01-01T01:00:05+01:00 stdout F six\n"
)

func TestALogIsReadOverItsRotatedFilesAsAskedFor(t *testing.T) {
	dir := folder(t, map[string]string{
		"0.log.2": oldest, "0.log.1": middle, "0.log": newest, "1.log": "",
		"cut.log":  "2030-01-01T00:00:00Z stdout F whole\n2030-01-01T00:00:01Z stdout F cut of",
		"goes.log": "2030-01-01T00:00:00Z stdout F a\n2030-01-01T00:00:01Z stdout P b\n",
		"odd.log":  "a line of another form\n2030-01-01T00:00:01Z stdout F:x ok\n2030-01-01T00:00:02Z stdin F no\n2030 stdout F no\n2030-01-01T00:00:01Z stdout F\n",
		"two.log":  "2030-01-01T00:00:00Z stdout P a\n2030-01-01T00:00:01Z stderr F b\n2030-01-01T00:00:02Z stdout F c\n",
	})
	at := func(s int64) time.Time { return time.Unix(1893456000+s, 0) }
	for _, c := range []struct {
		log  string
		o    Options
		want string
	}{
		{"0.log", Options{Tail: -1}, "one\ntwo\nthree\nfour\n\nsix\n"},
		{"0.log", Options{Tail: 0}, ""},
		{"0.log", Options{Tail: 1}, "six\n"},
		{"0.log", Options{Tail: 2}, "\nsix\n"},
		{"0.log", Options{Tail: 3}, "four\n\nsix\n"},
		{"0.log", Options{Tail: 4}, "three\nfour\n\nsix\n"},
		{"0.log", Options{Tail: 5}, "two\nthree\nfour\n\nsix\n"},
		{"0.log", Options{Tail: 6}, "one\ntwo\nthree\nfour\n\nsix\n"},
		{"0.log", Options{Tail: 1 << 40}, "one\ntwo\nthree\nfour\n\nsix\n"},
		{"0.log", Options{Tail: -1, Since: at(2)}, "three\nfour\n\nsix\n"},
		{"0.log", Options{Tail: 2, Since: at(2)}, "\nsix\n"},
		{"0.log", Options{Tail: 5, Since: at(5)}, "six\n"},
		{"0.log", Options{Tail: -1, Since: at(6)}, ""},
		{"0.log", Options{Tail: 3, Timestamps: true}, "2030-01-01T00:00:03Z four\n2030-01-01T00:00:04Z \n2030-01-01T01:00:05+01:00 six\n"},
		{"0.log", Options{Tail: -1, BytesMax: 6}, "one\ntw"},
		{"0.log", Options{Tail: -1, BytesMax: 4}, "one\n"},
		{"0.log", Options{Tail: -1, BytesMax: 1000}, "one\ntwo\nthree\nfour\n\nsix\n"},
		{"1.log", Options{Tail: -1}, ""},
		{"1.log", Options{Tail: 3}, ""},
		{"cut.log", Options{Tail: -1}, "whole\ncut of\n"},
		{"cut.log", Options{Tail: 1}, "cut of\n"},
		{"goes.log", Options{Tail: -1}, "a\nb"},
		{"goes.log", Options{Tail: 1}, "b"},
		{"goes.log", Options{Tail: 2}, "a\nb"},
		{"odd.log", Options{Tail: -1}, "a line of another form\nok\n2030-01-01T00:00:02Z stdin F no\n2030 stdout F no\n\n"},
		{"two.log", Options{Tail: -1}, "a\nb\nc\n"},
	} {
		var out bytes.Buffer
		err := Read(t.Context(), Source{Path: filepath.Join(dir, c.log), Clock: clock.Real()}, c.o, &out)
		if err != nil || out.String() != c.want {
			t.Errorf("%s, %+v: %q, %v, want %q", c.log, c.o, &out, err, c.want)
		}
	}
	err := Read(t.Context(), Source{Path: filepath.Join(dir, "9.log"), Clock: clock.Real()}, Options{Tail: -1}, &bytes.Buffer{})
	if !errors.Is(err, ErrNone) {
		t.Errorf("a log that is not there: %v", err)
	}
	all, err := Attempts(dir)
	if err != nil || !slices.Equal(all, []int{0, 1}) || Path(dir, 1) != filepath.Join(dir, "1.log") {
		t.Errorf("attempts are %v, %v", all, err)
	}
	if all, err := Attempts(filepath.Join(dir, "nowhere")); err != nil || len(all) != 0 {
		t.Errorf("attempts of nothing are %v, %v", all, err)
	}
}

// restless is a clock by which nobody waits.
type restless struct{ clock.Clock }

func (restless) After(time.Duration) <-chan time.Time {
	c := make(chan time.Time, 1)
	c <- time.Time{}
	return c
}

// read is what was read so far.
type read struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *read) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *read) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// has waits until something was read.
func (r *read) has(t *testing.T, text string) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !strings.Contains(r.String(), text); {
		if time.Now().After(limit) {
			t.Fatalf("%q was not read, but %q", text, r)
		}
	}
}

// rotating writes a log of three files, as slowly as it is read.
type rotating struct {
	t    *testing.T
	path string
	file *os.File
}

func (w *rotating) write(text string) {
	w.t.Helper()
	if w.file == nil {
		f, err := os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			w.t.Fatal(err)
		}
		w.file = f
	}
	if _, err := w.file.WriteString(text); err != nil {
		w.t.Fatal(err)
	}
}

func (w *rotating) rotate() {
	w.t.Helper()
	_ = os.Rename(w.path+".1", w.path+".2") // There may be none.
	if err := os.Rename(w.path, w.path+".1"); err != nil {
		w.t.Fatal(err)
	}
	w.close()
}

func (w *rotating) close() {
	if w.file != nil {
		w.file.Close()
	}
	w.file = nil
}

func TestALogIsFollowedOverItsRotationsAndAttempts(t *testing.T) {
	dir := t.TempDir()
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	var ended [2]atomic.Bool
	var got read
	done := make(chan error, 1)
	go func() {
		done <- Read(t.Context(), Source{
			Path: Path(dir, 0), Clock: restless{clock.Real()},
			Ended: func(path string) bool { return path == Path(dir, 0) && ended[0].Load() || ended[1].Load() },
			Next: func(_ context.Context, path string) (string, error) {
				if path == Path(dir, 0) {
					return Path(dir, 1), nil
				}
				return "", nil
			},
		}, Options{Tail: -1, Follow: true}, &got)
	}()
	var want strings.Builder
	for attempt := range 2 {
		w := &rotating{t: t, path: Path(dir, attempt)}
		unread := 0 // Rotations that the reader may not have seen.
		for i := range 300 {
			line := fmt.Sprintf("attempt %d line %d", attempt, i)
			want.WriteString(line + "\n")
			text := "2030-01-01T00:00:00Z stdout F " + line + "\n"
			cut := random.IntN(len(text))
			w.write(text[:cut]) // Not all in one.
			w.write(text[cut:])
			if random.IntN(4) == 0 {
				if unread == 2 {
					got.has(t, line+"\n")
					unread = 0
				}
				w.rotate()
				unread++
			}
		}
		w.close()
		ended[attempt].Store(true)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	are, should := strings.Split(got.String(), "\n"), strings.Split(want.String(), "\n")
	for i := range max(len(are), len(should)) {
		if i >= len(are) || i >= len(should) || are[i] != should[i] {
			t.Fatalf("line %d of %d read, %d written:\n%q\n%q", i, len(are), len(should), are[max(0, min(i-2, len(are))):min(i+3, len(are))], should[max(0, i-2):min(i+3, len(should))])
		}
	}
}

func TestWhoFollowsALogThatIsNotThereYetGetsItAndEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var got read
	done := make(chan error, 1)
	go func() {
		done <- Read(ctx, Source{Path: Path(dir, 0), Clock: restless{clock.Real()}, Ended: func(string) bool { return false }}, Options{Tail: 10, Follow: true}, &got)
	}()
	w := &rotating{t: t, path: Path(dir, 0)}
	w.write("2030-01-01T00:00:00Z stdout F first\n")
	got.has(t, "first\n")
	w.write("2030-01-01T00:00:00Z stdout P half")
	w.write("\n2030-01-01T00:00:00Z stdout F a line\n")
	got.has(t, "first\nhalfa line\n")
	w.close()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// How long does it take to find the last lines of a log of the usual size?
func BenchmarkTailOfTenMegabytes(b *testing.B) {
	line := "2030-01-01T00:00:00.123456789Z stdout F " + strings.Repeat("x", 80) + "\n"
	path := filepath.Join(b.TempDir(), "0.log")
	if err := os.WriteFile(path, bytes.Repeat([]byte(line), 10<<20/len(line)), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := Read(b.Context(), Source{Path: path, Clock: clock.Real()}, Options{Tail: 10}, &bytes.Buffer{}); err != nil {
			b.Fatal(err)
		}
	}
}
