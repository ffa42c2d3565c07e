package logfile

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// Defaults of a writer.
const (
	BytesMax = 10 << 20 // Of one file.
	FilesMax = 5        // The one that is written to, and those before.
)

// lineMax is the longest piece of a line that is written at once, as in other engines: readers have buffers of that size.
const lineMax = 16 << 10

// Streams of a container.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// Config of a writer.
type Config struct {
	Path     string // The file; rotated ones beside it have its name and .1, .2, ….
	BytesMax int64  // 0: BytesMax.
	FilesMax int    // 0: FilesMax.
	Clock    clock.Clock
}

// Writer writes the log of one attempt of a container. Its streams may be written
// from a goroutine each.
//
// A full disk does not stop the container: what cannot be written is counted, and the
// count is a line of its own once there is room.
type Writer struct {
	cfg Config

	mu struct {
		sync.Mutex
		file *os.File
		size int64
		lost int64 // Bytes that could not be written and were not told of.
		out  []byte
	}
}

// Create opens the log for appending.
func Create(cfg Config) (*Writer, error) {
	if cfg.BytesMax == 0 {
		cfg.BytesMax = BytesMax
	}
	if cfg.FilesMax == 0 {
		cfg.FilesMax = FilesMax
	}
	w := &Writer{cfg: cfg}
	if err := w.openLocked(); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *Writer) openLocked() error {
	f, err := os.OpenFile(w.cfg.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	w.mu.file, w.mu.size = f, info.Size()
	return nil
}

// Stream returns what takes the bytes of one stream.
func (w *Writer) Stream(name string) *Stream { return &Stream{w: w, name: name} }

// Close closes the file. Streams are closed before.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.file == nil {
		return nil
	}
	err := w.mu.file.Close()
	w.mu.file = nil
	return err
}

// Stream cuts bytes into lines. It is for one goroutine.
type Stream struct {
	w     *Writer
	name  string
	carry []byte // The begin of a line, less than lineMax.
}

// Write writes all lines that end in b. It never fails: what is lost is told in the log.
func (s *Stream) Write(b []byte) (int, error) {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	stamp := w.cfg.Clock.Wall()
	w.mu.out = w.mu.out[:0]
	written := 0
	for rest := b; len(rest) > 0; {
		piece, ended := rest, false
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			piece, ended = rest[:i], true
		}
		room := lineMax - len(s.carry)
		if len(piece) < room && !ended {
			s.carry = append(s.carry, piece...)
			break
		}
		if len(piece) > room {
			piece, ended = piece[:room], false
		}
		rest = rest[len(piece):]
		if ended {
			rest = rest[1:]
		}
		w.mu.out = appendLine(w.mu.out, stamp, s.name, ended, s.carry, piece)
		written += len(s.carry) + len(piece)
		s.carry = s.carry[:0]
	}
	if len(w.mu.out) > 0 {
		w.writeLocked(written)
	}
	return len(b), nil
}

// Close writes a line that has no end, as a part.
func (s *Stream) Close() error {
	if len(s.carry) == 0 {
		return nil
	}
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.out = appendLine(w.mu.out[:0], w.cfg.Clock.Wall(), s.name, false, s.carry)
	w.writeLocked(len(s.carry))
	s.carry = nil
	return nil
}

func appendLine(to []byte, stamp time.Time, stream string, ended bool, text ...[]byte) []byte {
	to = stamp.UTC().AppendFormat(to, time.RFC3339Nano)
	to = append(to, ' ')
	to = append(to, stream...)
	if ended {
		to = append(to, " F "...)
	} else {
		to = append(to, " P "...)
	}
	for _, t := range text {
		to = append(to, t...)
	}
	return append(to, '\n')
}

// writeLocked writes w.mu.out, of so many bytes of the container.
func (w *Writer) writeLocked(bytes int) {
	if w.mu.size > 0 && w.mu.size+int64(len(w.mu.out)) > w.cfg.BytesMax {
		w.rotateLocked()
	}
	if w.mu.file == nil {
		if err := w.openLocked(); err != nil {
			w.mu.lost += int64(bytes)
			return
		}
	}
	if w.mu.lost > 0 {
		note := appendLine(nil, w.cfg.Clock.Wall(), Stderr, true, fmt.Appendf(nil, "holdfast: %d bytes before this line could not be written", w.mu.lost))
		if !w.appendLocked(note) {
			w.mu.lost += int64(bytes)
			return
		}
		w.mu.lost = 0
	}
	if !w.appendLocked(w.mu.out) {
		w.mu.lost += int64(bytes)
	}
}

// appendLocked takes back what was written of a block in part: half a line would be
// read as one.
func (w *Writer) appendLocked(b []byte) bool {
	if _, err := w.mu.file.Write(b); err == nil {
		w.mu.size += int64(len(b))
		return true
	}
	if err := w.mu.file.Truncate(w.mu.size); err != nil {
		_ = w.mu.file.Close()
		w.mu.file = nil // Opened anew with the next write.
	}
	return false
}

// rotateLocked moves each file one further. The last falls off. Where a rename fails
// the file in hand grows on: better too large than lost.
func (w *Writer) rotateLocked() {
	if w.mu.file == nil {
		return
	}
	for i := w.cfg.FilesMax - 1; i > 1; i-- {
		_ = os.Rename(Rotated(w.cfg.Path, i-1), Rotated(w.cfg.Path, i))
	}
	var err error
	if w.cfg.FilesMax > 1 {
		err = os.Rename(w.cfg.Path, Rotated(w.cfg.Path, 1))
	} else {
		err = os.Remove(w.cfg.Path)
	}
	if err != nil {
		return
	}
	_ = w.mu.file.Close()
	w.mu.file, w.mu.size = nil, 0
}

// Rotated is the name of a rotated file: 1 is the newest.
func Rotated(path string, i int) string { return path + "." + strconv.Itoa(i) }

// Remove removes a log with all its rotated files.
func Remove(path string, filesMax int) error {
	if filesMax == 0 {
		filesMax = FilesMax
	}
	var first error
	for i := filesMax; i >= 0; i-- {
		name := path
		if i > 0 {
			name = Rotated(path, i)
		}
		if err := os.Remove(name); err != nil && !os.IsNotExist(err) && first == nil {
			first = err
		}
	}
	return first
}
