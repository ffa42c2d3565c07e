package logfile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
)

const (
	// lookInterval is how often a log that is followed is looked at.
	lookInterval = 100 * time.Millisecond

	// rotatedMax files are looked for beside a log: more than anybody keeps.
	rotatedMax = 100
)

// ErrNone: neither the log nor a container that would write it.
var ErrNone = errors.New("there is no log")

// Options say what is read of a log.
type Options struct {
	Tail       int64     // The last lines. Negative: all.
	Since      time.Time // Zero: all.
	Timestamps bool      // Each line begins with its time.
	BytesMax   int64     // Then it is enough. 0: it never is.
	Follow     bool      // Go on until the container has ended.
	After      *Place    // Go on from there: Tail and Since do not count. Nil: from the start.
}

// Source is the log that is read.
type Source struct {
	Path  string // Of the attempt that is read first.
	Clock clock.Clock

	// Ended reports whether nothing more will be written to a log. Asked where it is
	// followed. Nil: it has ended.
	Ended func(path string) bool

	// Next is asked once a followed log has ended: for the path of the next attempt's,
	// which it waits for; empty if there will be none. Nil: there is none.
	Next func(ctx context.Context, path string) (string, error)

	// Reached is told, where a log is followed, in which place of the log that ends what
	// was written so far: at the start, and then again and again. Nil: nobody is.
	Reached func(path string, at Place) error
}

// Read writes what a log has, over its rotated files, in the order in which it was
// written; stdout and stderr together. A log that is not there yet is waited for where
// it is followed. That ctx ends is its error.
func Read(ctx context.Context, from Source, o Options, w io.Writer) error {
	out := &output{Options: o, w: bufio.NewWriterSize(w, 32<<10), left: o.BytesMax}
	for path := from.Path; path != ""; {
		r := &reader{Source: from, path: path, out: out}
		err := r.read(ctx)
		r.close()
		if err == nil {
			err = out.w.Flush()
		}
		if errors.Is(err, errEnough) {
			return out.w.Flush()
		}
		if err != nil || !o.Follow || from.Next == nil {
			return err
		}
		out.Tail, out.After = -1, nil // What comes after is new.
		if path, err = from.Next(ctx, path); err != nil {
			return err
		}
	}
	return nil
}

// Path is the log of an attempt, in the folder of its container.
func Path(folder string, attempt int) string {
	return path.Join(folder, strconv.Itoa(attempt)+".log")
}

