package backend

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/ident"
)

const goldenBase = "testdata/v1/base.db"

// everyField is a Meta with a different value in each field.
func everyField() Meta {
	return Meta{
		Format: formatVersion, Applied: ident.Position{Index: 1, Group: 2}, Term: 3, Time: -4, Digest: ident.Digest{5},
		Revision: 6, Compacted: Point{ident.Position{Index: 7, Group: 8}, 9}, HistoryMark: []byte("mark"), ConfState: []byte("conf"),
		Cluster: 10, Timeline: 11, Merged: Point{ident.Position{Index: 12, Group: 13}, 14},
	}
}

// writeGolden fills a base with one of everything.
func writeGolden(t *testing.T, cfg Config) *DB {
	t.Helper()
	db, err := Create(cfg, everyField(), Rows{})
	if err != nil {
		t.Fatal(err)
	}
	long := "long/" + strings.Repeat("x", 1100)
	err = db.Merge([]KeyChange{
		{[]byte("a"), keyValue("a", 3, "plain", 0)},
		{[]byte("b"), keyValue("b", 4, "leased", 77)},
		{[]byte(long), keyValue(long, 5, "long", -1)},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Checkpoint([]RowChange{{TableLease, []byte("77"), []byte("lease")}, {TableMember, []byte("1"), nil}, {TableMeta, nil, []byte("small")}}, everyField())
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// dump writes down all that a base holds.
func dump(t *testing.T, db *DB) string {
	t.Helper()
	var b strings.Builder
	v := db.View()
	defer v.Release()
	fmt.Fprintf(&b, "transaction %d\n", v.TxID())
	fmt.Fprintf(&b, "meta %s\n", strings.ReplaceAll(fmt.Sprintf("%+v", v.Meta()), " ", "\n  "))
	c := v.Cursor()
	for key, kv, err := c.Seek(nil); key != nil || err != nil; key, kv, err = c.Next() {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "key %.10q of %d: %x\n", key, len(key), kv[max(0, len(kv)-20):])
	}
	for _, id := range []ident.LeaseID{77, -1} {
		keys, err := v.LeaseKeys(id, nil, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			fmt.Fprintf(&b, "lease %d: %.10q of %d\n", id, key, len(key))
		}
	}
	for table := TableLease; table <= TableMeta; table++ {
		err := v.TableRows(table, func(key, value []byte) error {
			fmt.Fprintf(&b, "row %d %q = %q\n", table, key, value)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestABaseOfVersion1Opens(t *testing.T) {
	cfg := testConfig(t)
	if flag.Lookup("rewrite").Value.String() == "true" {
		if err := writeGolden(t, cfg).Close(); err != nil {
			t.Fatal(err)
		}
		copyFile(t, goldenBase, cfg.Path)
	}
	copyFile(t, cfg.Path, goldenBase)
	db, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	golden.File(t, filepath.Join("testdata", "v1", "base.txt"), dump(t, db))
	if _, err := db.Verify(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	fresh := testConfig(t)
	again := writeGolden(t, fresh)
	defer again.Close()
	if a, b := dump(t, db), dump(t, again); a != b {
		t.Fatalf("today the same calls give something else:\n%s", golden.Diff(a, b))
	}
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestMetaIsEncodedAndDecodedWhole(t *testing.T) {
	m := &metaRow{Meta: everyField(), txID: 15, smallRows: 16, smallHash: Sum{17}, leaseRows: 18, leaseHash: Sum{19}, firstKey: []byte("f"), lastKey: []byte("l")}
	m.Rows, m.StateHash, m.LongOrdinal = 20, Sum{21}, 22
	b := appendMeta(nil, m)
	got, err := decodeMeta(b)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Fatalf("%v\n%+v\n%+v", err, got, m)
	}
	for n := range b {
		if _, err := decodeMeta(b[:n]); err == nil {
			t.Fatalf("%d bytes of %d were taken", n, len(b))
		}
	}
	if _, err := decodeMeta(append(b, 0)); err == nil {
		t.Fatal("a byte too many was taken")
	}
}

func TestTheHashDoesNotDependOnOrderAndForgets(t *testing.T) {
	a, _ := hashRow(nil, []byte("a"), []byte("1"))
	b, _ := hashRow(nil, []byte("b"), []byte("2"))
	moved, _ := hashRow(nil, []byte("a1"), nil)
	if a == moved {
		t.Fatal("the border between key and payload is not hashed")
	}
	var x, y Sum
	x.add(a)
	x.add(b)
	y.add(b)
	y.add(a)
	if x != y {
		t.Fatal("order counts")
	}
	x.sub(b)
	if x != a {
		t.Fatal("a row that left is still there")
	}
}

func FuzzRow(f *testing.F) {
	for _, s := range sections {
		key, payload := []byte("key"), []byte("payload")
		f.Add(append(bytes.Clone(key), appendRow(nil, s, key, payload)...), 3, byte(s.number))
	}
	f.Fuzz(func(t *testing.T, row []byte, keyLen int, number byte) {
		if keyLen < 0 || keyLen > len(row) {
			return // An element that reaches out of its page gets no further.
		}
		s := section{number: uint32(number)}
		key, payload, ok := splitRow(s, row, keyLen)
		if !ok {
			return
		}
		if again := append(bytes.Clone(key), appendRow(nil, s, key, payload)...); !bytes.Equal(again, row) {
			t.Fatalf("%x was taken for %x", row, again)
		}
		if key, kv, ok := splitLong(payload); ok {
			if again := appendLong(nil, key, kv); !bytes.Equal(again, payload) {
				t.Fatalf("%x was taken for %x", payload, again)
			}
		}
	})
}

func FuzzMeta(f *testing.F) {
	f.Add(appendMeta(nil, &metaRow{Meta: everyField()}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		if again := appendMeta(nil, m); !bytes.Equal(again, b) {
			t.Fatalf("%x was taken for %x", b, again)
		}
	})
}

func FuzzLease(f *testing.F) {
	f.Add(keyValue("key", 3, "value", 9))
	f.Fuzz(func(t *testing.T, kv []byte) {
		if _, err := leaseOf(kv); err != nil {
			if !errors.Is(err, ErrBadRow) {
				t.Fatal(err)
			}
			return
		}
		for rest := kv; len(rest) > 0; {
			_, _, n := protowire.ConsumeField(rest)
			if n < 0 {
				t.Fatalf("%x is not a message", kv)
			}
			rest = rest[n:]
		}
	})
}

// FuzzPages gives arbitrary bytes to the walk through pages.
func FuzzPages(f *testing.F) {
	image, err := os.ReadFile(goldenBase)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(image, []byte("b"), uint64(3))
	f.Fuzz(func(t *testing.T, image, key []byte, root uint64) {
		p := &pages{data: image, pageSize: 4096, file: "fuzz"}
		walk := func(tr *tree) {
			_, err := tr.get(key)
			scanned := tr.scan(key, func([]byte, []byte) (bool, error) { return true, nil })
			c := treeCursor{tree: tr}
			_, last := c.last()
			_, free := p.freePages(root)
			for _, err := range []error{err, scanned, last, free} {
				if err != nil && !errors.Is(err, ErrDamaged) {
					t.Fatal(err)
				}
			}
		}
		walk(&tree{pages: p, section: sectionKeys, rootID: root})
		for _, s := range sections {
			if tr, err := p.bucket(root, s); err == nil {
				walk(tr)
			}
		}
	})
}
