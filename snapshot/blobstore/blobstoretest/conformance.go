// Package blobstoretest proves that a store keeps the promises of
// blobstore.Store, and lends stores to the tests of what stands above.
//
// Conformance is the suite that all drivers pass. Races are between two
// processes: children that Main makes of the test's own binary. Memory is a
// store without any, S3 a server on this machine, Proxy a bad network before it.
package blobstoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// Place is where a store keeps its objects, empty at first.
type Place struct {
	Open func() blobstore.Store // One more handle; closed by the caller.
	URL  string                 // What other processes open. Empty: nobody else can.
	// Timeout is that of the other processes' configuration.
	Timeout time.Duration
}

// Conformance tests all promises of blobstore.Store, each in a place of its own.
func Conformance(t *testing.T, place func(t *testing.T) Place) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, p Place)
	}{
		{"objects of all sizes are read back whole", wholeObjects},
		{"an object that is too large is refused", tooLarge},
		{"conditions hold, one after the other", conditions},
		{"what is not there is told, and deleted without an error", absences},
		{"ranges end where the object ends", ranges},
		{"a list is in the order of bytes, from any place on", listOrder},
		{"a list of more than a page has all that was written", listPages},
		{"names that are not allowed are refused by all methods", badNames},
		{"a cancelled context ends calls, and nothing is written", cancelled},
		{"the caller's bytes are the caller's", noSharing},
		{"concurrent readers see whole objects only", readers},
		{"lines added by compare and swap are there once each", adding},
		{"of two processes that write where nothing is one wins, 100 times", raceAbsent},
		{"of two processes that replace one object one wins, 100 times", raceMatch},
		{"closing twice is allowed, and leaves the objects", closing},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, place(t)) })
	}
}

// tester has the methods of a store that must not fail.
type tester struct {
	*testing.T
	ctx context.Context
	blobstore.Store
}

func open(t *testing.T, p Place) tester {
	t.Helper()
	s := p.Open()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return tester{T: t, ctx: t.Context(), Store: s}
}

func (t tester) put(name string, data []byte, c blobstore.Condition) blobstore.Tag {
	t.Helper()
	tag, err := t.Put(t.ctx, name, data, c)
	if err != nil {
		t.Fatal(err)
	}
	if tag == "" {
		t.Fatalf("put %s: no tag", name)
	}
	return tag
}

// loses wants a write to be refused by its condition.
func (t tester) loses(name string, c blobstore.Condition) {
	t.Helper()
	if _, err := t.Put(t.ctx, name, []byte("loser"), c); !errors.Is(err, blobstore.ErrCondition) {
		t.Fatalf("put %s, %+v: %v, want ErrCondition", name, c, err)
	}
}

// has wants an object to hold data, as of a tag unless that is empty.
func (t tester) has(name string, data []byte, tag blobstore.Tag) blobstore.Tag {
	t.Helper()
	got, gotTag, err := t.Get(t.ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Fatalf("%s has %d bytes, want %d, or they differ", name, len(got), len(data))
	}
	if tag != "" && gotTag != tag {
		t.Fatalf("%s has tag %q, the write returned %q", name, gotTag, tag)
	}
	return gotTag
}

// lacks wants no object to have a name.
func (t tester) lacks(name string) {
	t.Helper()
	if _, _, err := t.Get(t.ctx, name); !errors.Is(err, blobstore.ErrNotFound) {
		t.Fatalf("get %s: %v, want ErrNotFound", name, err)
	}
}

