// Package lease keeps which leases exist and what they were granted.
//
// Leases change only by entries of the log. When a lease runs out is no matter
// of this package: the leader decides that by its clock and proposes the
// revocation, so a clock never removes a key. Which keys hang on a lease is
// kept with the keys, in mvcc; the state machine joins the two.
//
// Readers on other goroutines may look at any time; one writer, apply.
// After a crash: rebuilt from the rows of the leases table. Remaining time is
// not kept: it starts anew at the full TTL.
package lease

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
)

// Outcomes, equal on all members.
var (
	ErrTTL      = errors.New("lease is granted for too long")
	ErrNotFound = errors.New("lease not found")
	ErrExists   = errors.New("lease already exists")
)

// Watcher is told of every change, in order, on the apply goroutine. It must
// not block.
type Watcher interface {
	Granted(id ident.LeaseID, ttlSeconds int64)
	Revoked(id ident.LeaseID)
}

// Table is the leases by ID.
type Table struct {
	mu     sync.RWMutex
	ttl    map[ident.LeaseID]int64 // Granted seconds.
	notify Watcher                 // Nil until somebody watches.
}

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{ttl: map[ident.LeaseID]int64{}}
}

// Watch sets the one watcher and tells it of every lease there is.
func (t *Table) Watch(w Watcher) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notify = w
	for id, ttl := range t.ttl { //tidy:ordered a watcher keeps a set
		w.Granted(id, ttl)
	}
}

// TTL returns what a lease was granted, in seconds.
func (t *Table) TTL(id ident.LeaseID) (int64, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	ttl, ok := t.ttl[id]
	return ttl, ok
}

// List returns all leases by rising ID.
func (t *Table) List() []ident.LeaseID {
	t.mu.RLock()
	ids := make([]ident.LeaseID, 0, len(t.ttl))
	for id := range t.ttl { //tidy:ordered sorted below
		ids = append(ids, id)
	}
	t.mu.RUnlock()
	slices.Sort(ids)
	return ids
}

// ttlMax in seconds, as etcd: a larger one would overflow a duration.
const ttlMax = 9_000_000_000

// CheckGrant tells whether a lease may be granted under this ID for so long.
func (t *Table) CheckGrant(id ident.LeaseID, ttlSeconds int64) error {
	if ttlSeconds > ttlMax {
		return fmt.Errorf("grant lease %d for %d s: %w", id, ttlSeconds, ErrTTL)
	}
	if _, ok := t.TTL(id); ok {
		return fmt.Errorf("grant lease %d: %w", id, ErrExists)
	}
	return nil
}

// Check tells whether a lease exists.
func (t *Table) Check(id ident.LeaseID) error {
	if _, ok := t.TTL(id); !ok {
		return fmt.Errorf("lease %d: %w", id, ErrNotFound)
	}
	return nil
}

// Put takes in a granted lease.
func (t *Table) Put(id ident.LeaseID, ttlSeconds int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ttl[id] = ttlSeconds
	if t.notify != nil {
		t.notify.Granted(id, ttlSeconds)
	}
}

// Delete takes a revoked lease out.
func (t *Table) Delete(id ident.LeaseID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.ttl, id)
	if t.notify != nil {
		t.notify.Revoked(id)
	}
}

// Replace takes over everything from another table, which is not used again. The
// watcher hears only of leases that come, go or change.
func (t *Table) Replace(other *Table) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.ttl
	t.ttl = other.ttl
	if t.notify == nil {
		return
	}
	for id := range old { //tidy:ordered a watcher keeps a set
		if _, ok := t.ttl[id]; !ok {
			t.notify.Revoked(id)
		}
	}
	for id, ttl := range t.ttl { //tidy:ordered a watcher keeps a set
		if before, ok := old[id]; !ok || before != ttl {
			t.notify.Granted(id, ttl)
		}
	}
}

// Row is how a lease is stored.
func Row(id ident.LeaseID, ttlSeconds int64) (key, value []byte, err error) {
	value, err = (&holdfastpb.Lease{Id: int64(id), Ttl: ttlSeconds}).MarshalVT()
	return Key(id), value, err
}

// Key is the key of a lease's row.
func Key(id ident.LeaseID) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(id))
}

// Load takes in a stored row.
func (t *Table) Load(key, value []byte) error {
	row := &holdfastpb.Lease{}
	if err := row.UnmarshalVT(value); err != nil {
		return fmt.Errorf("lease row %x: %w", key, err)
	}
	if !bytes.Equal(key, Key(ident.LeaseID(row.Id))) {
		return fmt.Errorf("lease row %x holds lease %x", key, row.Id)
	}
	t.Put(ident.LeaseID(row.Id), row.Ttl)
	return nil
}

// Forget takes out the lease whose row was deleted.
func (t *Table) Forget(key []byte) error {
	if len(key) != 8 {
		return fmt.Errorf("lease row %x has %d bytes of key, want 8", key, len(key))
	}
	t.Delete(ident.LeaseID(binary.BigEndian.Uint64(key)))
	return nil
}
