// Package member keeps who belongs to the cluster.
//
// The table changes only by entries of the log. The state machine asks it
// whether a change is allowed, writes the row it answers with, and then puts
// the row in. Readers on other goroutines get an immutable list.
//
// Invariant: the ID of a removed member is remembered for ever, so that it can
// never come back and no old process can pass for a new member.
// After a crash: rebuilt from the rows of the members table.
package member

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
)

// Row is one member as it is stored.
type Row = holdfastpb.Member

// Table is the members by ID. One writer, the apply goroutine; any readers.
type Table struct {
	rows    atomic.Pointer[map[ident.MemberID]*Row] // Never changed once published.
	version atomic.Uint64
}

// NewTable returns an empty table.
func NewTable() *Table {
	t := &Table{}
	t.rows.Store(&map[ident.MemberID]*Row{})
	return t
}

// List returns the present members by rising ID. The rows are read-only.
func (t *Table) List() []*Row {
	rows := make([]*Row, 0, 8)
	for _, r := range *t.rows.Load() { //tidy:ordered sorted below
		if !r.Removed {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b *Row) int {
		switch {
		case a.Id < b.Id:
			return -1
		case a.Id > b.Id:
			return 1
		}
		return 0
	})
	return rows
}

// Get returns a present member, or nil. The row is read-only.
func (t *Table) Get(id ident.MemberID) *Row {
	r := (*t.rows.Load())[id]
	if r == nil || r.Removed {
		return nil
	}
	return r
}

// Removed tells whether this ID once was a member and was removed.
func (t *Table) Removed(id ident.MemberID) bool {
	r := (*t.rows.Load())[id]
	return r != nil && r.Removed
}

// Put takes in a row that the state machine has written.
func (t *Table) Put(r *Row) {
	next := t.clone()
	next[ident.MemberID(r.Id)] = r
	t.rows.Store(&next)
	t.version.Add(1)
}

// Load takes in a stored row.
func (t *Table) Load(key, value []byte) error {
	r := &Row{}
	if err := r.UnmarshalVT(value); err != nil {
		return fmt.Errorf("member row %x: %w", key, err)
	}
	if !bytes.Equal(key, Key(ident.MemberID(r.Id))) {
		return fmt.Errorf("member row %x holds member %x", key, r.Id)
	}
	t.Put(r)
	return nil
}

// Forget takes out the member whose row was deleted.
func (t *Table) Forget(key []byte) error {
	if len(key) != 8 {
		return fmt.Errorf("member row %x has %d bytes of key, want 8", key, len(key))
	}
	next := t.clone()
	delete(next, ident.MemberID(binary.BigEndian.Uint64(key)))
	t.rows.Store(&next)
	t.version.Add(1)
	return nil
}

// Key is the key of a member's row.
func Key(id ident.MemberID) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(id))
}

func clone(r *Row) *Row {
	return &Row{Id: r.Id, Name: r.Name, PeerUrls: r.PeerUrls, ClientUrls: r.ClientUrls, IsLearner: r.IsLearner, Incarnation: r.Incarnation}
}

func (t *Table) clone() map[ident.MemberID]*Row {
	old := *t.rows.Load()
	next := make(map[ident.MemberID]*Row, len(old)+1)
	for id, r := range old { //tidy:ordered a copy has no order
		next[id] = r
	}
	return next
}

// Add returns the row of a member that is to be added.
func (t *Table) Add(id ident.MemberID, peerURLs []string, learner bool, learnersMax int) (*Row, error) {
	if t.Removed(id) {
		return nil, fmt.Errorf("add %s: %w", id, ErrRemoved)
	}
	if t.Get(id) != nil {
		return nil, fmt.Errorf("add %s: %w", id, ErrIDExists)
	}
	if err := t.checkURLs(id, peerURLs); err != nil {
		return nil, fmt.Errorf("add %s: %w", id, err)
	}
	if learner && t.learners() >= learnersMax {
		return nil, fmt.Errorf("add %s as learner, %d at most: %w", id, learnersMax, ErrTooManyLearner)
	}
	return &Row{Id: uint64(id), PeerUrls: peerURLs, IsLearner: learner}, nil
}

// Remove returns the tombstone of a member that is to be removed.
func (t *Table) Remove(id ident.MemberID) (*Row, error) {
	if t.Removed(id) {
		return nil, fmt.Errorf("remove %s: %w", id, ErrRemoved)
	}
	r := t.Get(id)
	if r == nil {
		return nil, fmt.Errorf("remove %s: %w", id, ErrNotFound)
	}
	if !r.IsLearner && t.voters() == 1 {
		return nil, fmt.Errorf("remove %s: %w", id, ErrLastVoter)
	}
	return &Row{Id: r.Id, Removed: true}, nil
}

// Promote returns the row of a learner that is to become a voter.
func (t *Table) Promote(id ident.MemberID) (*Row, error) {
	r := t.Get(id)
	if r == nil {
		return nil, fmt.Errorf("promote %s: %w", id, ErrNotFound)
	}
	if !r.IsLearner {
		return nil, fmt.Errorf("promote %s: %w", id, ErrNotLearner)
	}
	next := clone(r)
	next.IsLearner = false
	return next, nil
}

// Update returns the row of a member with other peer URLs.
func (t *Table) Update(id ident.MemberID, peerURLs []string) (*Row, error) {
	r := t.Get(id)
	if r == nil {
		if t.Removed(id) {
			return nil, fmt.Errorf("update %s: %w", id, ErrRemoved)
		}
		return nil, fmt.Errorf("update %s: %w", id, ErrNotFound)
	}
	if err := t.checkURLs(id, peerURLs); err != nil {
		return nil, fmt.Errorf("update %s: %w", id, err)
	}
	next := clone(r)
	next.PeerUrls = peerURLs
	return next, nil
}

// Publish returns the row of a member that tells its name, where clients reach
// it, and which data directory it lives in.
func (t *Table) Publish(id ident.MemberID, name string, clientURLs []string, incarnation uint64) (*Row, error) {
	r := t.Get(id)
	if r == nil {
		return nil, fmt.Errorf("publish %s: %w", id, ErrNotFound)
	}
	next := clone(r)
	next.Name, next.ClientUrls, next.Incarnation = name, clientURLs, incarnation
	return next, nil
}

func (t *Table) checkURLs(id ident.MemberID, peerURLs []string) error {
	for _, r := range t.List() {
		if ident.MemberID(r.Id) == id {
			continue
		}
		for _, u := range peerURLs {
			if slices.Contains(r.PeerUrls, u) {
				return fmt.Errorf("%s of member %x: %w", u, r.Id, ErrURLExists)
			}
		}
	}
	return nil
}

func (t *Table) voters() int { return len(t.List()) - t.learners() }

func (t *Table) learners() int {
	n := 0
	for _, r := range t.List() {
		if r.IsLearner {
			n++
		}
	}
	return n
}

// Replace takes over everything from another table, which is not used again.
func (t *Table) Replace(other *Table) {
	t.rows.Store(other.rows.Load())
	t.version.Add(1)
}

// Version changes with every change of the table.
func (t *Table) Version() uint64 { return t.version.Load() }

// RemovedIDs returns who ever was removed, by rising ID.
func (t *Table) RemovedIDs() []ident.MemberID {
	var ids []ident.MemberID
	for id, r := range *t.rows.Load() { //tidy:ordered sorted below
		if r.Removed {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
