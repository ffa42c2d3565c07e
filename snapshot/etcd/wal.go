package etcd

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// place is where an entry lies.
type place struct {
	file   int // In log.files.
	offset int64
	term   uint64
	conf   bool // It changes the configuration.
}

// log is etcd's log, read once from end to end.
type log struct {
	files   []vfs.File
	first   uint64 // Index of the first entry in places.
	places  []place
	state   *raftpb.HardState
	cluster uint64
	torn    bool // The newest record was written in part, and is left out.
}

func (l *log) last() uint64 { return l.first + uint64(len(l.places)) - 1 }

func (l *log) close() error {
	var all error
	for _, f := range l.files {
		all = errors.Join(all, f.Close())
	}
	return all
}

// openLog reads the log of a directory from entry `from` on.
func openLog(fsys vfs.FS, dir string, from uint64) (*log, error) {
	names, first, err := logFiles(fsys, dir, from)
	if err != nil {
		return nil, err
	}
	l := &log{state: &raftpb.HardState{}, first: max(first, 1)}
	for _, name := range names {
		f, err := fsys.Open(name)
		if err != nil {
			return nil, errors.Join(err, l.close())
		}
		l.files = append(l.files, f)
	}
	s := &scanner{log: l}
	for i := range l.files {
		if err := s.scan(i, i == len(l.files)-1); err != nil {
			return nil, errors.Join(err, l.close())
		}
	}
	return l, nil
}

// logFiles are those that hold entry from and what comes after it, and the first
// entry that was written to them.
func logFiles(fsys vfs.FS, dir string, from uint64) (names []string, first uint64, err error) {
	all, err := fsys.List(dir)
	if err != nil {
		return nil, 0, err
	}
	var sequence uint64
	for _, name := range all {
		var seq, index uint64
		if filepath.Ext(name) != ".wal" {
			continue // Files that were prepared for later, and what a repair has kept.
		}
		if n, err := fmt.Sscanf(name, "%16x-%16x.wal", &seq, &index); n != 2 || err != nil || fmt.Sprintf("%016x-%016x.wal", seq, index) != name {
			return nil, 0, &DamageError{File: filepath.Join(dir, name), Reason: "its name is not that of a log file"}
		}
		if sequence++; len(names) > 0 && seq != sequence {
			return nil, 0, &DamageError{File: filepath.Join(dir, name), Reason: fmt.Sprintf("the file before it is missing: expected number %x", sequence)}
		}
		if sequence = seq; index <= from {
			names, first = names[:0], index
		} else if len(names) == 0 {
			return nil, 0, &DamageError{File: filepath.Join(dir, name), Reason: fmt.Sprintf("the log begins with entry %d here, the database needs it from entry %d on", index, from)}
		}
		names = append(names, filepath.Join(dir, name))
	}
	if len(names) == 0 {
		return nil, 0, fmt.Errorf("%s holds no log of etcd: %w", dir, ErrNotEtcd)
	}
	return names, first, nil
}

// scanner goes through files and verifies each record.
type scanner struct {
	log      *log
	crc      uint32
	chained  bool
	metadata []byte

	described bool // The file at hand has said whose it is.
}

func (s *scanner) scan(i int, newest bool) error {
	f := s.log.files[i]
	size, err := f.Size()
	if err != nil {
		return err
	}
	s.described = false
	for offset := int64(0); ; {
		r, err := readRecord(f, size, offset)
		if errors.Is(err, io.EOF) {
			if damage := new(DamageError); errors.As(err, &damage) {
				return damage
			}
			if offset == 0 && !newest {
				return &DamageError{File: f.Name(), Reason: "no record in a file that others follow"}
			}
			return nil
		}
		torn := errors.Is(err, errTorn)
		if r != nil {
			if err = s.take(r, i, offset); err == nil {
				offset = r.next
				continue
			}
		}
		if torn && newest {
			if s.log.torn, err = s.unfinished(f, size, offset, r, err); s.log.torn {
				return nil
			}
		}
		return err
	}
}

