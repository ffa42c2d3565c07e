package snapshot

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// small is a short snapshot with every kind of frame, and merged rows of base.
func small(t testing.TB) []byte {
	t.Helper()
	s, sc := newStore(t), &script{r: rand.New(rand.NewPCG(1, 2))}
	defer closeStore(t, s)
	sc.begin(t, s)
	put := func(key string, value int) {
		sc.index++
		e := s.Begin(sc.index, sc.term, int64(sc.index)*1000)
		tx := e.Tx()
		if _, err := tx.Put(mvcc.PutArgs{Key: []byte(key), Value: bytes.Repeat([]byte{'v'}, value), Lease: 5}); err != nil {
			t.Fatal(err)
		}
		tx.Commit()
		if err := e.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	put("a", 10)
	put("b", 20)
	sc.index++
	e := s.Begin(sc.index, sc.term, int64(sc.index)*1000)
	tx := e.Tx()
	if err := tx.Compact(3); err != nil {
		t.Fatal(err)
	}
	tx.Commit()
	if err := e.Commit(); err != nil {
		t.Fatal(err)
	}
	stepAll(t, s)
	put("b", 5)
	put("c", 5)
	return snapshotOf(t, s, WriteOptions{NoCompression: true, Member: 0xa, MadeUnixNano: 12345})
}

// statusOf verifies bytes.
func statusOf(t testing.TB, b []byte) (*Status, error) {
	t.Helper()
	return StatusOf(t.Context(), vfs.OS(), writeFile(t, b), StatusOptions{})
}

func TestEveryFlippedBitIsFoundAndLocated(t *testing.T) {
	b := small(t)
	for bit := range 8 * len(b) {
		damaged := bytes.Clone(b)
		damaged[bit/8] ^= 1 << (bit % 8)
		_, err := statusFrom(damaged)
		var d *DamageError
		if bit/8 < len(magic) {
			if !errors.Is(err, ErrNotSnapshot) {
				t.Fatalf("bit %d of the magic: %v", bit, err)
			}
			continue
		}
		if !errors.As(err, &d) || d.Offset > int64(bit/8) {
			t.Fatalf("bit %d of byte %d: %v", bit%8, bit/8, err)
		}
		if near := int64(bit/8) - d.Offset; near > frameHeadBytes && int64(bit/8) > d.Offset+1000 {
			t.Fatalf("byte %d is said to be at %d", bit/8, d.Offset)
		}
	}
}

func TestEveryTruncationIsFoundAndLocated(t *testing.T) {
	b := small(t)
	for size := range b {
		_, err := statusFrom(b[:size])
		var d *DamageError
		if errors.Is(err, ErrNoHash) && size == len(b)-hashBytes {
			continue
		}
		if !errors.As(err, &d) || d.Offset != int64(size) {
			t.Fatalf("%d bytes of %d: %v", size, len(b), err)
		}
	}
	if _, err := statusFrom(append(bytes.Clone(b), 0)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte more: %v", err)
	}
}

// statusFrom is StatusOf on a memory file.
func statusFrom(b []byte) (*Status, error) {
	return StatusOf(tContext, memFile{FS: vfs.OS(), b: b}, "memory", StatusOptions{})
}

// memFile is a file system with one read-only file.
type memFile struct {
	vfs.FS
	b []byte
}

func (m memFile) Open(string) (vfs.File, error) { return openMem{Reader: bytes.NewReader(m.b)}, nil }

type openMem struct {
	vfs.File
	*bytes.Reader
}

func (o openMem) ReadAt(b []byte, off int64) (int, error) { return o.Reader.ReadAt(b, off) }
func (o openMem) Size() (int64, error)                    { return o.Reader.Size(), nil }
func (o openMem) Close() error                            { return nil }

func TestFramesCannotBeSwappedDroppedOrDoubled(t *testing.T) {
	b := small(t)
	var frames [][]byte
	r, err := newFrameReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for r.kind != kindEnd {
		start := r.offset
		if err := r.next(); err != nil {
			t.Fatal(err)
		}
		frames = append(frames, b[start:r.offset])
	}
	rest := b[r.offset:]
	head := b[:fileHeaderBytes]
	join := func(order ...int) []byte {
		all := bytes.Clone(head)
		for _, i := range order {
			all = append(all, frames[i]...)
		}
		return append(all, rest...)
	}
	if len(frames) != 5 || !bytes.Equal(join(0, 1, 2, 3, 4), b) {
		t.Fatalf("%d frames", len(frames))
	}
	for _, order := range [][]int{{0, 1, 2, 4}, {0, 2, 1, 3, 4}, {0, 1, 2, 3, 3, 4}, {1, 2, 3, 4}, {0, 0, 1, 2, 3, 4}} {
		if _, err := statusFrom(join(order...)); !errors.Is(err, ErrDamaged) {
			t.Errorf("frames %v: %v", order, err)
		}
	}
}

func TestStatusTellsWhatIsThere(t *testing.T) {
	st, err := statusOf(t, small(t))
	if err != nil {
		t.Fatal(err)
	}
	if st.Keys != 3 || st.Rows != 2 || st.Records == 0 || len(st.Members) != 3 || st.Members[0].Name != "old0" || st.Leases != 1 || st.Alarms != 1 ||
		st.Header.Revision != 5 || st.Header.Compacted.Revision != 3 {
		t.Errorf("%+v", st)
	}
}

func TestStatusCountsKeysAsTheStoreDoes(t *testing.T) {
	forSeeds(t, func(t *testing.T, r *rand.Rand) {
		s, sc := newStore(t), &script{r: r}
		defer closeStore(t, s)
		sc.begin(t, s)
		sc.run(t, s, r.IntN(100))
		st, err := statusOf(t, snapshotOf(t, s, WriteOptions{}))
		if err != nil {
			t.Fatal(err)
		}
		if keys := contents(t, s, s.Head())[s.Head()]; int(st.Keys) != len(keys) {
			t.Errorf("%d keys, the store has %d", st.Keys, len(keys))
		}
	})
}

func TestTheFormatIsThatOfVersion1(t *testing.T) {
	golden.File(t, "testdata/v1/small.hex", hex.Dump(small(t)))
	old, err := os.ReadFile("testdata/v1/compressed.snap") // Made once, for every later version to read.
	if err != nil {
		t.Fatal(err)
	}
	st, err := statusOf(t, old)
	if err != nil {
		t.Fatal(err)
	}
	golden.File(t, "testdata/v1/compressed.txt", fmt.Sprintf("rows %d, records %d, keys %d, revision %d\nhash %x\ndigest %x\n",
		st.Rows, st.Records, st.Keys, st.Header.Revision, st.StateHash, st.Header.Digest))
}

func TestANewerFormatIsRefusedByName(t *testing.T) {
	b := small(t)
	head := order.AppendUint32([]byte(magic), FormatVersion+1)
	head = order.AppendUint32(head, checksum(head))
	if _, err := statusFrom(append(head, b[fileHeaderBytes:]...)); !errors.Is(err, ErrNewerFormat) {
		t.Error(err)
	}
}

func TestSaveGivesTheNameOnlyToAWholeSnapshot(t *testing.T) {
	b := small(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "x.snap")
	save := func(b []byte, end error) error {
		rest := b
		_, err := Save(t.Context(), vfs.OS(), path, func() ([]byte, error) {
			if len(rest) == 0 {
				return nil, end
			}
			piece := rest[:min(700, len(rest))]
			rest = rest[len(piece):]
			return piece, nil
		}, nil)
		return err
	}
	flipped := bytes.Clone(b)
	flipped[300] ^= 4
	foreign := bytes.Clone(b)
	foreign[0] ^= 1
	for name, c := range map[string]struct {
		b   []byte
		end error
		why error
	}{
		"broken off":       {b, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF},
		"too short":        {b[:len(b)-512], io.EOF, ErrDamaged},
		"cut":              {b[:len(b)-5], io.EOF, ErrDamaged},
		"flipped":          {flipped, io.EOF, ErrDamaged},
		"another's, wrong": {foreign, io.EOF, ErrDamaged},
	} {
		if err := save(c.b, c.end); !errors.Is(err, c.why) {
			t.Errorf("%s: %v", name, err)
		}
		if names, _ := os.ReadDir(dir); len(names) != 0 {
			t.Errorf("%s: left %v", name, names)
		}
	}
	if err := save(b, io.EOF); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, b) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	etcd := sealed(bytes.Repeat([]byte{0xed}, 4*padBytes)) // A page file of another server, with its hash.
	if err := save(etcd, io.EOF); err != nil {
		t.Errorf("a snapshot of another server: %v", err)
	}
}

