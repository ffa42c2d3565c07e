package raftnode

import (
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// listDisk is a log on disk that holds entries 2 to its length.
type listDisk struct{ terms []ident.Term }

func (l *listDisk) Entries(lo, hi ident.Index, maxBytes uint64) ([]*raftpb.Entry, error) {
	if maxBytes > LogReadBytesMax {
		return nil, errors.New("asked for more than the loop may wait for")
	}
	var out []*raftpb.Entry
	for i := lo; i < hi; i++ {
		term, err := l.Term(i)
		if err != nil {
			return nil, err
		}
		out = append(out, normal(uint64(i), uint64(term), "disk"))
	}
	return out, nil
}

func (l *listDisk) Term(i ident.Index) (ident.Term, error) {
	if i < 1 || int(i) > len(l.terms) {
		return 0, wal.ErrUnavailable
	}
	return l.terms[i-1], nil
}

func ones(n int) []ident.Term {
	terms := make([]ident.Term, n)
	for i := range terms {
		terms[i] = 1
	}
	return terms
}

func entriesOf(from, to, term uint64) []*raftpb.Entry {
	var out []*raftpb.Entry
	for i := from; i <= to; i++ {
		out = append(out, normal(i, term, "memory"))
	}
	return out
}

func TestOldEntriesComeFromDiskAndNewOnesFromMemory(t *testing.T) {
	l := newRecentLog(&listDisk{terms: ones(10)}, wal.HardState{}, &raftpb.ConfState{}, wal.Mark{Index: 1, Term: 1}, wal.Mark{Index: 10, Term: 1})
	l.append(entriesOf(11, 20, 2))
	for lo := uint64(2); lo <= 20; lo++ {
		entries, err := l.Entries(lo, 21, 1<<30)
		if err != nil || len(entries) == 0 || entries[0].GetIndex() != lo {
			t.Fatalf("from %d: %v, %v", lo, entries, err)
		}
		term, err := l.Term(lo)
		if want := uint64(1 + lo/11); err != nil || term != want {
			t.Errorf("term of %d is %d, want %d, %v", lo, term, want, err)
		}
	}
	if _, err := l.Entries(1, 3, 1); !errors.Is(err, raft.ErrCompacted) {
		t.Errorf("the entry before the first: %v", err)
	}
	if entries, err := l.Entries(12, 21, 1); err != nil || len(entries) != 1 {
		t.Errorf("at least one entry: %v, %v", entries, err)
	}
}

func TestALaterEntryWithALowerIndexSupersedes(t *testing.T) {
	for _, first := range []uint64{8, 11, 13, 16} {
		t.Run(fmt.Sprint(first), func(t *testing.T) {
			l := newRecentLog(&listDisk{terms: ones(10)}, wal.HardState{}, &raftpb.ConfState{}, wal.Mark{Index: 1, Term: 1}, wal.Mark{Index: 10, Term: 1})
			l.append(entriesOf(11, 15, 2))
			l.synced(15, 2)
			old, err := l.Entries(11, 16, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			l.append(entriesOf(first, first+1, 3))
			if l.last != (wal.Mark{Index: ident.Index(first + 1), Term: 3}) {
				t.Errorf("ends at %s", l.last)
			}
			if first <= 15 && l.durable != ident.Index(first-1) {
				t.Errorf("durable to %d", l.durable)
			}
			l.synced(15, 2) // A late report about what was superseded.
			if l.durable >= ident.Index(first) && first <= 15 {
				t.Errorf("durable to %d by a report about superseded entries", l.durable)
			}
			for i, e := range old {
				if e.GetIndex() != uint64(11+i) || e.GetTerm() != 2 {
					t.Errorf("a slice handed out before changed: %v", old)
				}
			}
			for i := uint64(2); i <= first+1; i++ {
				term, err := l.Term(i)
				if err != nil || i >= first && term != 3 {
					t.Errorf("term of %d is %d, %v", i, term, err)
				}
			}
		})
	}
}

func TestMemoryIsTrimmedToWhatIsDurable(t *testing.T) {
	disk := &listDisk{terms: ones(3*RecentEntriesMax + 1)}
	l := newRecentLog(disk, wal.HardState{}, &raftpb.ConfState{}, wal.Mark{Index: 1, Term: 1}, wal.Mark{Index: 1, Term: 1})
	l.append(entriesOf(2, RecentEntriesMax+100, 1))
	l.trim()
	if l.firstInMemory() != 2 {
		t.Fatal("forgot what is nowhere else")
	}
	l.synced(50, 1)
	l.trim()
	if l.firstInMemory() != 51 {
		t.Fatalf("memory begins at %d", l.firstInMemory())
	}
	l.synced(l.last.Index, 1)
	l.trim()
	if n := len(l.entries); n > RecentEntriesMax*3/4 || n == 0 {
		t.Errorf("%d entries in memory", n)
	}
	bytes := 0
	for _, e := range l.entries {
		bytes += entryBytes(e)
	}
	if bytes != l.bytes {
		t.Errorf("counts %d bytes, holds %d", l.bytes, bytes)
	}
}

func TestTheStartMovesAndNeverBeyondWhatIsDurable(t *testing.T) {
	l := newRecentLog(&listDisk{terms: ones(30)}, wal.HardState{}, &raftpb.ConfState{}, wal.Mark{Index: 1, Term: 1}, wal.Mark{Index: 10, Term: 1})
	l.append(entriesOf(11, 20, 1))
	l.synced(15, 1)
	for _, index := range []ident.Index{5, 12} {
		if moved, err := l.compact(index); err != nil || !moved || l.start.Index != index {
			t.Fatalf("compact to %d: %v, %v", index, moved, err)
		}
		if first := l.firstInMemory(); first != max(11, index+1) {
			t.Errorf("memory begins at %d", first)
		}
	}
	if moved, err := l.compact(3); moved || err != nil {
		t.Errorf("back: %v, %v", moved, err)
	}
	if _, err := l.compact(16); err == nil {
		t.Error("beyond what is durable")
	}
	if _, err := l.Term(11); !errors.Is(err, raft.ErrCompacted) {
		t.Error(err)
	}
}

// Rules 19, 20 and 25.
func TestBootJoinsLogAndState(t *testing.T) {
	at := func(index ident.Index, term ident.Term) wal.Mark { return wal.Mark{Index: index, Term: term} }
	disk := &listDisk{terms: []ident.Term{1, 1, 1, 2, 2, 2, 2, 2, 3, 3}}
	began := func(index ident.Index, term ident.Term) *wal.Mark { return &wal.Mark{Index: index, Term: term} }
	hard := func(term ident.Term, vote ident.MemberID, commit ident.Index) wal.HardState {
		return wal.HardState{Term: term, Vote: vote, Commit: commit}
	}
	for _, c := range []struct {
		name    string
		found   wal.Recovered
		applied wal.Mark
		want    BootState
		err     error
		began   *wal.Mark
	}{
		{"the log reaches beyond the state", wal.Recovered{HardState: hard(3, 2, 8), Start: at(1, 1), Last: at(10, 3)}, at(5, 2),
			BootState{Hard: hard(3, 2, 8), Start: at(1, 1), Last: at(10, 3)}, nil, nil},
		{"the stored commit index is stale", wal.Recovered{HardState: hard(3, 2, 2), Start: at(1, 1), Last: at(10, 3)}, at(5, 2),
			BootState{Hard: hard(3, 2, 5), Start: at(1, 1), Last: at(10, 3)}, nil, nil},
		{"the state is where the log begins", wal.Recovered{HardState: hard(1, 0, 1), Start: at(1, 1), Last: at(1, 1)}, at(1, 1),
			BootState{Hard: hard(1, 0, 1), Start: at(1, 1), Last: at(1, 1)}, nil, nil},
		{"a snapshot was installed and the log ends before it", wal.Recovered{HardState: hard(3, 2, 8), Start: at(1, 1), Last: at(10, 3)}, at(20, 3),
			BootState{Hard: hard(3, 2, 20), Start: at(20, 3), Last: at(20, 3), Reset: true}, nil, nil},
		{"a snapshot was installed and the log holds another entry there", wal.Recovered{HardState: hard(3, 2, 4), Start: at(1, 1), Last: at(10, 3)}, at(8, 5),
			BootState{Hard: hard(5, 0, 8), Start: at(8, 5), Last: at(8, 5), Reset: true}, nil, nil},
		{"the term is behind the state", wal.Recovered{HardState: hard(1, 2, 1), Start: at(5, 4), Last: at(5, 4)}, at(5, 4),
			BootState{Hard: hard(4, 0, 5), Start: at(5, 4), Last: at(5, 4)}, nil, nil},
		{"a torn tail was cut", wal.Recovered{HardState: hard(3, 2, 8), Start: at(1, 1), Last: at(10, 3), Cut: &wal.Cut{}}, at(5, 2),
			BootState{Hard: hard(3, 2, 8), Start: at(1, 1), Last: at(10, 3), Cut: true}, nil, nil},
		{"the log begins behind the state", wal.Recovered{HardState: hard(3, 2, 8), Start: at(7, 2), Last: at(10, 3)}, at(5, 2), BootState{}, ErrLogGap, nil},
		{"the log ends before what was committed", wal.Recovered{HardState: hard(3, 2, 12), Start: at(1, 1), Last: at(10, 3)}, at(5, 2), BootState{}, ErrLogLost, nil},
		{"a snapshot was installed and nothing came after it", wal.Recovered{HardState: hard(3, 2, 8), Start: at(1, 1), Last: at(10, 3)}, at(20, 3),
			BootState{Hard: hard(3, 2, 20), Start: at(20, 3), Last: at(20, 3), Reset: true}, nil, began(20, 3)},
		{"the log lost entries that the state has", wal.Recovered{HardState: hard(3, 2, 8), Start: at(1, 1), Last: at(10, 3)}, at(20, 3), BootState{}, ErrLogLost, began(1, 1)},
		{"the log lost all that came after an installed snapshot", wal.Recovered{HardState: hard(0, 0, 20), Start: at(20, 3), Last: at(20, 3)}, at(24, 3), BootState{}, ErrLogLost, began(20, 3)},
		{"the log lost entries and got others", wal.Recovered{HardState: hard(3, 2, 4), Start: at(1, 1), Last: at(10, 3)}, at(8, 5), BootState{}, ErrLogLost, began(1, 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := PlanBoot(&c.found, Applied{Mark: c.applied, Began: c.began}, disk)
			if !errors.Is(err, c.err) {
				t.Fatalf("got %v, want %v", err, c.err)
			}
			c.want.Applied = c.applied
			if err == nil && got != c.want {
				t.Errorf("\ngot  %+v\nwant %+v", got, c.want)
			}
		})
	}
}
