package mvcc

import (
	"bytes"
	"testing"
)

// What one member has in base another may still have in history: both refuse the same
// requests as too large.
func TestARowTakesTheSameWhereverItIs(t *testing.T) {
	s := mustCreate(t, testConfig(t))
	w := writer{t: t, s: s}
	for i, value := range []string{"", "v", string(bytes.Repeat([]byte("v"), 300)), string(bytes.Repeat([]byte("v"), 70_000))} {
		w.put(string(rune('a'+i)), value)
	}
	held := func(in string) (sizes []int64) {
		t.Helper()
		for _, key := range []string{"a", "b", "c", "d"} {
			w.do(func(tx *Tx) error {
				var f found
				src := &tx.entry.src
				if ok, err := src.find([]byte(key), s.Head(), &f); !ok || err != nil {
					t.Fatalf("%s in %s: %v, %v", key, in, ok, err)
				}
				if (f.row != nil) != (in == "base") {
					t.Errorf("%s is not in %s", key, in)
				}
				sizes = append(sizes, src.heldBy(&RangeArgs{}, []byte(key), &f))
				return nil
			})
		}
		return sizes
	}
	young := held("history")
	w.compact(s.Head())
	stepAll(t, s)
	for i, n := range held("base") {
		if n != young[i] {
			t.Errorf("row %d takes %d out of base and %d out of history", i, n, young[i])
		}
	}
	mustClose(t, s)
}
