package backend

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// More flips find rarer places; 100,000 take some minutes.
var flipsFlag = flag.Int("flips", 400, "how many bits to flip, one at a time")

// victim makes a small base of several pages in each bucket and returns its
// bytes and what it holds.
func victim(t *testing.T) (Config, []byte, *model) {
	t.Helper()
	cfg := testConfig(t)
	db, err := Create(cfg, Meta{Cluster: 7}, Rows{})
	if err != nil {
		t.Fatal(err)
	}
	m := newModel()
	for round := range 3 { // Later rounds leave free pages with old rows behind.
		var changes []KeyChange
		for i := range 150 {
			key := fmt.Sprintf("/registry/%03d", i)
			if i%50 == 7 {
				key += strings.Repeat("long", 300)
			}
			lease := ident.LeaseID(i % 3)
			kv := keyValue(key, int64(round), strings.Repeat("v", 64-i%2), lease)
			changes = append(changes, KeyChange{[]byte(key), kv})
			m.set(key, kv, lease)
		}
		if err := db.Merge(changes, nil); err != nil {
			t.Fatal(err)
		}
	}
	var rows []RowChange
	for i := range 100 {
		key, value := fmt.Sprintf("%03d", i), strings.Repeat("r", 50)
		rows = append(rows, RowChange{TableLease, []byte(key), []byte(value)})
		m.small[key] = []byte(value)
	}
	if _, err := db.Checkpoint(rows, Meta{Cluster: 7, Revision: 9}); err != nil {
		t.Fatal(err)
	}
	cfg.MinTxID = db.TxID() // As the log notes it (rule 10): bbolt by itself goes back to the older meta page.
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	return cfg, image, m
}

// examine opens an image and asks for everything. It returns "" when every
// answer was right, "damaged" when something was refused as it should be, and
// otherwise what was wrong.
func examine(cfg Config, image []byte, m *model) (verdict string) {
	if err := os.WriteFile(cfg.Path, image, 0o600); err != nil {
		return err.Error()
	}
	db, err := Open(cfg)
	if err != nil {
		return judge(cfg, err)
	}
	defer func() {
		if err := db.Close(); err != nil && verdict == "" {
			verdict = err.Error()
		}
	}()
	v := db.View()
	defer v.Release()
	for _, ask := range []func(*View, *model) (string, error){askGet, askScan, askSmall} {
		wrong, err := ask(v, m)
		if wrong != "" {
			return wrong
		}
		if err != nil {
			verdict = judge(cfg, err)
		}
		if verdict != "" && verdict != "damaged" {
			return verdict
		}
	}
	return verdict
}

// judge accepts an error that says the file is damaged and names it.
func judge(cfg Config, err error) string {
	if (errors.Is(err, ErrDamaged) || errors.Is(err, ErrNewerFormat) || errors.Is(err, ErrTooOld)) && strings.Contains(err.Error(), cfg.Path) {
		return "damaged"
	}
	return "unexpected error: " + err.Error()
}

func askGet(v *View, m *model) (wrong string, damage error) {
	for key, want := range m.keys {
		got, err := v.Get([]byte(key))
		if err != nil {
			damage = err
		} else if !bytes.Equal(got, want) {
			return fmt.Sprintf("get %.20q returned %.20q", key, got), nil
		}
		if got, err := v.Get([]byte(key + "absent")); err == nil && got != nil {
			return fmt.Sprintf("get of an absent key returned %.20q", got), nil
		}
	}
	return "", damage
}

func askScan(v *View, m *model) (string, error) {
	sorted := slices.Sorted(maps.Keys(m.keys))
	for _, from := range []int{0, 75, 140} {
		c := v.Cursor()
		i := from
		for key, kv, err := c.Seek([]byte(sorted[from])); ; key, kv, err = c.Next() {
			if err != nil {
				return "", err
			}
			if key == nil {
				break
			}
			if i >= len(sorted) || string(key) != sorted[i] || !bytes.Equal(kv, m.keys[sorted[i]]) {
				return fmt.Sprintf("row %d from %d is %.20q", i, from, key), nil
			}
			i++
		}
		if i != len(sorted) {
			return fmt.Sprintf("scan from %d ended after %d rows of %d", from, i, len(sorted)), nil
		}
	}
	return "", nil
}

func askSmall(v *View, m *model) (string, error) {
	n := 0
	wrong := ""
	err := v.TableRows(TableLease, func(key, value []byte) error {
		if !bytes.Equal(m.small[string(key)], value) {
			wrong = fmt.Sprintf("small row %q is %.20q", key, value)
		}
		n++
		return nil
	})
	if err == nil && wrong == "" && n != len(m.small) {
		wrong = fmt.Sprintf("%d small rows of %d", n, len(m.small))
	}
	return wrong, err
}