func FuzzReader(f *testing.F) {
	b := small(f)
	f.Add(b)
	s, _ := grown(f, 11)
	f.Add(snapshotOf(f, s, WriteOptions{}))
	f.Fuzz(func(t *testing.T, data []byte) {
		statusFrom(data)
		statusFrom(resealed(data))
	})
}

// resealed makes the checksums of frames fit, so that a fuzzer gets behind them.
func resealed(data []byte) []byte {
	if len(data) < fileHeaderBytes {
		return data
	}
	out := bytes.Clone(data)
	copy(out, magic)
	order.PutUint32(out[8:], FormatVersion)
	chain := checksum(out[:12])
	order.PutUint32(out[12:], chain)
	for at := fileHeaderBytes; at+frameHeadBytes <= len(out); {
		length := int(order.Uint32(out[at:]) % storedBytesMax)
		kind := out[at+8]
		end := min(at+frameHeadBytes+length, len(out))
		order.PutUint32(out[at+12:], checksum(out[at+frameHeadBytes:end]))
		head := frameHead{
			length: order.Uint32(out[at:]), plain: order.Uint32(out[at+4:]), kind: kind, codec: out[at+9], crc: order.Uint32(out[at+12:]),
		}
		copy(out[at:], head.append(nil, chain))
		chain = head.crc
		at = end
		if kind == kindEnd {
			break
		}
	}
	return out
}

// A request that deletes a great many keys makes one record of them all.
func TestTheLargestRecordOfHistoryFitsASnapshot(t *testing.T) {
	for length, want := range map[uint64]string{
		1<<30 + 1:                  "cut off",
		history.RecordBytesMax:     "cut off",
		history.RecordBytesMax + 1: "impossible length",
	} {
		var b bytes.Buffer
		w, err := newFrameWriter(&b, false)
		if err == nil {
			err = w.begin(kindHeader)
		}
		if err == nil {
			err = w.add(binary.AppendUvarint(nil, length)) // And nothing of what it announces.
		}
		if err == nil {
			err = w.begin(kindEnd)
		}
		if err == nil {
			err = errors.Join(w.add([]byte{0}), w.finish())
		}
		if err != nil {
			t.Fatal(err)
		}
		r, err := newFrameReader(&b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.sized(kindHeader); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("an item of %d bytes: %v", length, err)
		}
		r.close()
	}
}
