package archive

import (
	"errors"
	"io"
	"testing"

	"github.com/holdfast-db/holdfast/mvcc/history"
)

// What was read, and not settled, can be read again however much is compacted
// meanwhile: a segment of the archive may fail to arrive.
func TestWhatIsNotSettledIsNotDropped(t *testing.T) {
	c := newCluster(t, 13)
	c.run(5)
	from := c.index
	records, err := c.Records(from)
	if err != nil {
		t.Fatal(err)
	}
	defer records.Close()
	read := func() {
		for {
			if _, err := records.Next(); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	again := func() error {
		r, err := c.Records(from)
		if err == nil {
			r.Close()
		}
		return err
	}
	for range 60 {
		c.run(50)
		read()
	}
	if err := again(); err != nil {
		t.Fatalf("what was read and not settled: %v", err)
	}
	for i := 0; !errors.Is(again(), history.ErrDropped); i++ {
		if i > 100 {
			t.Fatal("nothing was compacted: this shows nothing")
		}
		if err := records.Settle(); err != nil {
			t.Fatal(err)
		}
		c.run(50)
		read()
	}
}
