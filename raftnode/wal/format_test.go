package wal

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

// goldenLog writes one record of every kind.
func goldenLog(t *testing.T) (*vfstest.Mem, *model) {
	t.Helper()
	fs := newMem(t)
	m := &model{}
	must(t, m.create(testConfig(fs), Mark{Index: 41, Term: 3}))
	must(t, m.append(makeEntries(42, 3, 2, 20), &HardState{Term: 3, Vote: 0x8e9e05c52164694d, Commit: 41}))
	must(t, m.sync())
	must(t, m.append(makeEntries(43, 4, 4, 1000), &HardState{Term: 4, Vote: 0x8e9e05c52164694d, Commit: 42}))
	must(t, m.note(Note{Kind: 3, Data: []byte("base transaction 7")}))
	must(t, m.compact(43))
	must(t, m.close())
	return fs, m
}

// hexOf dumps a file without the zeroes at its end.
func hexOf(t *testing.T, fs vfs.FS, name string) string {
	t.Helper()
	b, err := vfs.ReadFile(fs, name)
	must(t, err)
	return fmt.Sprintf("%d bytes\n%s", len(b), hex.Dump([]byte(strings.TrimRight(string(b), "\x00"))))
}

// fromHex writes what hexOf dumped.
func fromHex(t *testing.T, fs vfs.FS, golden, name string) {
	t.Helper()
	text, err := os.ReadFile(golden)
	must(t, err)
	var size int
	_, err = fmt.Sscanf(string(text), "%d bytes", &size)
	must(t, err)
	b := make([]byte, 0, size)
	for _, line := range strings.Split(string(text), "\n")[1:] {
		if len(line) < 58 {
			continue
		}
		part, err := hex.DecodeString(strings.ReplaceAll(line[10:58], " ", ""))
		must(t, err)
		b = append(b, part...)
	}
	f, err := fs.Create(name)
	must(t, err)
	_, err = f.WriteAt(b[:size:cap(b)][:size], 0)
	must(t, err)
	must(t, f.Close())
}

var goldenNames = []string{segmentName(1), segmentName(2), markFileName}

func TestTheBytesOfVersion1AreWrittenAsEver(t *testing.T) {
	fs, _ := goldenLog(t)
	for _, name := range goldenNames {
		golden.File(t, "testdata/v1/"+name+".hex", hexOf(t, fs, testDir+"/"+name))
	}
}

func TestTheBytesOfVersion1AreRead(t *testing.T) {
	_, m := goldenLog(t)
	fs := newMem(t)
	for _, name := range goldenNames {
		fromHex(t, fs, "testdata/v1/"+name+".hex", testDir+"/"+name)
	}
	v, r, err := openView(fs)
	must(t, err)
	if !v.same(m.now()) || r.Cut != nil {
		t.Fatalf("read %s, written was %s", v, m.now())
	}
	golden.File(t, "testdata/v1/inspect.txt", inspect(t, fs))
}

func inspect(t *testing.T, fs vfs.FS) string {
	t.Helper()
	var b strings.Builder
	err := Verify(fs, testDir, func(i Info) error {
		fmt.Fprintf(&b, "%s %6d %5d %-10s synced %5d %-6s %s\n", i.File, i.Offset, i.Bytes, i.Kind, i.Synced, i.Mark, i.Detail)
		return nil
	})
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	return b.String()
}

func TestANewerVersionIsRefusedByName(t *testing.T) {
	fs, _ := goldenLog(t)
	name := testDir + "/" + segmentName(2)
	b, err := vfs.ReadFile(fs, name)
	must(t, err)
	binary.LittleEndian.PutUint32(b[8:], formatVersion+1)
	binary.LittleEndian.PutUint32(b[headerBytes-4:], crc32.Checksum(b[:headerBytes-4], castagnoli))
	must(t, vfs.ReplaceFile(fs, name, b))
	_, _, err = openView(fs)
	if !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "version 2") {
		t.Fatalf("got %v", err)
	}
	golden.File(t, "testdata/newer/"+segmentName(2)+".hex", hexOf(t, fs, name))
}

func TestANewerMarkIsRefusedByName(t *testing.T) {
	fs, _ := goldenLog(t)
	b := syncMark{sequence: 2, offset: 64}.encode()
	binary.LittleEndian.PutUint32(b[8:], formatVersion+1)
	binary.LittleEndian.PutUint32(b[markSlotBytes-4:], crc32.Checksum(b[:markSlotBytes-4], castagnoli))
	must(t, vfs.ReplaceFile(fs, testDir+"/"+markFileName, b[:]))
	if _, _, err := openView(fs); !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), markFileName) {
		t.Fatalf("got %v", err)
	}
}
