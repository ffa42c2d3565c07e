package sim

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// Equal transactions make files whose leaves are met in the same order, wherever
// bbolt has put them.
func TestPagesAreMetInTheOrderOfTheTree(t *testing.T) {
	leaves := func() (list [][]byte, pages int) {
		path := filepath.Join(t.TempDir(), "base")
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageBytes, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		for round := range 4 {
			err := db.Update(func(tx *bbolt.Tx) error {
				for _, name := range []string{"a", "b", "c", "small"} {
					bucket, err := tx.CreateBucketIfNotExists([]byte(name))
					if err != nil {
						return err
					}
					for i := range 300 {
						if name == "small" && i > 3 {
							break
						}
						value := bytes.Repeat([]byte{byte(round)}, 10+i%50*(1+i%7*20)) // Some of more than a page.
						if err := bucket.Put(fmt.Appendf(nil, "%04d", i*4+round), value); err != nil {
							return err
						}
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		order := pagesInOrder(data)
		for _, n := range order {
			if page := pageAt(data, n); page[8] == leafPage && number(page) == n && !bytes.Contains(page, []byte("small")) {
				list = append(list, page[8:])
			}
		}
		if same := inOrder(data, func(b []byte) []byte { return b }); !bytes.Equal(same, data) {
			t.Error("a change that changes nothing changes something")
		}
		if cut := inOrder(data, func(b []byte) []byte { return b[:5000] }); !bytes.Equal(cut, data[:5000]) {
			t.Error("a cut file is not the beginning of the file")
		}
		return list, len(order)
	}
	want, pages := leaves()
	if len(want) < 100 {
		t.Fatalf("only %d leaves were met", len(want))
	}
	for range 5 {
		got, n := leaves()
		if n != pages || len(got) != len(want) {
			t.Fatalf("%d pages, %d leaves, then %d and %d", pages, len(want), n, len(got))
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("leaf %d is another", i)
			}
		}
	}
}
