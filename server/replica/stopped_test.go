package replica

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot"
)

// logged writes entries of these terms to a bench's log, those after its first
// one, and a hard state; then gives up what comes before an entry.
func (b *bench) logged(commit, compact ident.Index, terms ...uint64) {
	b.t.Helper()
	log, found, err := wal.Open(b.cfg.WAL())
	if err != nil {
		b.t.Fatal(err)
	}
	var entries []*raftpb.Entry
	for i, term := range terms {
		index := uint64(found.Last.Index) + uint64(i) + 1
		entries = append(entries, &raftpb.Entry{Index: &index, Term: &term})
	}
	err = log.Append(entries, &wal.HardState{Term: 9, Vote: 1, Commit: commit})
	if compact > 0 {
		err = errors.Join(err, log.Compact(compact))
	}
	if err = errors.Join(err, log.Close()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) stopped() *Stopped {
	b.t.Helper()
	s, err := OpenStopped(b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { s.Close() })
	return s
}

// source is the state of a bench as it is.
func (b *bench) source() Source {
	return Source{Committed: b.index, Write: func(w io.Writer, _ []byte) error {
		f, err := b.Freeze()
		if err != nil {
			return err
		}
		return errors.Join(f.WriteTo(w, nil), f.Close())
	}}
}

func TestAStateHasToLieWithinTheLog(t *testing.T) {
	b := newBench(t, oneMember) // Its log begins after entry 1 of term 1.
	b.logged(4, 0, 2, 2, 2, 3, 3)
	s := b.stopped()
	for at, want := range map[wal.Mark]error{
		{Index: 1, Term: 1}: nil, {Index: 4, Term: 2}: nil, {Index: 5, Term: 3}: nil, {Index: 6, Term: 3}: nil,
		{Index: 7, Term: 3}: ErrNotInLog, {Index: 5, Term: 2}: ErrNotInLog, {Index: 6, Term: 4}: ErrNotInLog,
	} {
		if err := s.Joins(at); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", at, err, want)
		}
	}
	short := newBench(t, oneMember)
	short.logged(4, 3, 2, 2, 2)
	if err := short.stopped().Joins(wal.Mark{Index: 2, Term: 2}); !errors.Is(err, raftnode.ErrLogGap) || !strings.Contains(err.Error(), "begins behind entry 3") {
		t.Errorf("before the log: %v", err)
	}
}

// What is here of history, as far as it can be read, tells whether a state is of
// the same past.
func TestAStateOfAnotherPastDoesNotReplaceThisOne(t *testing.T) {
	for _, x := range []struct {
		name     string
		theirs   string // Value of entry 3; ours is "ours".
		at       ident.Index
		diverged bool
		want     error
		compared bool
	}{
		{"the same", "ours", 3, false, nil, true},
		{"the same, after an entry that changed nothing", "ours", 4, false, nil, true},
		{"another", "theirs", 3, false, mvcc.ErrDiverged, false},
		{"another, after an entry that changed nothing", "theirs", 4, false, mvcc.ErrDiverged, false},
		{"another, and this is known to be the wrong one", "theirs", 3, true, nil, false},
	} {
		ours, theirs := newBench(t, oneMember), newBench(t, oneMember)
		for b, value := range map[*bench]string{ours: "ours", theirs: x.theirs} {
			b.put("a", "1")
			b.put("b", value)
		}
		ours.index++ // Entry 4.
		ours.put("c", "1")
		if x.at == 4 {
			theirs.noop()
		}
		ours.logged(5, 0, 2, 2, 2, 2)
		if err := ours.Close(); err != nil {
			t.Fatal(err)
		}
		if x.diverged {
			if err := ours.cfg.Dir.Distrust(datadir.Mark{Generation: 1, Reason: "another digest", Diverged: true}); err != nil {
				t.Fatal(err)
			}
		}
		st, compared, err := ours.stopped().Replace(t.Context(), theirs.source())
		if !errors.Is(err, x.want) || (err == nil) != (x.want == nil) || compared != x.compared || err == nil && st.Position.Index != x.at {
			t.Errorf("%s: %+v, %v, %v", x.name, st, compared, err)
		}
		generation, inForce := 2, err == nil
		if n, err := ours.cfg.Dir.Current(); err != nil || (n == generation) != inForce {
			t.Errorf("%s: generation %d is in force, %v", x.name, n, err)
		}
		if _, found, err := ours.cfg.Dir.Mark(); err != nil || found != x.diverged { // It stays until the alarm is off.
			t.Errorf("%s: a mark is there: %v, %v", x.name, found, err)
		}
		if aside, err := filepath.Glob(filepath.Join(ours.cfg.Dir.Path(), "old-gen-*")); err != nil || (len(aside) == 1) != inForce {
			t.Errorf("%s: aside are %q, %v", x.name, aside, err)
		}
	}
}

