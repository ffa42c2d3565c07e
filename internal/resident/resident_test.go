//go:build linux

package resident

import (
	"bytes"
	"debug/elf"
	"os"
	"strconv"
	"strings"
	"testing"
)

// status reads a figure of this process, in kB.
func status(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), name+":")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb
}

func TestWhatIsNotNeededIsGivenBack(t *testing.T) {
	const garbageBytes = 64 << 20
	garbage := bytes.Repeat([]byte{1}, garbageBytes)
	if _, err := elf.NewFile(bytes.NewReader(garbage)); err == nil { // What maps some pages more.
		t.Fatal("garbage is no program")
	}
	garbage = nil
	file, heap := status(t, "RssFile"), status(t, "RssAnon")
	Release()
	if now := status(t, "RssFile"); now > file*3/4 {
		t.Errorf("%d kB of files are resident, %d were", now, file)
	}
	if now := status(t, "RssAnon"); now > heap-garbageBytes/1024/2 {
		t.Errorf("%d kB are resident beside that, %d were", now, heap)
	}
}

func TestMemoryIsGivenBackOnceItHasGrownAndEachMinute(t *testing.T) {
	const base = 30 << 20
	k := keeper{looks: looksMax}
	look := func(now int64, want bool) {
		t.Helper()
		if got := k.due(now); got != want {
			t.Fatalf("%d MB after %d looks: %v", now>>20, k.looks, got)
		}
	}
	look(base, true) // What the start has left.
	look(base/2, false)
	look(base/2+growMaxBytes-1, false)
	look(base/2+growMaxBytes, true)
	look(base, false) // That much is needed.
	for range looksMax - 2 {
		look(base, false)
	}
	look(base, true)
}
