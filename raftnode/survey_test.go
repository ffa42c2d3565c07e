package raftnode

import (
	"bytes"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

func FuzzDecodeNotice(f *testing.F) {
	f.Add((&Notice{Nonce: 1, Round: 2}).encode())
	f.Add((&Notice{Nonce: 1, Round: 2, answer: true, end: logEnd{
		Cut: true, Led: true, Last: wal.Mark{Index: 7, Term: 3}, Known: 5, Voters: []ident.MemberID{1, 2, 3},
	}}).encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := DecodeNotice(data)
		if err == nil && !bytes.Equal(n.encode(), data) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", data, n, n.encode())
		}
	})
}