func (t tester) list(prefix, after string) []string {
	t.Helper()
	names := []string{}
	err := t.List(t.ctx, prefix, after, func(o blobstore.Object) error {
		names = append(names, o.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// noise is bytes that no compression or repetition hides errors in.
func noise(seed uint64, size int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	data := make([]byte, size)
	rand.NewChaCha8(key).Read(data)
	return data
}

func wholeObjects(test *testing.T, p Place) {
	t := open(test, p)
	for i, size := range []int{0, 1, 15, 4096, 100_000, 1<<20 + 1, 5 << 20, 17<<20 + 3, blobstore.MaxObject} {
		if size == blobstore.MaxObject && testing.Short() {
			continue
		}
		name := fmt.Sprintf("sizes/%d", size)
		data := noise(uint64(i), size)
		tag := t.put(name, data, blobstore.Condition{Absent: i%2 == 0})
		t.has(name, data, tag)
		err := t.List(t.ctx, name, "", func(o blobstore.Object) error {
			if o.Name == name && o.Size != int64(size) {
				t.Errorf("%s is listed with %d bytes", name, o.Size)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func tooLarge(test *testing.T, p Place) {
	t := open(test, p)
	if _, err := t.Put(t.ctx, "a", make([]byte, blobstore.MaxObject+1), blobstore.Condition{}); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("got %v", err)
	}
	t.lacks("a")
}

func conditions(test *testing.T, p Place) {
	t := open(test, p)
	one, two, three := []byte("one"), []byte("two"), []byte("three")
	first := t.put("a/b", one, blobstore.Condition{Absent: true})
	t.loses("a/b", blobstore.Condition{Absent: true})
	t.has("a/b", one, first)
	second := t.put("a/b", two, blobstore.Condition{Match: first})
	if second == first {
		t.Fatal("other bytes have the same tag")
	}
	t.loses("a/b", blobstore.Condition{Match: first})
	t.loses("a/b", blobstore.Condition{Match: "0123456789abcdef0123456789abcdef"})
	t.has("a/b", two, second)
	third := t.put("a/b", three, blobstore.Condition{})
	t.loses("a/b", blobstore.Condition{Match: second})
	t.has("a/b", three, third)
	if _, err := t.Put(t.ctx, "a/c", one, blobstore.Condition{Absent: true, Match: third}); err == nil {
		t.Error("two conditions at once were taken")
	}
	if err := t.Delete(t.ctx, "a/b"); err != nil {
		t.Fatal(err)
	}
	t.loses("a/b", blobstore.Condition{Match: third})
	t.lacks("a/b")
	t.put("a/b", two, blobstore.Condition{Absent: true})
}

func absences(test *testing.T, p Place) {
	t := open(test, p)
	t.put("a/b", []byte("x"), blobstore.Condition{})
	for _, name := range []string{"b", "a", "a/b/c", "a/bb", "a/b.", "A/b"} {
		t.lacks(name)
		if _, err := t.GetRange(t.ctx, name, 0, 1); !errors.Is(err, blobstore.ErrNotFound) {
			t.Errorf("range of %s: %v, want ErrNotFound", name, err)
		}
		if _, err := t.GetRange(t.ctx, name, 0, 0); !errors.Is(err, blobstore.ErrNotFound) {
			t.Errorf("empty range of %s: %v, want ErrNotFound", name, err)
		}
		if err := t.Delete(t.ctx, name); err != nil {
			t.Error(err)
		}
	}
	t.has("a/b", []byte("x"), "")
	for range 2 {
		if err := t.Delete(t.ctx, "a/b"); err != nil {
			t.Error(err)
		}
		t.lacks("a/b")
	}
	if got := t.list("", ""); len(got) != 0 {
		t.Errorf("still listed: %q", got)
	}
}

func ranges(test *testing.T, p Place) {
	t := open(test, p)
	data := noise(1, 100_000)
	t.put("full", data, blobstore.Condition{})
	t.put("empty", nil, blobstore.Condition{})
	size := int64(len(data))
	for _, c := range []struct{ offset, length int64 }{
		{0, 0}, {0, 1}, {0, size}, {0, size + 1}, {0, 1 << 62}, {1, 10}, {size - 1, 1}, {size - 1, 100}, {size - 1, 0},
		{size, 0}, {size, 1}, {size + 1, 5}, {1 << 62, 1 << 62}, {50_000, 25_000},
	} {
		from := min(c.offset, size)
		want := data[from : from+min(c.length, size-from)]
		got, err := t.GetRange(t.ctx, "full", c.offset, c.length)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes at %d: got %d, %v, want %d", c.length, c.offset, len(got), err, len(want))
		}
		if got, err := t.GetRange(t.ctx, "empty", c.offset, c.length); err != nil || len(got) != 0 {
			t.Errorf("%d bytes at %d of nothing: got %d, %v", c.length, c.offset, len(got), err)
		}
	}
	for _, c := range []struct{ offset, length int64 }{{-1, 1}, {0, -1}, {-5, -5}} {
		if _, err := t.GetRange(t.ctx, "full", c.offset, c.length); err == nil {
			t.Errorf("%d bytes at %d were read", c.length, c.offset)
		}
	}
}

func listOrder(test *testing.T, p Place) {
	t := open(test, p)
	// Around each folder stand names that sort before and after its slash.
	names := []string{
		"a-/x", "a-b", "a.b", "a/-", "a/b-/c", "a/b/c", "a/b/c.d", "a/b0", "a/b=/c", "a0", "a=/b", "aA/b/c/d/e",
		"B", "_", "z", "tl/1/log/000-001-x.hist", "tl/1/log/002-003-x.hist", "tl/10/log/000", "tl/2/base/1-1/part-00000", "META.json", "..a/b", "a../b",
	}
	for i, name := range names {
		t.put(name, noise(0, i), blobstore.Condition{})
	}
	slices.Sort(names)
	prefixes := []string{"", "a", "a/", "a/b", "a/b/", "a-", "tl/1", "tl/1/log/00", "none", "/", "../", "a//", "./", "a/b/c/"}
	for _, prefix := range prefixes {
		for _, after := range append([]string{"", "a/b", "a/b/", "a0", "tl/1/log/001", "zz", "a/", "a.", "/"}, names...) {
			want := []string{}
			for _, name := range names {
				if strings.HasPrefix(name, prefix) && name > after {
					want = append(want, name)
				}
			}
			if got := t.list(prefix, after); !slices.Equal(got, want) {
				t.Fatalf("prefix %q after %q:\n got %q\nwant %q", prefix, after, got, want)
			}
		}
	}
	enough := errors.New("enough")
	seen := 0
	err := t.List(t.ctx, "", "", func(o blobstore.Object) error {
		if seen++; seen == 5 {
			return enough
		}
		return nil
	})
	if err != enough || seen != 5 {
		t.Errorf("stopped after %d with %v", seen, err)
	}
}

// listPages writes more than the 1000 objects that S3 has in a page, and lists
// while it does: what is written before a list begins is in it.
func listPages(test *testing.T, p Place) {
	t := open(test, p)
	const total, writers = 1013, 12
	g := task.New(t.ctx)
	for w := range writers {
		g.Go("writer", func(ctx context.Context) error {
			for i := w; i < total; i += writers {
				if _, err := t.Put(ctx, fmt.Sprintf("log/%06d-x", i), []byte{1}, blobstore.Condition{}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	got := t.list("log/", "")
	if len(got) != total || !slices.IsSorted(got) {
		t.Fatalf("%d objects are listed, %d were written", len(got), total)
	}
	if got := t.list("log/", "log/001000"); len(got) != total-1000 || got[0] != "log/001000-x" {
		t.Errorf("%d objects after 1,000", len(got))
	}
	for i := range 5 {
		name := fmt.Sprintf("new/%d", i)
		t.put(name, nil, blobstore.Condition{})
		if got := t.list("new/", ""); len(got) != i+1 || got[i] != name {
			t.Errorf("after %s was written the list is %q", name, got)
		}
	}
}

func badNames(test *testing.T, p Place) {
	t := open(test, p)
	for _, name := range []string{
		"", ".", "..", "/", "/a", "a/", "a//b", "../a", "a/..", "a/../b", "a/./b", "./a", "a b", "a\x00b", "a\nb", `a\b`, "ä", "a%2fb", "~tmp", "~lock", "a?b", "a:b",
		strings.Repeat("a", blobstore.PartBytesMax+1), strings.Repeat("a/", blobstore.NameBytesMax),
	} {
		_, _, getErr := t.Get(t.ctx, name)
		_, rangeErr := t.GetRange(t.ctx, name, 0, 1)
		_, putErr := t.Put(t.ctx, name, []byte("x"), blobstore.Condition{})
		for verb, err := range map[string]error{"get": getErr, "range": rangeErr, "put": putErr, "delete": t.Delete(t.ctx, name)} {
			if err == nil || !strings.Contains(err.Error(), "object name") {
				t.Errorf("%s %.30q: %v", verb, name, err)
			}
		}
	}
	if got := t.list("", ""); len(got) != 0 {
		t.Errorf("something was written: %q", got)
	}
	for _, name := range []string{strings.Repeat("a", blobstore.PartBytesMax), strings.Repeat("a/", blobstore.NameBytesMax/2-1) + "aa", "...", "a..b", "-", "="} {
		t.put(name, []byte("x"), blobstore.Condition{Absent: true})
		t.has(name, []byte("x"), "")
		if err := t.Delete(t.ctx, name); err != nil { // It may be the folder of the next.
			t.Error(err)
		}
	}
}

func closing(test *testing.T, p Place) {
	t := open(test, p)
	s := p.Open()
	if _, err := s.Put(t.ctx, "a", []byte("x"), blobstore.Condition{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.has("a", []byte("x"), "")
}
