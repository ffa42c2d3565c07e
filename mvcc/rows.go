package mvcc

import (
	"slices"

	"github.com/holdfast-db/holdfast/mvcc/backend"
)

// rowTables are the small rows (leases, users, roles, members, alarms, meta),
// whole in memory. The apply goroutine owns them; what changed is written to
// base at the next checkpoint.
type rowTables [tablesMax]rowTable

type rowTable struct {
	rows  map[string][]byte // Values are never changed in place.
	order []string          // Keys by rising order, when sorted is set.

	sorted bool
}

// rowID names a small row.
type rowID struct {
	table backend.Table
	key   string
}

func (t *rowTables) of(table backend.Table) *rowTable { return &t[table] }

func (t *rowTable) set(key string, value []byte) {
	if t.rows == nil {
		t.rows = make(map[string][]byte)
	}
	if value == nil {
		delete(t.rows, key)
		t.sorted = false
		return
	}
	if _, ok := t.rows[key]; !ok {
		t.sorted = false
	}
	t.rows[key] = value
}

// keys returns all keys by rising order.
func (t *rowTable) keys() []string {
	if !t.sorted {
		t.order = t.order[:0]
		for key := range t.rows { //tidy:ordered sorted below
			t.order = append(t.order, key)
		}
		slices.Sort(t.order)
		t.sorted = true
	}
	return t.order
}

// each calls fn for each row by rising key. fn may change rows: it is told of
// those that were there at first and still are.
func (t *rowTable) each(fn func(key, value []byte) error) error {
	for _, key := range slices.Clone(t.keys()) {
		value, ok := t.rows[key]
		if !ok {
			continue
		}
		if err := fn([]byte(key), value); err != nil {
			return err
		}
	}
	return nil
}

// copy returns the same rows for a reader on another goroutine.
func (t *rowTables) copy() *rowTables {
	c := &rowTables{}
	for i := range t {
		src := &t[i]
		c[i].rows = make(map[string][]byte, len(src.rows))
		for key, value := range src.rows { //tidy:ordered a map is copied
			c[i].rows[key] = value
		}
	}
	return c
}
