//go:build linux

// Package pages lets go of the pages of the program that a process runs. The kernel maps
// sixteen around each one that is used, and the Go runtime looks at all of its types when
// it starts: after that nearly all of a large program is resident, most of it for what is
// done once. They are of its file, which all processes of the program share, and come back
// as they are used.
//
// Its imports are few, and none that Go initialises late: the supervisor of a pod is one
// who calls it.
package pages

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Program is where the program lies in memory, as far as nothing was written to it.
type Program []mapping

// mapping is a range of memory.
type mapping struct{ begin, end uintptr }

// Find looks for the program of this process. It finds nothing if the kernel does not
// tell: it would have been a favour.
func Find() Program {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil
	}
	defer f.Close()
	return find(f)
}

// Release lets go of the pages.
func (p Program) Release() {
	for _, m := range p {
		// A raw call: the memory is not the Go heap's, so there is no slice of it.
		_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, m.begin, m.end-m.begin, unix.MADV_DONTNEED)
	}
}

// Resident is how many bytes of this process are in memory. 0: the kernel does not tell.
func Resident() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(text, []byte(" "))
	word, _, _ := bytes.Cut(rest, []byte(" "))
	n, _ := strconv.ParseInt(string(word), 10, 64)
	return n * int64(os.Getpagesize())
}

// find reads smaps:
//
//	00400000-010db000 r-xp 00000000 fe:00 1234 /path
//	Anonymous:             0 kB
//
// What the loader has written to and made read-only afterwards would come back as it is
// in the file: a mapping with pages of its own is left alone. It never gets such pages
// later, as it cannot be written to.
func find(smaps io.Reader) Program {
	var all Program
	candidate := false
	for lines := bufio.NewReaderSize(smaps, 1<<10); ; {
		line, err := lines.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) { // Of a path nothing is needed.
			return all
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case bytes.IndexByte(name, '-') > 0:
			m, ok := parse(line)
			if candidate = ok; ok {
				all = append(all, m)
			}
		case candidate && (string(name) == "Anonymous" || string(name) == "Swap") && string(value) != "0 kB":
			all, candidate = all[:len(all)-1], false
		}
	}
}

// parse reads the first line of a mapping. Only what is of a file and cannot be written
// to is of interest.
func parse(line []byte) (mapping, bool) {
	place, line, _ := bytes.Cut(line, []byte(" "))
	rights, line, _ := bytes.Cut(line, []byte(" "))
	_, line, _ = bytes.Cut(line, []byte(" "))
	_, line, _ = bytes.Cut(line, []byte(" ")) // The device.
	inode, _, _ := bytes.Cut(line, []byte(" "))
	from, to, _ := bytes.Cut(place, []byte("-"))
	if string(bytes.TrimSpace(inode)) == "0" || len(rights) != 4 || rights[1] == 'w' || rights[3] != 'p' {
		return mapping{}, false
	}
	begin, err1 := strconv.ParseUint(string(from), 16, 64)
	end, err2 := strconv.ParseUint(string(to), 16, 64)
	return mapping{uintptr(begin), uintptr(end)}, err1 == nil && err2 == nil
}
