// Package auth keeps users, roles and what they permit, and decides about
// requests.
//
// Users and roles change only by entries of the log. The state machine asks
// State for the rows that a command writes, and hands each row that has changed
// to Table, whether a request, a record of another member or a restart brought
// it. What is asked at every request is answered by a State, which never
// changes: permissions of a user's roles are merged when they change, so that
// a check is a search in a few sorted ranges and takes no lock.
//
// Who somebody is (tokens, certificates, passwords) is found out above, in
// server: that depends on clocks and on one member.
//
// Invariant: what no rule permits is denied. The revision of auth rises with
// each change of users and roles, and is the same on all members at the same
// position.
// After a crash: rebuilt from the rows of the tables users, roles and meta
// (docs/format/base.md).
package auth

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/holdfast-db/holdfast/proto/authpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
)

// Watcher is told of what matters to tokens, in order, on the apply goroutine.
// It must not block.
type Watcher interface {
	Assigned(token, user string)
	Invalidated(user string) // Gone, or with another password.
	Disabled()               // All tokens are void.
}

// Table is the state in force. One writer, apply; anybody may read.
type Table struct {
	state atomic.Pointer[State]
	next  *draft // Apply's: rows that were taken in and not published.

	mu     sync.Mutex
	notify Watcher // Nil until somebody watches.
}

// NewTable returns one without users, authentication off.
func NewTable() *Table {
	t := &Table{}
	t.state.Store(&State{Revision: firstRevision, users: map[string]*user{}, roles: map[string]*authpb.Role{}})
	return t
}

// State in force. It never changes.
func (t *Table) State() *State { return t.state.Load() }

// Watch sets the one watcher. What happened before it does not hear.
func (t *Table) Watch(w Watcher) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notify = w
}

func (t *Table) tell(f func(Watcher)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.notify != nil {
		f(t.notify)
	}
}

// Assign lets the watcher know of a token that an entry has made.
func (t *Table) Assign(token, user string) {
	t.tell(func(w Watcher) { w.Assigned(token, user) })
}

// ConfigKey is the key of the one row of table meta that is about auth.
var ConfigKey = []byte("auth")

// LoadConfig, LoadUser and LoadRole take in a stored row, ForgetUser and
// ForgetRole one that was deleted. Readers see it after Publish.
func (t *Table) LoadConfig(value []byte) error {
	row := &holdfastpb.Auth{}
	if err := row.UnmarshalVT(value); err != nil {
		return fmt.Errorf("auth row: %w", err)
	}
	if row.Revision == 0 {
		return fmt.Errorf("auth row: %w", errRevisionOfRow)
	}
	d := t.edit()
	d.Enabled, d.Revision = row.Enabled, row.Revision
	return nil
}

// LoadUser takes in the row of a user.
func (t *Table) LoadUser(key, value []byte) error {
	row := &authpb.User{}
	if err := row.UnmarshalVT(value); err != nil {
		return fmt.Errorf("row of user %q: %w", key, err)
	}
	if !bytes.Equal(key, row.Name) {
		return fmt.Errorf("row of user %q: %w", key, errForeignRow)
	}
	t.edit().setUser(string(key), row)
	return nil
}

// ForgetUser takes out a user.
func (t *Table) ForgetUser(key []byte) { t.edit().setUser(string(key), nil) }

// LoadRole takes in the row of a role.
func (t *Table) LoadRole(key, value []byte) error {
	row := &authpb.Role{}
	if err := row.UnmarshalVT(value); err != nil {
		return fmt.Errorf("row of role %q: %w", key, err)
	}
	if !bytes.Equal(key, row.Name) {
		return fmt.Errorf("row of role %q: %w", key, errForeignRow)
	}
	t.edit().setRole(string(key), row)
	return nil
}

// ForgetRole takes out a role.
func (t *Table) ForgetRole(key []byte) { t.edit().setRole(string(key), nil) }

func (t *Table) edit() *draft {
	if t.next == nil {
		t.next = t.state.Load().draft()
	}
	return t.next
}

// Publish puts the rows that were taken in into force, all at once.
func (t *Table) Publish() {
	if t.next == nil {
		return
	}
	d := t.next
	t.next = nil
	t.force(d.finish())
}

// Replace takes over everything from another table, which is not used again.
func (t *Table) Replace(other *Table) {
	other.Publish()
	t.next = nil
	t.force(other.State())
}

// force puts a state into force and tells the watcher what became of users.
//
// Invariant: each token is of a user that is in the state in force, with the
// password that it has there. So those of users who went are void before: one
// who comes later under the same name must not be taken for them. That all are
// void is told afterwards: until then they are asked for.
func (t *Table) force(s *State) {
	old := t.state.Load()
	t.tell(func(w Watcher) {
		for name, u := range old.users { //tidy:ordered each by itself
			if now := s.users[name]; now == nil || now != u && !bytes.Equal(now.row.Password, u.row.Password) {
				w.Invalidated(name)
			}
		}
	})
	t.state.Store(s)
	if old.Enabled && !s.Enabled {
		t.tell(Watcher.Disabled)
	}
}
