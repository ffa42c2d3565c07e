package recovery

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot"
)

func TestWhatADeadMemberHasBeyondTheForkIsFound(t *testing.T) {
	for _, c := range []struct {
		name string
		dead func(t *testing.T, s *stopped)
		fork int // Entries after the state's.
		want []string
	}{
		{"a longer log", func(t *testing.T, s *stopped) {
			s.write(t, 1, 3, s.put(1, 9), s.put(2, 9), s.put(3, 9), s.put(4, 9))
		}, 2, []string{"log-3=value of term 9 at +3", "log-4=value of term 9 at +4"}},
		{"another tail", func(t *testing.T, s *stopped) {
			s.write(t, 1, 0, s.put(1, 9))
			s.write(t, 1, 2, s.put(2, 11), s.put(3, 11))
		}, 1, []string{"log-2=value of term 11 at +2", "log-3=value of term 11 at +3"}},
		{"a shorter log", func(t *testing.T, s *stopped) { s.write(t, 1, 0, s.put(1, 9)) }, 1, nil},
		{"the same log", func(t *testing.T, s *stopped) { s.write(t, 1, 0, s.put(1, 9), s.put(2, 9)) }, 2, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := stoppedCluster(t, 3)
			s.write(t, 0, 1, s.put(1, 9), s.put(2, 9))
			c.dead(t, s)
			p := s.planFor(t, nil, 0)
			before := tree(t, filepath.Dir(s.sources[0].DataDir))
			got, err := Salvage(t.Context(), testConfig(), p, s.sources[1])
			if err != nil {
				t.Fatal(err)
			}
			if name := sameTree(before, tree(t, filepath.Dir(s.sources[0].DataDir))); name != "" {
				t.Errorf("%s was changed", name)
			}
			if got.Fork != s.plan.At+ident.Index(c.fork) {
				t.Errorf("fork at +%d, want +%d", got.Fork-s.plan.At, c.fork)
			}
			var keys []string
			for _, k := range got.Keys {
				keys = append(keys, fmt.Sprintf("%s=%s at +%d", k.Key, k.Value, k.Index-s.plan.At))
				if k.Deleted || k.Before != 0 {
					t.Errorf("%+v", k)
				}
			}
			if fmt.Sprint(keys) != fmt.Sprint(c.want) {
				t.Errorf("found %q, want %q", keys, c.want)
			}
		})
	}
}

// Where a log does not reach back to the fork, nothing tells where that is: then it
// is looked for where both are known to agree.
func TestTheForkIsNotTakenForLaterThanBothAreKnownToAgree(t *testing.T) {
	s := stoppedCluster(t, 3)
	s.write(t, 0, 1, s.put(1, 9), s.put(2, 9), s.put(3, 9))
	s.write(t, 1, 0, s.put(1, 9))
	s.write(t, 1, 3, s.put(2, 11), s.put(3, 11), s.put(4, 11))
	c, dead := testConfig(), s.sources[1].DataDir
	src := snapshot.DirSource{FS: c.FS, Clock: c.Clock, Logger: c.Logger, DataDir: dead}
	if _, err := snapshot.SaveFromDir(t.Context(), src, filepath.Join(t.TempDir(), "x"), snapshot.WriteOptions{}); err != nil { // Its state goes on to the third.
		t.Fatal(err)
	}
	log, _, err := wal.Open(wal.Config{FS: c.FS, Dir: filepath.Join(dead, "wal"), Logger: c.Logger})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(log.Compact(s.plan.At+3), log.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := Salvage(t.Context(), c, s.planFor(t, nil, 0), s.sources[1])
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, k := range got.Keys {
		keys = append(keys, fmt.Sprintf("%s before %d", k.Key, k.Before))
	}
	if want := "[log-2 before 0 log-3 before 0 log-4 before 0]"; got.Fork != s.plan.At+1 || fmt.Sprint(keys) != want {
		t.Errorf("fork at +%d, found %v, want %s", got.Fork-s.plan.At, keys, want)
	}
}

func TestADirectoryOfAnotherClusterIsNotSalvaged(t *testing.T) {
	s := stoppedCluster(t, 3)
	p := s.planFor(t, nil, 0)
	p.OldCluster++
	if _, err := Salvage(t.Context(), testConfig(), p, s.sources[1]); !errors.Is(err, ErrForeign) {
		t.Errorf("got %v", err)
	}
}
