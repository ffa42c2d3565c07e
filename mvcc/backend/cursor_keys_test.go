package backend

import (
	"bytes"
	"fmt"
	"testing"
)

func TestACursorForKeysOnlySeesTheSameKeys(t *testing.T) {
	cfg := testConfig(t)
	db, err := Create(cfg, Meta{}, Rows{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var changes []KeyChange
	for i := range 500 {
		key := fmt.Appendf(nil, "key/%04d", i)
		if i%50 == 0 {
			key = append(key, bytes.Repeat([]byte{'x'}, 2000)...)
		}
		changes = append(changes, KeyChange{Key: key, KV: append([]byte{10, 1, 'k'}, 16, 1, 24, 1, 32, 1)})
	}
	if err := db.Merge(changes, nil); err != nil {
		t.Fatal(err)
	}
	v := db.View()
	defer v.Release()
	whole, keys := v.Cursor(), v.Cursor()
	keys.KeysOnly = true
	for a, _, err := whole.Seek(nil); ; a, _, err = whole.Next() {
		if err != nil {
			t.Fatal(err)
		}
		var b []byte
		if bytes.Equal(a, changes[0].Key) {
			b, _, err = keys.Seek(nil)
		} else {
			b, _, err = keys.Next()
		}
		if err != nil || !bytes.Equal(a, b) {
			t.Fatalf("key %.20q, keys only %.20q, %v", a, b, err)
		}
		if a == nil {
			return
		}
	}
}
