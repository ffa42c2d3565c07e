package recovery

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// tree is every file below a folder, with its contents.
func tree(t testing.TB, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, root)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func sameTree(a, b map[string]string) string {
	for name, was := range a {
		if now, there := b[name]; !there || now != was {
			return name
		}
	}
	for name := range b {
		if _, there := a[name]; !there {
			return name
		}
	}
	return ""
}

func TestCollectSaysWhatADirectoryHoldsAndChangesNothing(t *testing.T) {
	s := stoppedCluster(t, 3)
	s.write(t, 0, 2, s.put(1, 9), s.put(2, 9), s.put(3, 9), s.put(4, 10))
	before := tree(t, s.sources[0].DataDir)
	m := s.collect(t, 0).Members[0]
	if name := sameTree(before, tree(t, s.sources[0].DataDir)); name != "" {
		t.Errorf("%s was changed", name)
	}
	at := s.plan.At
	if m.State == nil || m.Log == nil || m.Damage != nil || m.Name != "m1" {
		t.Fatalf("%+v", m)
	}
	if m.State.Applied.Index != at || m.Log.Start.Index != at || m.Log.Last != (Mark{at + 4, 10}) || m.Log.Commit != at+2 || m.Log.Term != 10 {
		t.Errorf("state %+v, log %+v, at %d", m.State, m.Log, at)
	}
	if len(m.Log.Tail) != 2 || string(m.Log.Tail[0].Requests[0].Key) != "log-3" || m.Log.Tail[0].Requests[0].What != "put" || m.Log.Tail[1].Term != 10 {
		t.Errorf("tail %+v", m.Log.Tail)
	}
	if len(m.Log.Terms) != 2 || m.Log.Terms[1] != (Mark{at + 4, 10}) {
		t.Errorf("terms %v", m.Log.Terms)
	}
	if len(m.State.Conf.Voters) != 3 || len(m.Peers) != 3 || m.Peers[0].PeerURLs == nil {
		t.Errorf("members %+v, %+v", m.State.Conf, m.Peers)
	}
}

func TestDamageIsNamedAndTheRestIsCollected(t *testing.T) {
	flip := func(t *testing.T, pattern string, from, every int) {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		b, err := os.ReadFile(names[0])
		if err != nil {
			t.Fatal(err)
		}
		for at := from; at < len(b); at += every {
			b[at] ^= 1
		}
		if err := os.WriteFile(names[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name       string
		harm       func(t *testing.T, dir string)
		part, want string
		state, log bool
	}{
		{"a bit of the log", func(t *testing.T, dir string) { flip(t, dir+"/wal/*.wal", 200, 200) }, "log", "damaged", true, false},
		{"no log at all", func(t *testing.T, dir string) { os.RemoveAll(dir + "/wal") }, "log", "wal", true, false},
		{"a bit of history", func(t *testing.T, dir string) { flip(t, dir+"/gen-*/history/*.seg", 100, 100) }, "state", "damage", false, true},
		{"a bit of base", func(t *testing.T, dir string) { flip(t, dir+"/gen-*/base.db", 2*4096, 100) }, "state", "base.db", false, true},
		{"no generation in force", func(t *testing.T, dir string) { os.Remove(dir + "/CURRENT") }, "state", "CURRENT", false, true},
		{"a state that is not trusted", func(t *testing.T, dir string) {
			err := withStopped(testConfig(), Source{DataDir: dir}, func(d *datadir.Dir) error {
				n, err := d.Current()
				return errors.Join(err, d.Distrust(datadir.Mark{Generation: n, Reason: "a sync failed"}))
			})
			if err != nil {
				t.Fatal(err)
			}
		}, "state", "a sync failed", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := stoppedCluster(t, 1)
			s.write(t, 0, 0, s.put(1, 9), s.put(2, 9))
			c.harm(t, s.sources[0].DataDir)
			m := s.collect(t, 0).Members[0]
			if len(m.Damage) == 0 || m.Damage[0].Part != c.part || !strings.Contains(m.Damage[0].What, c.want) {
				t.Errorf("damage %+v, want %q", m.Damage, c.want)
			}
			if (m.State != nil) != c.state || (m.Log != nil) != c.log {
				t.Errorf("state %v, log %v", m.State != nil, m.Log != nil)
			}
		})
	}
}

func TestWhereNoStoppedMemberIsNothingIsCollected(t *testing.T) {
	s := stoppedCluster(t, 1)
	dir, err := datadir.Open(vfs.OS(), s.sources[0].DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Collect(context.Background(), testConfig(), s.sources[0]); !errors.Is(err, datadir.ErrLocked) {
		t.Errorf("a running member: %v", err)
	}
	dir.Close()
	for name, src := range map[string]Source{"missing": {DataDir: filepath.Join(t.TempDir(), "x")}, "empty": {DataDir: t.TempDir()}} {
		if _, err := Collect(context.Background(), testConfig(), src); !errors.Is(err, datadir.ErrEmpty) {
			t.Errorf("%s: %v", name, err)
		}
		if names, _ := os.ReadDir(src.DataDir); name == "missing" && names != nil {
			t.Error("collecting made the directory")
		}
	}
}
