// Package alarm keeps the alarms that members have raised: no space, corrupt.
//
// Alarms change only by entries of the log, survive restarts and stay until
// somebody disarms them. While one is on, the state machine refuses what would
// make things worse.
package alarm

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// Kind says what is wrong. The numbers are those of the wire protocol.
type Kind int32

// The kinds of alarm.
const (
	None    Kind = 0
	NoSpace Kind = 1
	Corrupt Kind = 2
)

// Alarm is one member's complaint.
type Alarm struct {
	Member ident.MemberID
	Kind   Kind
}

// Table is the set of alarms that are on. One writer, apply; any readers.
type Table struct {
	on atomic.Pointer[[]Alarm] // Sorted by kind and member, never changed once published.
}

// NewTable returns an empty table.
func NewTable() *Table {
	t := &Table{}
	t.on.Store(&[]Alarm{})
	return t
}

// List returns the alarms of a kind, or all for None, sorted. Read-only.
func (t *Table) List(kind Kind) []Alarm {
	all := *t.on.Load()
	if kind == None {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(a Alarm) bool { return a.Kind != kind })
}

// On tells whether any member has raised this alarm.
func (t *Table) On(kind Kind) bool {
	return slices.ContainsFunc(*t.on.Load(), func(a Alarm) bool { return a.Kind == kind })
}

// Has tells whether this very alarm is on.
func (t *Table) Has(a Alarm) bool { return slices.Contains(*t.on.Load(), a) }

// Put takes in an alarm that was raised.
func (t *Table) Put(a Alarm) {
	if t.Has(a) {
		return
	}
	next := append(slices.Clone(*t.on.Load()), a)
	slices.SortFunc(next, func(x, y Alarm) int {
		if x.Kind != y.Kind {
			return int(x.Kind - y.Kind)
		}
		if x.Member < y.Member {
			return -1
		}
		return 1
	})
	t.on.Store(&next)
}

// Delete takes out an alarm that was disarmed.
func (t *Table) Delete(a Alarm) {
	next := slices.DeleteFunc(slices.Clone(*t.on.Load()), func(x Alarm) bool { return x == a })
	t.on.Store(&next)
}

// Replace takes over everything from another table, which is not used again.
func (t *Table) Replace(other *Table) { t.on.Store(other.on.Load()) }

// Key is the key of an alarm's row; the value is empty.
func Key(a Alarm) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(a.Kind)), uint64(a.Member))
}

// Parse reads the key of a row.
func Parse(key []byte) (Alarm, error) {
	if len(key) != 12 {
		return Alarm{}, fmt.Errorf("alarm row %x has %d bytes of key, want 12", key, len(key))
	}
	return Alarm{
		Kind:   Kind(binary.BigEndian.Uint32(key)),
		Member: ident.MemberID(binary.BigEndian.Uint64(key[4:])),
	}, nil
}