// Attempts are those that have a log in the folder of their container, the oldest first.
func Attempts(folder string) ([]int, error) {
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("logs: %w", err)
	}
	var all []int
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".log"); ok {
			if n, err := strconv.Atoi(name); err == nil && n >= 0 {
				all = append(all, n)
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

// reader reads the log of one attempt.
type reader struct {
	Source
	path string
	out  *output

	files []*os.File // Open, the oldest first; the first is being read.
	rest  []byte     // Of it: the start of a line whose end is not there yet.

	told   Place // The last that Reached was told, and of which file that was.
	toldOf *os.File
}

func (r *reader) close() {
	for _, f := range r.files {
		f.Close()
	}
	r.files = nil
}

func (r *reader) read(ctx context.Context) error {
	ended := false
	for {
		ended = !r.out.Follow || r.Ended == nil || r.Ended(r.path) // Before the look: all of it will be seen.
		if err := r.open(); err != nil {
			return err
		}
		if len(r.files) > 0 {
			break
		}
		if ended {
			return ErrNone
		}
		if err := r.pause(ctx); err != nil {
			return err
		}
	}
	if err := r.begin(); err != nil {
		return err
	}
	for {
		if err := r.drainAll(); err != nil {
			return err
		}
		if ended {
			return r.endFile()
		}
		if err := r.tell(); err != nil {
			return err
		}
		if err := r.pause(ctx); err != nil {
			return err
		}
		ended = r.Ended == nil || r.Ended(r.path)
	}
}

// begin goes to where the read begins.
func (r *reader) begin() error {
	seek := r.seekTail
	if r.out.After != nil {
		seek = r.seekPlace
	}
	if err := seek(); err != nil {
		return err
	}
	return r.tell()
}

// pause lets what was read out, and waits.
func (r *reader) pause(ctx context.Context) error {
	if err := r.out.w.Flush(); err != nil {
		return err
	}
	select {
	case <-r.Clock.After(lookInterval):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drainAll reads all that there is now, and follows the log where it was rotated.
func (r *reader) drainAll() error {
	for {
		if err := r.drain(); err != nil {
			return err
		}
		if len(r.files) == 1 {
			moved, err := r.moved()
			if err != nil || !moved {
				return err
			}
			// Nothing more is written to it, but what was before the look.
			if err := r.drain(); err != nil {
				return err
			}
			if err := r.openAfter(); err != nil {
				return err
			}
		}
		if len(r.files) < 2 {
			return nil
		}
		if err := r.endFile(); err != nil {
			return err
		}
		r.files[0].Close()
		r.files = r.files[1:]
	}
}

// moved reports whether there is a newer file than the one that is read. After a rotation
// the log has none of its own name until something is written.
func (r *reader) moved() (bool, error) {
	is, err := r.files[0].Stat()
	if err != nil {
		return false, fmt.Errorf("log: %w", err)
	}
	for _, name := range []string{r.path, r.path + ".1"} {
		now, err := os.Stat(name)
		if err == nil {
			return !os.SameFile(now, is), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("log: %w", err)
		}
	}
	return false, nil
}

// open opens all files of the log. A file that was renamed meanwhile is seen twice, and
// taken once.
func (r *reader) open() error {
	all, err := r.openUntil(nil)
	r.files = all
	return err
}

// openAfter opens what came after the file that was read: those until its new name. If
// it is gone, what was between is gone, too.
func (r *reader) openAfter() error {
	is, err := r.files[0].Stat()
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	all, err := r.openUntil(is)
	r.files = append(r.files, all...)
	return err
}

func (r *reader) openUntil(known fs.FileInfo) ([]*os.File, error) {
	var all []*os.File
	last, missing := known, 0
	for i := range rotatedMax {
		name := r.path
		if i > 0 {
			name += "." + strconv.Itoa(i)
		}
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			if missing++; missing > 1 {
				break
			}
			continue // One may be missing while they are renamed, from the oldest on.
		}
		missing = 0
		var is fs.FileInfo
		if err == nil {
			is, err = f.Stat()
		}
		if err != nil {
			return all, fmt.Errorf("log: %w", err)
		}
		if known != nil && os.SameFile(is, known) {
			f.Close()
			break
		}
		if i > 0 && last != nil && os.SameFile(is, last) {
			f.Close()
			continue
		}
		last = is
		all = slices.Insert(all, 0, f)
	}
	return all, nil
}

// drain handles the lines that the file has from where it was read to.
func (r *reader) drain() error {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.files[0].Read(buf)
		data := buf[:n]
		for {
			i := bytes.IndexByte(data, '\n')
			if i < 0 {
				break
			}
			line := data[:i]
			if len(r.rest) > 0 {
				line = append(r.rest, line...)
			}
			if err := r.out.line(line); err != nil {
				return err
			}
			r.rest, data = r.rest[:0], data[i+1:]
		}
		r.rest = append(r.rest, data...)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("log: %w", err)
		}
		if err := r.tell(); err != nil {
			return err
		}
	}
}

// endFile handles a last line that was cut.
func (r *reader) endFile() error {
	rest := r.rest
	r.rest = r.rest[:0]
	if len(rest) == 0 {
		return nil
	}
	return r.out.line(rest)
}

// seekTail drops what is before the last lines that are wanted.
func (r *reader) seekTail() error {
	need := r.out.Tail
	if need < 0 {
		return nil
	}
	for i := len(r.files) - 1; i >= 0; i-- {
		ends, partial, err := lineEnds(r.files[i])
		if err != nil {
			return err
		}
		if partial && i == len(r.files)-1 && need > 0 {
			need-- // Of a line that goes on.
		}
		if n := int64(len(ends)); n > need {
			for _, f := range r.files[:i] {
				f.Close()
			}
			r.files = r.files[i:]
			_, err := r.files[0].Seek(ends[n-need-1], io.SeekStart)
			return err
		}
		need -= int64(len(ends))
		if _, err := r.files[i].Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	return nil
}

// lineEnds are where the lines of a container end in a file, and whether more follows
// the last.
func lineEnds(f *os.File) (ends []int64, partial bool, err error) {
	in := bufio.NewReaderSize(f, 64<<10)
	at := int64(0)
	head := []byte(nil) // Of a line in the file that is longer than the buffer.
	for {
		part, err := in.ReadSlice('\n')
		at += int64(len(part))
		if len(head) < headMax {
			head = append(head, part[:min(len(part), headMax)]...)
		}
		switch {
		case err == nil:
			if e, ok := parse(bytes.TrimSuffix(head, []byte("\n"))); !ok || !e.partial {
				ends = append(ends, at)
				partial = false
			} else {
				partial = true
			}
			head = head[:0]
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return ends, partial || len(head) > 0, nil
		default:
			return nil, false, fmt.Errorf("log: %w", err)
		}
	}
}

// headMax of a line holds its time, stream and tag.
const headMax = 128