func TestAFlippedBitIsNeverAWrongAnswer(t *testing.T) {
	cfg, image, m := victim(t)
	if verdict := examine(cfg, image, m); verdict != "" {
		t.Fatalf("intact: %s", verdict)
	}
	r := seeded(t)
	flips := *flipsFlag
	found := 0
	for i := range flips {
		bit := r.IntN(len(image) * 8)
		if i%2 == 0 { // Headers and elements are few bytes that matter most.
			page := r.IntN(len(image) / 4096)
			bit = page*4096*8 + r.IntN(200*8)
		}
		damaged := bytes.Clone(image)
		damaged[bit/8] ^= 1 << (bit % 8)
		switch verdict := examine(cfg, damaged, m); verdict {
		case "":
		case "damaged":
			found++
		default:
			t.Fatalf("bit %d of byte %d (page %d, offset %d): %s", bit%8, bit/8, bit/8/4096, bit/8%4096, verdict)
		}
	}
	if found < flips/20 {
		t.Fatalf("only %d of %d flips were noticed", found, flips)
	}
	t.Logf("%d flips, %d noticed, the others changed nothing", flips, found)
}

func TestAZeroedOrSwappedPageIsNeverAWrongAnswer(t *testing.T) {
	cfg, image, m := victim(t)
	r := seeded(t)
	total := len(image) / 4096
	for page := range total {
		damaged := bytes.Clone(image)
		clear(damaged[page*4096 : (page+1)*4096])
		if verdict := examine(cfg, damaged, m); verdict != "" && verdict != "damaged" {
			t.Fatalf("page %d zeroed: %s", page, verdict)
		}
		for range 5 {
			other := r.IntN(total)
			copy(damaged[page*4096:(page+1)*4096], image[other*4096:])
			// A page may continue another and have no number of its own; then an
			// older form of it is like a lost write.
			if verdict := examine(cfg, damaged, m); verdict != "" && verdict != "damaged" && !verifyNotices(t, cfg) {
				t.Fatalf("page %d overwritten by page %d: %s", page, other, verdict)
			}
		}
	}
}

func TestATruncatedFileIsRefusedOrFaultsIntoAnError(t *testing.T) {
	cfg, image, m := victim(t)
	for size := 0; size < len(image); size += 4096 {
		if verdict := examine(cfg, image[:size], m); verdict != "" && verdict != "damaged" {
			t.Fatalf("%d bytes of %d: %s", size, len(image), verdict)
		}
	}
	// Cut while it is open: the mapping faults.
	if err := os.WriteFile(cfg.Path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := os.Truncate(cfg.Path, 2*4096); err != nil {
		t.Fatal(err)
	}
	v := db.View()
	defer v.Release()
	if _, err := v.Get([]byte("/registry/100")); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), cfg.Path) {
		t.Fatalf("get: %v", err)
	}
	if err := db.Merge([]KeyChange{{[]byte("a"), keyValue("a", 1, "", 0)}}, nil); !errors.Is(err, ErrDamaged) {
		t.Fatalf("merge: %v", err)
	}
	if _, err := db.Checkpoint(nil, Meta{}); !errors.Is(err, ErrFailed) {
		t.Fatalf("after damage the file must take no more writes, got %v", err)
	}
}

func TestVerifyNoticesAPageWhoseLastWriteWasLost(t *testing.T) {
	cfg, image, m := victim(t)
	// An older leaf of the same place passes every check a reader makes. Only
	// the sums tell.
	r := seeded(t)
	found := 0
	total := len(image) / 4096
	for page := 2; page < total; page++ {
		for range 12 {
			other := 2 + r.IntN(total-2)
			damaged := bytes.Clone(image)
			copy(damaged[page*4096:(page+1)*4096], image[other*4096:(other+1)*4096])
			order.PutUint64(damaged[page*4096:], uint64(page))
			if verdict := examine(cfg, damaged, m); verdict == "" || verdict == "damaged" {
				continue
			}
			if !verifyNotices(t, cfg) {
				t.Fatalf("page %d as page %d was, and nobody noticed", page, other)
			}
			found++
		}
	}
	if found == 0 {
		t.Fatal("no page had an older form")
	}
}

// verifyNotices asks for a verdict on the file as it is.
func verifyNotices(t *testing.T, cfg Config) bool {
	t.Helper()
	db, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.Verify(context.Background(), nil)
	return err != nil && judge(cfg, err) == "damaged"
}

func TestVerifyNoticesARowThatIsHidden(t *testing.T) {
	cfg, image, _ := victim(t)
	if err := os.WriteFile(cfg.Path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Verify(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	v := db.View()
	defer v.Release()
	for _, change := range []func(*metaRow){
		func(m *metaRow) { m.Rows++ },
		func(m *metaRow) { m.StateHash[3]++ },
		func(m *metaRow) { m.smallRows++ },
		func(m *metaRow) { m.smallHash[0]++ },
		func(m *metaRow) { m.leaseRows-- },
		func(m *metaRow) { m.leaseHash[9]++ },
	} {
		meta := *v.meta
		change(&meta)
		wrong := &View{store: v.store, pages: v.pages, meta: &meta, keys: v.keys, leaseKeys: v.leaseKeys,
			longKeys: v.longKeys, rows: v.rows, long: v.long, rootPage: v.rootPage, freePage: v.freePage}
		if _, err := wrong.verify(context.Background(), nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("got %v", err)
		}
	}
}
