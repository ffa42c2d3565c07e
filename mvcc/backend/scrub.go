package backend

import (
	"fmt"
	"runtime/debug"
)

// Scrub says how far a base has been read again. Zero is the beginning. One pass
// may go over several views; then what it adds up proves nothing, and only
// checksums are looked at.
type Scrub struct {
	section int    // Keys, keys of leases, small rows.
	next    []byte // From here on.
	txID    uint64 // Of the first view.
	mixed   bool   // There was another.
	rows    int64
	hash    Sum
	scratch []byte
}

// Whole tells whether count and hash of the rows were compared too.
func (s *Scrub) Whole() bool { return !s.mixed }

// Scrub reads about so many bytes of rows again, against their checksums and
// those of the pages they lie in, and tells whether it came to the end.
func (v *View) Scrub(s *Scrub, bytesMax int64) (read int64, done bool, err error) {
	defer catchFault(v.file, debug.SetPanicOnFault(true), &err)
	if s.txID == 0 {
		s.txID = v.meta.txID
	}
	s.mixed = s.mixed || s.txID != v.meta.txID
	for s.section < 3 {
		n, ended, err := v.scrubSection(s, bytesMax-read)
		read += n
		if err != nil || !ended {
			return read, false, err
		}
		if s.section == 0 && !s.mixed && (s.rows != v.meta.Rows || s.hash != v.meta.StateHash) {
			return read, false, &DamageError{File: v.file, Row: -1, Reason: fmt.Sprintf(
				"rows: the file has %d with hash %s, its last commit noted %d with hash %s", s.rows, s.hash, v.meta.Rows, v.meta.StateHash)}
		}
		s.section++
		s.next = nil
	}
	return read, true, nil
}

func (v *View) scrubSection(s *Scrub, bytesMax int64) (read int64, ended bool, err error) {
	if s.section > 0 {
		t := v.leaseKeys
		if s.section > 1 {
			t = v.rows
		}
		ended = true
		err = t.scan(s.next, func(key, payload []byte) (bool, error) {
			if read >= bytesMax {
				s.next, ended = append(s.next[:0:0], key...), false
				return false, nil
			}
			read += int64(len(key) + len(payload))
			return true, nil
		})
		return read, ended, err
	}
	c := v.Cursor()
	key, kv, err := c.Seek(s.next)
	for ; err == nil && key != nil && read < bytesMax; key, kv, err = c.Next() {
		var row Sum
		row, s.scratch = hashRow(s.scratch, key, kv)
		s.hash.add(row)
		s.rows++
		read += int64(len(kv))
	}
	s.next = append(s.next[:0:0], key...)
	return read, key == nil, err
}
