// Package statemachine turns entries of the log into changes of state and
// answers, the same on every member.
//
// One case per command. Each request of an entry is one transaction on the
// store: it takes effect whole, at one revision, or not at all. The small
// tables (leases, members, alarms, users and roles) are rows of the store with a typed copy in
// memory; the copy is changed only after the transaction has, by the same door
// whether a request, a record of another member or a restart brought the row.
//
// Invariant: no clock, randomness, environment or map order decides a byte of
// state (I-7). An error in an answer is an outcome and equal on all members;
// an error returned by Apply means this member must stop.
// After a crash: the store comes back as of its last checkpoint, New loads the
// tables from it, and the log replays the rest through Apply.
package statemachine

import (
	"bytes"
	"fmt"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine/alarm"
	"github.com/holdfast-db/holdfast/statemachine/auth"
	"github.com/holdfast-db/holdfast/statemachine/lease"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

// Machine executes entries on a store. Apply, ApplyRecord and Reload are for
// the apply goroutine; the tables and counters may be read by anybody.
type Machine struct {
	Leases   *lease.Table
	Members  *member.Table
	Alarms   *alarm.Table
	Auth     *auth.Table
	Counters Counters

	store   *mvcc.Store
	cluster atomic.Pointer[holdfastpb.Cluster]
}

// Counters count what clients did, since the process started: a put or a delete
// also inside a transaction, and a delete for each key that a lease takes along,
// as etcd counts them.
type Counters struct {
	Puts, Deletes, Txns, Ranges atomic.Int64
	PutBytes                    atomic.Int64 // Of keys and values.
}

// New returns a machine on a store, with its tables loaded.
func New(store *mvcc.Store) (*Machine, error) {
	m := &Machine{
		Leases:  lease.NewTable(),
		Members: member.NewTable(),
		Alarms:  alarm.NewTable(),
		Auth:    auth.NewTable(),
	}
	return m, m.Reload(store)
}

// Reload goes on with another store, in the same tables: what a snapshot
// brought replaces everything. Readers see the old tables or the new ones, and
// never a part.
func (m *Machine) Reload(store *mvcc.Store) error {
	next := Machine{Leases: lease.NewTable(), Members: member.NewTable(), Alarms: alarm.NewTable(), Auth: auth.NewTable()}
	for _, table := range []mvcc.Table{mvcc.TableLease, mvcc.TableUser, mvcc.TableRole, mvcc.TableMember, mvcc.TableAlarm, mvcc.TableMeta} {
		err := store.Rows(table, func(key, value []byte) error {
			return next.take(row{table: table, key: key, value: value})
		})
		if err != nil {
			return fmt.Errorf("load table %d: %w", table, err)
		}
	}
	m.store = store
	m.Members.Replace(next.Members)
	m.Leases.Replace(next.Leases)
	m.Alarms.Replace(next.Alarms)
	m.Auth.Replace(next.Auth)
	m.cluster.Store(next.cluster.Load())
	return nil
}

// Cluster is what is known of the cluster as a whole, nil before its first
// command.
func (m *Machine) Cluster() *holdfastpb.Cluster { return m.cluster.Load() }

// Apply executes entries in order. The answers are those of all requests, in
// order.
func (m *Machine) Apply(entries []entry.Entry) ([]entry.Answer, error) {
	answers := make([]entry.Answer, 0, requests(entries))
	for i := range entries {
		var err error
		if answers, err = m.applyEntry(&entries[i], answers); err != nil {
			return nil, fmt.Errorf("apply entry %d: %w", entries[i].Index, err)
		}
	}
	return answers, nil
}

func requests(entries []entry.Entry) int {
	n := 0
	for i := range entries {
		n += len(entries[i].Requests) + 1
	}
	return n
}

func (m *Machine) applyEntry(ent *entry.Entry, answers []entry.Answer) ([]entry.Answer, error) {
	e := m.store.Begin(ent.Index, ent.Term, ent.Time)
	if ent.Conf != nil {
		a, err := m.applyConf(e, ent)
		if err != nil {
			return nil, e.Fail(err)
		}
		answers = append(answers, a)
	}
	for i := range ent.Requests {
		a := m.applyRequest(e, ent, &ent.Requests[i])
		if a.Err != nil && !isOutcome(a.Err) {
			return nil, e.Fail(fmt.Errorf("request %d: %w", i, a.Err)) // Others have what is missing here.
		}
		answers = append(answers, a)
	}
	return answers, e.Commit()
}

func (m *Machine) applyRequest(e *mvcc.Entry, ent *entry.Entry, r *entry.Request) entry.Answer {
	cmd := &holdfastpb.Command{}
	if err := cmd.UnmarshalVT(r.Data); err != nil {
		e.Tx().Abort() // The request keeps its place in the entry.
		return entry.Answer{ID: r.ID, Err: fmt.Errorf("%w: %w", ErrUndecodable, err)}
	}
	value, err := m.execute(&request{m: m, tx: e.Tx(), term: ent.Term, index: ent.Index}, cmd)
	return entry.Answer{ID: r.ID, Value: value, Err: err}
}

// applyConf asks the command whether the change of configuration is allowed,
// tells the log, and stores the configuration in force with the entry's index
// (I-2).
func (m *Machine) applyConf(e *mvcc.Entry, ent *entry.Entry) (entry.Answer, error) {
	c := ent.Conf
	a := entry.Answer{ID: c.Request.ID}
	if len(c.Request.Data) > 0 {
		cmd := &holdfastpb.Command{}
		if err := cmd.UnmarshalVT(c.Request.Data); err != nil {
			a.Err = fmt.Errorf("%w: %w", ErrUndecodable, err)
		}
		if a.Err == nil && !sameChange(c.Change, ConfChange(cmd)) {
			a.Err = ErrMismatch
		}
		if a.Err == nil {
			a.Value, a.Err = m.execute(&request{m: m, tx: e.Tx(), term: ent.Term, index: ent.Index}, cmd)
		}
		if a.Err != nil && !isOutcome(a.Err) {
			return a, a.Err
		}
	}
	state, err := proto.Marshal(c.Resolve(a.Err == nil))
	if err != nil {
		return a, fmt.Errorf("encode configuration: %w", err)
	}
	e.SetConfState(state)
	return a, nil
}

// ApplyRecord takes in a record that another member's history holds, instead
// of the entry that made it.
func (m *Machine) ApplyRecord(rec *history.Record) error {
	if err := m.store.ApplyRecord(rec); err != nil {
		return err
	}
	for _, g := range rec.Groups {
		for _, mut := range g.Mutations {
			if mut.Kind != history.RowPut && mut.Kind != history.RowDelete {
				continue
			}
			err := m.take(row{mvcc.Table(mut.Table), mut.Key, mut.Value, mut.Kind == history.RowDelete})
			if err != nil {
				return fmt.Errorf("record %d: %w", rec.Index, err)
			}
		}
		m.Auth.Publish()
	}
	return nil
}

// row is a change of a small row.
type row struct {
	table      mvcc.Table
	key, value []byte
	gone       bool
}

// take brings the typed tables up to a row that has changed.
func (m *Machine) take(r row) error {
	switch r.table {
	case mvcc.TableLease:
		if r.gone {
			return m.Leases.Forget(r.key)
		}
		return m.Leases.Load(r.key, r.value)
	case mvcc.TableUser, mvcc.TableRole:
		return m.takeAuth(r)
	case mvcc.TableMember:
		if r.gone { // A restore writes the members anew.
			return m.Members.Forget(r.key)
		}
		return m.Members.Load(r.key, r.value)
	case mvcc.TableAlarm:
		a, err := alarm.Parse(r.key)
		if err != nil {
			return err
		}
		if r.gone {
			m.Alarms.Delete(a)
		} else {
			m.Alarms.Put(a)
		}
	case mvcc.TableMeta:
		if bytes.Equal(r.key, auth.ConfigKey) {
			return m.Auth.LoadConfig(r.value)
		}
		c := &holdfastpb.Cluster{}
		if err := c.UnmarshalVT(r.value); err != nil {
			return fmt.Errorf("cluster row: %w", err)
		}
		m.cluster.Store(c)
	}
	return nil
}

func (m *Machine) takeAuth(r row) error {
	switch {
	case r.table == mvcc.TableUser && r.gone:
		m.Auth.ForgetUser(r.key)
	case r.table == mvcc.TableUser:
		return m.Auth.LoadUser(r.key, r.value)
	case r.gone:
		m.Auth.ForgetRole(r.key)
	default:
		return m.Auth.LoadRole(r.key, r.value)
	}
	return nil
}
