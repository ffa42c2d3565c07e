//go:build linux

package pages

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestMappingsThatWereWrittenToAreKept(t *testing.T) {
	const smaps = `00400000-00500000 r-xp 00000000 fe:00 1234   /bin/program
Size:               1024 kB
Anonymous:             0 kB
Swap:                  0 kB
00500000-00600000 r--p 00100000 fe:00 1234   /bin/program
Anonymous:             4 kB
Swap:                  0 kB
00600000-00700000 rw-p 00200000 fe:00 1234   /bin/program
Anonymous:             0 kB
00700000-00800000 r--p 00000000 fe:00 99   /lib/a library
Anonymous:             0 kB
Swap:                  8 kB
00800000-00900000 r--p 00000000 00:00 0
Anonymous:             0 kB
00900000-00a00000 r--s 00000000 fe:00 7   /shared
Anonymous:             0 kB
00a00000-00b00000 r--p 00000000 fe:00 8   /lib/another
Anonymous:             0 kB
`
	want := Program{{0x400000, 0x500000}, {0xa00000, 0xb00000}}
	if got := find(strings.NewReader(smaps)); !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func TestWhatIsWrittenToIsResident(t *testing.T) {
	const roomBytes = 16 << 20
	before := Resident()
	room := bytes.Repeat([]byte{1}, roomBytes)
	if grown := Resident() - before; grown < roomBytes*3/4 || before < 1<<20 {
		t.Errorf("%d bytes, and then %d more", before, grown)
	}
	if room[roomBytes-1] != 1 { // It is there until now.
		t.Error(room[roomBytes-1])
	}
}
