package vfstest

import (
	"fmt"
	"strings"
)

// Kind is what an operation does. Its text is what transcripts show.
type Kind string

// The kinds of operations.
const (
	OpCreate    Kind = "create"
	OpOpen      Kind = "open"
	OpOpenWrite Kind = "openw"
	OpMkdir     Kind = "mkdir"
	OpRename    Kind = "rename"
	OpLink      Kind = "link"
	OpRemove    Kind = "remove"
	OpRemoveAll Kind = "removeall"
	OpList      Kind = "list"
	OpStat      Kind = "stat"
	OpSyncDir   Kind = "syncdir"
	OpLock      Kind = "lock"
	OpFree      Kind = "free"
	OpRead      Kind = "read"
	OpWrite     Kind = "write"
	OpAllocate  Kind = "alloc"
	OpTruncate  Kind = "trunc"
	OpSync      Kind = "sync"
)

// Op is one call that is about to happen.
type Op struct {
	N      int // Counts all calls, from 0.
	Kind   Kind
	Name   string // File or folder.
	To     string // New name of a rename or link.
	Offset int64  // Of reads and writes.
	Length int64  // Bytes of reads and writes; the new size for alloc and trunc.
}

// Changes reports whether the operation alters the file system: those are
// what transcripts hold.
func (o Op) Changes() bool {
	switch o.Kind {
	case OpOpen, OpOpenWrite, OpList, OpStat, OpFree, OpRead:
		return false
	default:
		return true
	}
}

// String is the operation's line in a transcript.
func (o Op) String() string {
	kind := fmt.Sprintf("%-6s %s", o.Kind, o.Name)
	switch o.Kind {
	case OpSyncDir: // As for a file: what matters is what was synced.
		return fmt.Sprintf("%-6s %s/", OpSync, o.Name)
	case OpRename, OpLink:
		return kind + " " + o.To
	case OpRead, OpWrite:
		if o.Offset > 0 {
			return fmt.Sprintf("%s %d at %d", kind, o.Length, o.Offset)
		}
		return fmt.Sprintf("%s %d", kind, o.Length)
	case OpAllocate, OpTruncate:
		return fmt.Sprintf("%s %d", kind, o.Length)
	default:
		return kind
	}
}

// Short, returned by an injected function for a write, lets that many bytes
// through before the write fails with Err.
type Short struct {
	Bytes int
	Err   error
}

func (s *Short) Error() string { return fmt.Sprintf("short write of %d bytes: %v", s.Bytes, s.Err) }
func (s *Short) Unwrap() error { return s.Err }

// Kept, returned by an injected function for a sync, fails it without deciding
// about what is pending: a later sync makes that durable. That is how a process
// meets a file or folder after another was killed before the sync, and how
// journaling file systems fail that of a folder, unless they stop for good.
type Kept struct{ Err error }

func (k *Kept) Error() string { return k.Err.Error() }
func (k *Kept) Unwrap() error { return k.Err }

// Inject has f called before each operation, with no lock held: it may take
// a crash image, flip bits, or return an error, and then the operation fails
// with it. Nil ends that. A sync that fails loses what it should have made
// durable: it stays readable and no later sync saves it, as on Linux.
func (m *Mem) Inject(f func(Op) error) {
	m.ops.Lock()
	defer m.ops.Unlock()
	m.ops.inject = f
}

// Ops is how many operations there have been.
func (m *Mem) Ops() int {
	m.ops.Lock()
	defer m.ops.Unlock()
	return m.ops.count
}

// Record begins a transcript of all operations that change something.
func (m *Mem) Record() {
	m.ops.Lock()
	defer m.ops.Unlock()
	m.ops.recording = true
	m.ops.lines = nil
}

// Transcript returns what was recorded since Record or the last Transcript, a
// line each.
func (m *Mem) Transcript() string {
	m.ops.Lock()
	defer m.ops.Unlock()
	text := strings.Join(m.ops.lines, "")
	m.ops.lines = nil
	return text
}

// begin counts, records and perhaps fails an operation.
func (m *Mem) begin(op Op) error {
	m.ops.Lock()
	op.N = m.ops.count
	m.ops.count++
	inject := m.ops.inject
	m.ops.Unlock()

	var err error
	if inject != nil {
		err = inject(op)
	}
	m.ops.Lock()
	defer m.ops.Unlock()
	if m.ops.recording && op.Changes() {
		line := op.String()
		if err != nil {
			line += ": " + err.Error()
		}
		m.ops.lines = append(m.ops.lines, line+"\n")
	}
	return err
}