// noop is an entry that changes nothing.
func (b *bench) noop() {
	b.t.Helper()
	b.index++
	e := b.Store().Begin(b.index, 2, int64(b.index))
	if err := e.Commit(); err != nil {
		b.t.Fatal(err)
	}
}

func TestEveryDamageOfAStateIsSeen(t *testing.T) {
	b := newBench(t, oneMember)
	b.put("a", "1")
	b.put("b", "1")
	b.logged(3, 0, 2, 2)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	flip := func(name string, at int) error {
		data, err := os.ReadFile(name)
		if err == nil {
			data[at] ^= 4
			err = os.WriteFile(name, data, 0o600)
		}
		return err
	}
	for name, damage := range map[string]func(path, generation, segment string) error{
		"":                       func(string, string, string) error { return nil },
		"base is gone":           func(_, g, _ string) error { return os.Remove(filepath.Join(g, "base.db")) },
		"base is empty":          func(_, g, _ string) error { return os.Truncate(filepath.Join(g, "base.db"), 0) },
		"base is cut short":      func(_, g, _ string) error { return os.Truncate(filepath.Join(g, "base.db"), 5000) },
		"history is gone":        func(_, g, _ string) error { return os.RemoveAll(filepath.Join(g, "history")) },
		"history is cut short":   func(_, _, s string) error { return os.Truncate(s, 100) },
		"a bit of history":       func(_, _, s string) error { return flip(s, 100) },
		"the generation is gone": func(_, g, _ string) error { return os.RemoveAll(g) },
		"a bit of CURRENT":       func(path, _, _ string) error { return flip(filepath.Join(path, "CURRENT"), 5) },
		"CURRENT is gone":        func(path, _, _ string) error { return os.Remove(filepath.Join(path, "CURRENT")) },
		"a mark that is torn":    func(path, _, _ string) error { return os.WriteFile(filepath.Join(path, "UNTRUSTED"), nil, 0o600) },
	} {
		path := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(path, os.DirFS(b.cfg.Dir.Path())); err != nil {
			t.Fatal(err)
		}
		segments, err := filepath.Glob(filepath.Join(path, "gen-000001", "history", "*.seg"))
		if err != nil || len(segments) == 0 {
			t.Fatalf("segments %q, %v", segments, err)
		}
		if err := damage(path, filepath.Join(path, "gen-000001"), segments[0]); err != nil {
			t.Fatal(err)
		}
		cfg := b.cfg
		if cfg.Dir, err = datadir.Open(cfg.FS, path); err != nil {
			t.Fatal(err)
		}
		s, err := OpenStopped(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if found, err := s.Damage(t.Context()); err != nil || (found != nil) != (name != "") {
			t.Errorf("%q: %v, %v", name, found, err)
		}
		if err := errors.Join(s.Close(), cfg.Dir.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatASourceDoesNotBringChangesNothing(t *testing.T) {
	ours, theirs := newBench(t, oneMember), newBench(t, oneMember)
	for _, b := range []*bench{ours, theirs} {
		b.put("a", "1")
		b.put("b", "1")
	}
	ours.logged(2, 0, 2)
	if err := ours.Close(); err != nil {
		t.Fatal(err)
	}
	s, gone := ours.stopped(), errors.New("the store is gone")
	for _, x := range []struct {
		from Source
		want error
	}{
		{theirs.source(), raftnode.ErrLogLost}, // The log of the only voter lacks an entry.
		{Source{Write: theirs.source().Write}, ErrNotInLog},
		{Source{Write: func(io.Writer, []byte) error { return gone }}, gone},
		{Source{Write: func(w io.Writer, _ []byte) error {
			_, err := w.Write(bytes.Repeat([]byte("nonsense"), 100))
			return err
		}}, snapshot.ErrNotSnapshot},
	} {
		if _, _, err := s.Replace(t.Context(), x.from); !errors.Is(err, x.want) {
			t.Errorf("%v, want %v", err, x.want)
		}
	}
	if n, err := ours.cfg.Dir.Current(); err != nil || n != 1 {
		t.Errorf("generation %d, %v", n, err)
	}
	if damage, err := s.Damage(t.Context()); damage != nil || err != nil {
		t.Errorf("%v, %v", damage, err)
	}
	if err := ours.cfg.Dir.Freeze("a recovery"); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStopped(ours.cfg); !errors.Is(err, datadir.ErrFrozen) {
		t.Errorf("a frozen member: %v", err)
	}
}
