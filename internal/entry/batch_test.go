package entry

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
)

var rewrite = flag.Bool("rewrite", false, "rewrite golden files")

func sample() *Batch {
	return &Batch{
		Time: 1_700_000_000_123_456_789,
		Requests: []Request{
			{ID: ident.RequestID{Member: 0xa1, Nonce: 7, Sequence: 1}, Data: []byte("put a")},
			{ID: ident.RequestID{Member: 0xb2, Nonce: 9, Sequence: 300}, Data: []byte{}},
			{ID: ident.RequestID{Member: 0xa1, Nonce: 7, Sequence: 2}, Data: bytes.Repeat([]byte("x"), 200)},
		},
	}
}

func same(t *testing.T, want, got *Batch) {
	t.Helper()
	if want.Time != got.Time || len(want.Requests) != len(got.Requests) {
		t.Fatalf("want %+v, got %+v", want, got)
	}
	for i := range want.Requests {
		w, g := want.Requests[i], got.Requests[i]
		if w.ID != g.ID || !bytes.Equal(w.Data, g.Data) {
			t.Errorf("request %d: want %+v, got %+v", i, w, g)
		}
	}
}

func TestABatchComesBackAsItWas(t *testing.T) {
	for _, b := range []*Batch{{}, {Time: -1}, sample()} {
		data := AppendBatch([]byte("before"), b)
		if bound := BatchSizeMax(b); len(data)-6 > bound {
			t.Errorf("%d bytes, bound %d", len(data)-6, bound)
		}
		got, err := DecodeBatch(data[6:], nil)
		if err != nil {
			t.Fatal(err)
		}
		same(t, b, &got)
	}
}

func TestGoldenBatchIsStillRead(t *testing.T) {
	name := filepath.Join("testdata", "v1", "batch.hex")
	data := AppendBatch(nil, sample())
	if *rewrite {
		if err := os.WriteFile(name, []byte(hex.EncodeToString(data)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	golden, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(golden, data) {
		t.Errorf("the format changed:\n golden %x\n now    %x", golden, data)
	}
	got, err := DecodeBatch(golden, nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, sample(), &got)
}

func TestABatchOfANewerVersionIsRefusedByName(t *testing.T) {
	data := AppendBatch(nil, sample())
	data[0] = 2
	_, err := DecodeBatch(data, nil)
	if !errors.Is(err, ErrBatch) || !strings.Contains(err.Error(), "version 2, this program reads 1") {
		t.Errorf("got %v", err)
	}
}

func TestEveryCutOfABatchIsRefused(t *testing.T) {
	data := AppendBatch(nil, sample())
	for n := range data {
		if _, err := DecodeBatch(data[:n], nil); !errors.Is(err, ErrBatch) {
			t.Errorf("cut to %d of %d: %v", n, len(data), err)
		}
	}
	if _, err := DecodeBatch(append(data, 0), nil); !errors.Is(err, ErrBatch) {
		t.Errorf("a byte too many: %v", err)
	}
}

func TestDecodingReusesTheCallersRequests(t *testing.T) {
	data := AppendBatch(nil, sample())
	reuse := make([]Request, 0, 3)
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := DecodeBatch(data, reuse); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add(AppendBatch(nil, &Batch{}))
	f.Add(AppendBatch(nil, sample()))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := DecodeBatch(data, nil)
		if err != nil {
			return
		}
		if again := AppendBatch(nil, &b); !bytes.Equal(data, again) {
			t.Errorf("accepted %x, writes %x", data, again)
		}
	})
}

func BenchmarkBatchOf100(b *testing.B) {
	batch := &Batch{Time: 1}
	for i := range 100 {
		batch.Requests = append(batch.Requests, Request{
			ID: ident.RequestID{Member: 1, Nonce: 2, Sequence: uint64(1000 + i)}, Data: make([]byte, 300),
		})
	}
	buf := make([]byte, 0, BatchSizeMax(batch))
	var reuse []Request
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendBatch(buf[:0], batch)
		decoded, err := DecodeBatch(buf, reuse)
		if err != nil {
			b.Fatal(err)
		}
		reuse = decoded.Requests
	}
}
