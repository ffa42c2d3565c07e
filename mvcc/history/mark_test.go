package history

import (
	"bytes"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// FuzzMark: a mark is read as it was written, whatever it holds.
func FuzzMark(f *testing.F) {
	data, err := (Mark{Segment: 1, Offset: 64, Index: 3, Term: 2, Digest: ident.Digest{5}, Revision: 9}).AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[1:])
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := DecodeMark(data)
		if err != nil {
			return
		}
		if again, err := m.AppendBinary(nil); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x is read as %v: %x, %v", data, m, again, err)
		}
	})
}
