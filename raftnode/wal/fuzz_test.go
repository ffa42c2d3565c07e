package wal

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

// writeSegment puts b into the folder as a whole segment file.
func writeSegment(t *testing.T, fs *vfstest.Mem, sequence uint64, b []byte) {
	t.Helper()
	f, err := fs.Create(testDir + "/" + segmentName(sequence))
	must(t, err)
	_, err = f.WriteAt(b, 0)
	must(t, err)
	must(t, f.Close())
}

// opens proves that a log made of anything opens or is refused, and if it
// opens goes on.
func opens(t *testing.T, fs *vfstest.Mem) {
	l, r, err := Open(testConfig(fs))
	if err != nil {
		return
	}
	if r.Last.Index-r.Start.Index < 1000 {
		if _, err := viewOf(l, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Append(makeEntries(r.Last.Index+1, max(r.Last.Term, r.HardState.Term), 1, 10), nil); err != nil && r.Last.Index+1 != 0 {
		t.Fatal(err)
	}
	must(t, l.Close())
}

// FuzzSegment takes raw bytes for a segment file.
func FuzzSegment(f *testing.F) {
	goldens, err := filepath.Glob("testdata/*/*.hex")
	must(f, err)
	for _, name := range goldens {
		text, err := os.ReadFile(name)
		must(f, err)
		f.Add(text)
	}
	header := segmentHeader{sequence: 1}.encode()
	f.Add(header[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := newMem(t)
		writeSegment(t, fs, 1, b)
		opens(t, fs)
	})
}

// FuzzRecords takes its input for kinds and payloads and seals them properly,
// so that what is behind the checksums is reached: 1 byte kind, 2 bytes length,
// payload, again and again.
func FuzzRecords(f *testing.F) {
	g := appendBegin(nil, begin{state: state{notes: []Note{{Kind: 3, Data: []byte("x")}}}})
	sealed := func(k kind, p []byte) []byte {
		return append(binary.LittleEndian.AppendUint16([]byte{byte(k)}, uint16(len(p))), p...)
	}
	seed := sealed(kindBegin, g)
	for _, e := range makeEntries(1, 1, 3, 5) {
		seed = append(seed, sealed(kindEntry, appendEntry(nil, e))...)
	}
	seed = append(seed, sealed(kindHardState, appendHardState(nil, HardState{1, 2, 1}))...)
	seed = append(seed, sealed(kindStart, appendMark(nil, Mark{1, 1}))...)
	seed = append(seed, sealed(kindNote, []byte{4, 1})...)
	seed = append(seed, sealed(kindEnd, nil)...)
	f.Add(seed)
	f.Fuzz(func(t *testing.T, in []byte) {
		header := segmentHeader{sequence: 1}.encode()
		_, crc, err := decodeSegmentHeader(header[:])
		must(t, err)
		b, chain := append([]byte(nil), header[:]...), crc
		for len(in) >= 3 && len(b) < SegmentBytesMin/2 {
			k, n := kind(in[0]), min(int(binary.LittleEndian.Uint16(in[1:])), len(in)-3, 1000)
			at := len(b)
			b = append(b, zeroRecord[:]...)
			b = append(b, in[3:3+n]...)
			b, chain = finishRecord(b, at, k, crc, chain, 1, uint32(at), uint32(min(at, headerBytes+n)))
			in = in[3+n:]
		}
		b = append(b, make([]byte, SegmentBytesMin-len(b))...)
		fs := newMem(t)
		writeSegment(t, fs, 1, b)
		opens(t, fs)
	})
}

// FuzzPayloads: what decodes encodes to the same bytes.
func FuzzPayloads(f *testing.F) {
	f.Add(appendEntry(nil, makeEntry(7, 2, 9)))
	f.Add(appendBegin(nil, begin{reset: true, state: state{notes: []Note{{1, []byte("ab")}, {2, []byte("c")}}}}))
	f.Add(encodeCut(&Cut{Segment: 3, Copy: "cut-3"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d decodedEntry
		if d.decode(b) == nil && !bytes.Equal(appendEntry(nil, &d.entry), b) {
			t.Error("entry")
		}
		if g, err := decodeBegin(b); err == nil && !bytes.Equal(appendBegin(nil, g), b) {
			t.Error("begin")
		}
		if m, err := decodeMark(b); err == nil && !bytes.Equal(appendMark(nil, m), b) {
			t.Error("mark")
		}
		if hs, err := decodeHardState(b); err == nil && !bytes.Equal(appendHardState(nil, hs), b) {
			t.Error("hard state")
		}
		if n, err := decodeNote(b); err == nil && !bytes.Equal(appendNote(nil, n), b) {
			t.Error("note")
		}
		if c, err := decodeCut(b); err == nil && !bytes.Equal(encodeCut(c), b) {
			t.Error("cut")
		}
	})
}

// FuzzDirectory harms a folder of several segments: flips, cuts, holes, files
// missing, swapped or doubled. The log is refused by name, or is what it was,
// or has lost only what no mark covers and says so. Input: a workload, then six
// bytes for each harm.
func FuzzDirectory(f *testing.F) {
	type past struct {
		fs *vfstest.Mem
		m  *model
	}
	var lives []past
	for _, w := range workloads() {
		fs, m := newMem(f), &model{}
		must(f, w.run(testConfig(fs), m))
		lives = append(lives, past{fs, m})
	}
	for i := range lives {
		f.Add([]byte{byte(i), 0, 0, 1, 0, 3, 9})
		f.Add([]byte{byte(i), 1, 1, 2, 0, 0, 0, 2, 0, 3, 1, 80, 0})
		f.Add([]byte{byte(i), 3, 1, 0, 0, 0, 0, 4, 0, 0, 0, 0, 1})
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) == 0 {
			return
		}
		life := lives[int(in[0])%len(lives)]
		fs := life.fs.Crash(vfstest.Crash{Image: vfstest.Everything})
		names, err := fs.List(testDir)
		must(t, err)
		missing := false
		in = in[1:min(len(in), 1+6*harmsMax)]
		for ; len(in) >= 6; in = in[6:] {
			missing = harm(t, fs, names, [6]byte(in)) || missing
		}
		refused, err := refusedOrCut(fs, life.m)
		if err != nil && !missing { // Without its last files and the mark a log is a shorter log.
			t.Fatalf("refused %v: %v", refused, err)
		}
	})
}

const harmsMax = 8

// harm does one thing to one file, and reports whether it took a whole one
// away or put another in its place.
func harm(t *testing.T, fs *vfstest.Mem, names []string, what [6]byte) (missing bool) {
	name := func(b byte) string { return testDir + "/" + names[int(b)%len(names)] }
	path, at := name(what[1]), int64(binary.LittleEndian.Uint16(what[3:]))
	b, err := vfs.ReadFile(fs, path)
	if err != nil {
		return false // Taken away before.
	}
	at %= int64(len(b)) + 1
	missing = strings.HasSuffix(path, "/"+markFileName) // Nothing else tells of a tail that is gone.
	switch what[0] % 5 {
	case 0:
		if at < int64(len(b)) {
			must(t, fs.Flip(path, at, uint(what[2]%8)))
		}
		return missing
	case 1:
		b = b[:at]
	case 2:
		clear(b[at:min(int64(len(b)), at+512)])
		missing = true // Zeroes may be what was there: then the image is that of a tail never written.
	case 3:
		must(t, fs.Remove(path))
		return true
	case 4:
		other, err := vfs.ReadFile(fs, name(what[5]))
		if err != nil {
			return false
		}
		b, missing = other, true
	}
	must(t, fs.Remove(path))
	w, err := fs.Create(path)
	must(t, err)
	_, err = w.WriteAt(b, 0)
	must(t, err)
	must(t, w.Close())
	return missing
}
