package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Place is where a reader of a log has come to: from there another one reads on, byte
// for byte as the first one would have. Files are only appended to, and keep their
// inode when they are rotated.
type Place struct {
	File   string    // As fileOf names it.
	Offset int64     // Of the next line.
	Open   string    // The stream of a line whose end is to come. Empty: none.
	Since  time.Time // What comes is wanted from then on. Zero: all of it.
}

// Recipient is where a log goes to somebody who may have to ask for the rest of it anew.
type Recipient interface {
	io.Writer
	// Place tells in which place of the log of an attempt that ends what was written so far.
	Place(attempt int, at Place) error
}

// tell writes what was read, and tells how far that is.
func (r *reader) tell() error {
	if r.Reached == nil || !r.out.Follow {
		return nil
	}
	offset, err := r.files[0].Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	offset -= int64(len(r.rest))
	if r.files[0] == r.toldOf && offset == r.told.Offset {
		return nil
	}
	file, err := fileOf(r.files[0])
	if err != nil {
		return err
	}
	at := Place{File: file, Offset: offset, Open: r.out.open}
	if !r.out.begun {
		at.Since = r.out.Since
	}
	if err := r.out.w.Flush(); err != nil {
		return err
	}
	r.told, r.toldOf = at, r.files[0]
	return r.Reached(r.path, at)
}

// seekPlace drops what is before the place from which is read on. Where that is gone
// all that there is comes after it.
func (r *reader) seekPlace() error {
	after := r.out.After
	r.out.Since, r.out.begun = after.Since, after.Since.IsZero()
	for i, f := range r.files {
		file, err := fileOf(f)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return fmt.Errorf("log: %w", err)
		}
		// One that was empty had no first line yet.
		same := file == after.File || after.Offset == 0 && strings.HasPrefix(file, after.File)
		if !same || info.Size() < after.Offset {
			continue
		}
		for _, f := range r.files[:i] {
			f.Close()
		}
		r.files = r.files[i:]
		r.out.open = after.Open
		if _, err = f.Seek(after.Offset, io.SeekStart); err != nil {
			return fmt.Errorf("log: %w", err)
		}
		if r.Reached == nil {
			return nil
		}
		r.told, r.toldOf = *after, f
		return r.Reached(r.path, *after)
	}
	return nil
}

// fileOf names a file of a log: by its inode, and as those are used again by the time
// of its first line, once it has one.
func fileOf(f *os.File) (string, error) {
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("log: %w", err)
	}
	name := ""
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		name = strconv.FormatUint(stat.Ino, 10)
	}
	head := make([]byte, headMax)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("log: %w", err)
	}
	name += "@"
	if stamp, _, ok := bytes.Cut(head[:n], []byte(" ")); ok {
		name += string(stamp)
	}
	return name, nil
}
