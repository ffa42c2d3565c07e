package mvcc

import (
	"bytes"
	"math"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

func TestARowIsWrittenAsEveryProtobufLibraryWritesIt(t *testing.T) {
	big := bytes.Repeat([]byte{7}, 70_000)
	for _, r := range []row{
		{key: []byte("k"), create: 2, mod: 2, version: 1},
		{key: []byte("k"), create: 2, mod: 300, version: 128, value: []byte("v"), lease: 1},
		{key: big, create: 1 << 40, mod: math.MaxInt64, version: math.MaxInt64, value: big, lease: -1},
		{key: []byte{0}, create: 1, mod: 1, version: 1, value: []byte{0}, lease: math.MinInt64},
	} {
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.message())
		if err != nil {
			t.Fatal(err)
		}
		got := appendKV(nil, &r)
		if !bytes.Equal(got, want) {
			t.Fatalf("row %+v is %x, want %x", r, got, want)
		}
		if n := kvSizeMax(r.key, r.value); len(got) > n {
			t.Fatalf("row of %d bytes, promised at most %d", len(got), n)
		}
		back, err := parseKV(got)
		if err != nil {
			t.Fatal(err)
		}
		bare := row{key: r.key, create: r.create, mod: r.mod, version: r.version}
		if !bytes.Equal(got[:back.head], appendKV(nil, &bare)) {
			t.Fatalf("head of row %+v is %x", r, got[:back.head])
		}
	}
}

func FuzzRow(f *testing.F) {
	for _, r := range []row{
		{key: []byte("k"), create: 2, mod: 2, version: 1},
		{key: []byte("key"), create: 2, mod: 300, version: 128, value: []byte("v"), lease: -1},
	} {
		f.Add(appendKV(nil, &r))
	}
	f.Add([]byte{})
	f.Add([]byte{tagKey, 0})
	f.Add([]byte{tagKey, 1, 'k', tagCreate, 0x80, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseKV(b)
		if err != nil {
			return
		}
		if again := appendKV(nil, &r); !bytes.Equal(again, b) {
			t.Fatalf("%x was accepted as %+v, which is written %x", b, r, again)
		}
		var m mvccpb.KeyValue
		if err := proto.Unmarshal(b, &m); err != nil || !bytes.Equal(m.Key, r.key) || ident.Revision(m.ModRevision) != r.mod || m.Lease != int64(r.lease) {
			t.Fatalf("%x is %+v to us, %+v, %v to the library", b, r, &m, err)
		}
	})
}
