package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// The file SYNCED says how far the log was durable after the last sync: what
// the records cannot say of the newest batch, since they were encoded before.
// It is written after each sync and never synced itself, so it costs no disk
// access on the way of a request; it outlives the process, and the power once
// the system has written it back. Whatever it says was true when it was
// written: it may lag behind, and then only tells less.
//
// Two slots are written in turn, each within a sector, so that a torn write
// leaves the other.
//
//	slot, 64 bytes, at 0 and at 512
//	0         8         12     16         24       28                   60    64
//	+---------+---------+------+----------+--------+--------------------+-----+
//	| magic   | version | zero | sequence | offset | reserved, zero     | crc |
//	+---------+---------+------+----------+--------+--------------------+-----+
const (
	markFileName  = "SYNCED"
	markFileBytes = 4096
	markSlotBytes = 64
	markSlotStep  = 512
	markSlots     = 2
)

var markMagic = [8]byte{'h', 'f', 's', 'y', 'n', 'c'}

// syncMark says that all of a segment below offset was durable, and with it
// all segments before.
type syncMark struct {
	sequence uint64
	offset   uint32
}

// after reports whether m says more than other.
func (m syncMark) after(other syncMark) bool {
	return m.sequence > other.sequence || m.sequence == other.sequence && m.offset > other.offset
}

func (m syncMark) encode() [markSlotBytes]byte {
	var b [markSlotBytes]byte
	copy(b[:], markMagic[:])
	binary.LittleEndian.PutUint32(b[8:], formatVersion)
	binary.LittleEndian.PutUint64(b[16:], m.sequence)
	binary.LittleEndian.PutUint32(b[24:], m.offset)
	binary.LittleEndian.PutUint32(b[markSlotBytes-4:], crc32.Checksum(b[:markSlotBytes-4], castagnoli))
	return b
}

// decodeSyncMark returns the mark of a slot, and none if it does not hold.
func decodeSyncMark(b []byte) (syncMark, error) {
	if len(b) < markSlotBytes || [8]byte(b) != markMagic ||
		binary.LittleEndian.Uint32(b[markSlotBytes-4:]) != crc32.Checksum(b[:markSlotBytes-4], castagnoli) {
		return syncMark{}, nil
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v > formatVersion {
		return syncMark{}, fmt.Errorf("version %d, this program reads up to %d: %w", v, formatVersion, ErrNewerFormat)
	}
	return syncMark{sequence: binary.LittleEndian.Uint64(b[16:]), offset: binary.LittleEndian.Uint32(b[24:])}, nil
}

// readSyncMark returns the newest mark of a log. A file that is missing, short
// or damaged says nothing: then the records alone tell.
func readSyncMark(fsys vfs.FS, name string) (syncMark, error) {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return syncMark{}, nil
	}
	if err != nil {
		return syncMark{}, fmt.Errorf("open raft log: %w", err)
	}
	var b [markSlotBytes]byte
	var newest syncMark
	for i := range int64(markSlots) {
		var m syncMark
		n, readErr := f.ReadAt(b[:], i*markSlotStep)
		if n == len(b) {
			m, err = decodeSyncMark(b[:])
		} else if !errors.Is(readErr, io.EOF) {
			err = readErr
		}
		if err != nil {
			return syncMark{}, errors.Join(fmt.Errorf("read %s: %w", name, err), f.Close())
		}
		if m.after(newest) {
			newest = m
		}
	}
	return newest, f.Close()
}

// syncMarks writes the marks. Without a file it does nothing.
type syncMarks struct {
	file vfs.File
	slot int64
}

// openSyncMarks opens the file for writing, or makes it. A log without it is as
// durable, it only tells less after a crash.
func (l *Log) openSyncMarks() {
	name := l.cfg.path(markFileName)
	f, err := l.cfg.FS.OpenWrite(name)
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = l.cfg.FS.Create(name); err == nil {
			if err = f.Allocate(markFileBytes); err != nil {
				err = errors.Join(err, f.Close())
			}
		}
	}
	if err != nil {
		l.cfg.Logger.Warn("cannot keep the mark of what is synced", "file", name, "error", err)
		return
	}
	l.w.marks.file = f
}

// markSynced notes that all of the active segment below pos is durable.
func (l *Log) markSynced() {
	w := &l.w
	if w.marks.file == nil {
		return
	}
	b := syncMark{sequence: w.seg.sequence, offset: uint32(w.pos)}.encode()
	if _, err := w.marks.file.WriteAt(b[:], w.marks.slot*markSlotStep); err != nil {
		l.cfg.Logger.Warn("cannot keep the mark of what is synced", "file", w.marks.file.Name(), "error", errors.Join(err, w.marks.file.Close()))
		w.marks.file = nil
		return
	}
	w.marks.slot = (w.marks.slot + 1) % markSlots
}
