package mvcc

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// travel is a record as it arrives on another member.
func travel(t *testing.T, rec *history.Record) *history.Record {
	t.Helper()
	b, err := rec.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := history.DecodeRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// follow brings a store by records to where another stands: what changed
// nothing has no record, so the last word is an empty entry.
func follow(t *testing.T, to *Store, at State, records []*history.Record) {
	t.Helper()
	for _, rec := range records {
		if err := to.ApplyRecord(rec); err != nil {
			t.Fatal(err)
		}
	}
	if to.Applied().Position.Index < at.Position.Index {
		e := to.Begin(at.Position.Index, at.Term, at.Time)
		e.SetConfState(at.ConfState)
		if err := e.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

func sameState(t *testing.T, got, want State) {
	t.Helper()
	got.Merged, want.Merged = 0, 0 // Physical.
	if len(got.ConfState)+len(want.ConfState) == 0 {
		got.ConfState, want.ConfState = nil, nil
	}
	got.ConfState, want.ConfState = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("state %+v, want %+v", got, want)
	}
}

func TestRecordsThroughTheSecondDoorLeaveTheStateThatEntriesLeft(t *testing.T) {
	forSeeds(t, func(t *testing.T, r *rand.Rand) {
		cfgA, cfgB := testConfig(t), testConfig(t)
		cfgB.SegmentBytes = 16 << 10
		a, b := mustCreate(t, cfgA), mustCreate(t, cfgB)
		m, sc := newModel(), newScript(r)
		for range 60 {
			sc.head = m.head
			e := sc.entry()
			if err := e.apply(a); err != nil {
				t.Fatal(err)
			}
			m.apply(&e)
			if r.IntN(4) == 0 {
				catchUp(t, b, a)
				sameState(t, b.Applied(), a.Applied())
			}
			if r.IntN(5) == 0 {
				stepAll(t, b)
			}
			if r.IntN(20) == 0 {
				if err := b.checkpoint(); err != nil {
					t.Fatal(err)
				}
				mustClose(t, b)
				b = mustOpen(t, cfgB)
			}
		}
		catchUp(t, b, a)
		sameState(t, b.Applied(), a.Applied())
		m.conf = string(b.Applied().ConfState)
		checkAll(t, b, m)
		mustClose(t, a)
		mustClose(t, b)
	})
}

func catchUp(t *testing.T, b, a *Store) {
	t.Helper()
	r, err := a.History().Scan(ident.Position{Index: b.Applied().Position.Index + 1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var records []*history.Record
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, travel(t, rec))
	}
	follow(t, b, a.Applied(), records)
}

func TestAFrozenStateBecomesAnEqualStoreElsewhere(t *testing.T) {
	forSeeds(t, func(t *testing.T, r *rand.Rand) {
		a, m, sc := mustCreate(t, testConfig(t)), newModel(), newScript(r)
		run := func(n int) {
			for range n {
				sc.head = m.head
				e := sc.entry()
				if err := e.apply(a); err != nil {
					t.Fatal(err)
				}
				m.apply(&e)
				if r.IntN(3) == 0 {
					if _, err := a.Step(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		run(20 + r.IntN(60))
		f, err := a.Freeze()
		if err != nil {
			t.Fatal(err)
		}
		then := m.clone()
		run(20)
		stepAll(t, a)

		b := install(t, f)
		sameState(t, b.Applied(), f.State)
		then.conf = string(b.Applied().ConfState)
		checkAll(t, b, then)
		stepAll(t, b)
		checkAll(t, b, then)
		if r, err := b.Base().Verify(context.Background(), nil); err != nil {
			t.Fatalf("base of the installed store: %v, %+v", err, r)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		mustClose(t, a)
		mustClose(t, b)
	})
}

// install makes a store of a frozen state, as a snapshot's receiver does.
func install(t *testing.T, f *Frozen) *Store {
	t.Helper()
	var records []*history.Record
	if err := f.Records(context.Background(), func(rec *history.Record) error {
		records = append(records, travel(t, rec))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	seed := Seed{Meta: f.Base.Meta()}
	seed.Meta.Applied, seed.Meta.Time = ident.Position{}, 0
	seed.Meta.Compacted = seed.Meta.Merged
	if len(records) > 0 {
		first := records[0]
		seed.Last, seed.Meta.Digest = first.PrevIndex, first.PrevDigest
		seed.Meta.Applied.Index, seed.Meta.Term, seed.Meta.Revision = first.PrevIndex, 0, f.State.Revision
		for i := len(records) - 1; i >= 0; i-- {
			for j := len(records[i].Groups) - 1; j >= 0; j-- {
				if rev := records[i].Groups[j].Revision; rev != 0 {
					seed.Meta.Revision = rev - 1
				}
			}
		}
	} else {
		seed.Meta.Applied, seed.Meta.Term, seed.Meta.Revision = ident.Position{}, 0, f.State.Revision
	}
	if err := f.Rows(func(table backend.Table, key, value []byte) error {
		seed.Rows = append(seed.Rows, backend.RowChange{Table: table, Key: key, Value: value})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	c := f.Base.Cursor()
	started := false
	seed.Next = func() (key, kv []byte, err error) {
		if !started {
			started = true
			return c.Seek(nil)
		}
		return c.Next()
	}
	s, err := CreateFrom(testConfig(t), seed)
	if err != nil {
		t.Fatal(err)
	}
	follow(t, s, f.State, records)
	return s
}