// unfinished reports whether a record that looks torn is the end of the log: a
// write that was never synced, so that nobody was told of it. It is not when
// more follows, or when the record is whole but for its length; then damage is
// what is wrong.
func (s *scanner) unfinished(f vfs.File, size, offset int64, r *record, damage error) (bool, error) {
	body := make([]byte, min(size-offset-lengthBytes, recordBytesMax))
	if _, err := f.ReadAt(body, offset+lengthBytes); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if whole := leadingRecord(body); whole != nil && (whole.kind == recordCRC || crc32.Update(s.crc, castagnoli, whole.data) == whole.crc) {
		return false, damage
	}
	if r == nil { // It goes to the end of the file.
		return true, nil
	}
	zero, err := zeroes(f, r.next, size)
	if err == nil && !zero {
		err = damage
	}
	return zero, err
}

// take verifies a record and keeps what it says.
func (s *scanner) take(r *record, file int, offset int64) error {
	f := s.log.files[file]
	damaged := func(format string, args ...any) error {
		return &DamageError{File: f.Name(), Offset: offset, Reason: fmt.Sprintf(format, args...)}
	}
	if r.kind == recordCRC {
		if s.chained && r.crc != s.crc {
			return damaged("the file before ends with checksum %08x, here is %08x", s.crc, r.crc)
		}
		s.crc, s.chained = r.crc, true
		return nil
	}
	crc := crc32.Update(s.crc, castagnoli, r.data)
	if !s.chained || crc != r.crc {
		return damaged("record has checksum %08x, not %08x", crc, r.crc)
	}
	s.crc = crc
	if reason := s.content(r, file, offset); reason != "" {
		return damaged("%s", reason)
	}
	return nil
}

// content takes in what a record says, or tells why it is not what its kind
// should be: no checksum covers the kind.
func (s *scanner) content(r *record, file int, offset int64) (reason string) {
	switch r.kind {
	case recordMetadata:
		m, err := decodeFields(r.data)
		if err != nil || s.metadata != nil && string(s.metadata) != string(r.data) {
			return "record of another member, or none"
		}
		s.metadata, s.log.cluster, s.described = r.data, m.numbers[2], true
	case recordState:
		state := &raftpb.HardState{}
		if err := proto.Unmarshal(r.data, state); err != nil || state.GetTerm() == 0 || len(state.ProtoReflect().GetUnknown()) > 0 {
			return "no state of Raft"
		}
		s.log.state = state
	case recordSnapshot:
		m, err := decodeFields(r.data)
		if err != nil {
			return "no note of a snapshot"
		}
		s.snapshot(m.numbers[1])
	case recordEntry:
		reason = s.entry(r.data, file, offset)
	default:
		return fmt.Sprintf("record of kind %d", r.kind)
	}
	if reason == "" && !s.described {
		return "a file that does not begin with whose it is"
	}
	return reason
}

// snapshot is a note that the state is on disk up to an entry. When the log has
// not got so far, a peer has sent that state, and the log goes on behind it.
func (s *scanner) snapshot(index uint64) {
	if l := s.log; index > l.last() {
		l.first, l.places = index+1, l.places[:0]
	}
}

// entry adds an entry. It replaces what a leader before has left from it on.
func (s *scanner) entry(data []byte, file int, offset int64) (reason string) {
	e := &raftpb.Entry{}
	err := proto.Unmarshal(data, e)
	conf := e.GetType() != raftpb.EntryNormal
	if err != nil || e.GetTerm() == 0 || conf && len(e.GetData()) == 0 || e.GetType() > raftpb.EntryConfChangeV2 {
		return "no entry"
	}
	l, index := s.log, e.GetIndex()
	if index == 0 || index > l.last()+1 {
		return fmt.Sprintf("entry %d after entry %d", index, l.last())
	}
	if index < l.first { // What stood there is in a file that was not read.
		l.first, l.places = index, l.places[:0]
	}
	l.places = append(l.places[:index-l.first], place{file: file, offset: offset, term: e.GetTerm(), conf: conf})
	return ""
}

// entryAt reads an entry again.
func (l *log) entryAt(index uint64) (*raftpb.Entry, error) {
	at := l.places[index-l.first]
	size, err := l.files[at.file].Size()
	if err != nil {
		return nil, err
	}
	r, err := readRecord(l.files[at.file], size, at.offset)
	if r == nil { // Errors beside a record were disproved by its checksum.
		return nil, err
	}
	e := &raftpb.Entry{}
	if err := proto.Unmarshal(r.data, e); err != nil {
		return nil, err
	}
	return e, nil
}
