package recovery

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot"
)

func testConfig() Config {
	return Config{FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger()}
}

// unchanging is a source of incarnations that are the same in each run.
type unchanging struct{}

func (unchanging) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 7
	}
	return len(b), nil
}

// stopped is a cluster of stopped members with real directories.
type stopped struct {
	plan    *snapshot.Plan
	sources []Source
	bump    int64
}

// stoppedCluster makes the directories of n members, all in the same state.
func stoppedCluster(t testing.TB, n int) *stopped {
	t.Helper()
	file := filepath.Join("..", "testdata", "v1", "compressed.snap")
	head, err := snapshot.ReadHeader(vfs.OS(), file)
	if err != nil {
		t.Fatal(err)
	}
	root, o := t.TempDir(), snapshot.RestoreOptions{Nonce: testNonce}
	for i := range n {
		name := fmt.Sprintf("m%d", i+1)
		o.Members = append(o.Members, snapshot.Target{Name: name, PeerURLs: []string{"http://" + name + ":2380"}, DataDir: filepath.Join(root, name)})
	}
	s := &stopped{}
	if s.plan, err = snapshot.PlanRestore(head.Header, o); err != nil {
		t.Fatal(err)
	}
	c := testConfig()
	err = snapshot.Restore(t.Context(), snapshot.RestoreConfig{FS: c.FS, Clock: c.Clock, Logger: c.Logger, Random: unchanging{}}, file, s.plan)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range o.Members {
		s.sources = append(s.sources, Source{DataDir: m.DataDir})
	}
	return s
}

// put is an entry that puts a key, i entries after the state's.
func (s *stopped) put(i int, term ident.Term) *raftpb.Entry {
	cmd := &holdfastpb.Command{Command: &holdfastpb.Command_Put{Put: &pb.PutRequest{Key: fmt.Appendf(nil, "log-%d", i), Value: fmt.Appendf(nil, "value of term %d", term)}}}
	data, err := cmd.MarshalVT()
	if err != nil {
		panic(err)
	}
	b := entry.Batch{Time: 1, Requests: []entry.Request{{ID: ident.RequestID{Member: 1, Nonce: 1, Sequence: uint64(i)}, Data: data}}}
	kind := raftpb.EntryNormal
	return &raftpb.Entry{Type: &kind, Index: new(uint64(s.plan.At) + uint64(i)), Term: new(uint64(term)), Data: entry.AppendBatch(nil, &b)}
}

// write appends entries to a member's log; commit is how many of all there are
// known as committed.
func (s *stopped) write(t testing.TB, member, commit int, entries ...*raftpb.Entry) {
	t.Helper()
	log, _, err := wal.Open(wal.Config{FS: vfs.OS(), Dir: filepath.Join(s.sources[member].DataDir, "wal"), Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	hs := &wal.HardState{Term: ident.Term(entries[len(entries)-1].GetTerm()), Commit: s.plan.At + ident.Index(commit)}
	if err := errors.Join(log.Append(entries, hs), log.Sync(), log.Append(nil, hs), log.Close()); err != nil {
		t.Fatal(err)
	}
}

// collect collects from some members.
func (s *stopped) collect(t testing.TB, members ...int) *Facts {
	t.Helper()
	f := &Facts{}
	for _, i := range members {
		m, err := Collect(context.Background(), testConfig(), s.sources[i])
		if err != nil {
			t.Fatal(err)
		}
		f.Members = append(f.Members, *m)
	}
	return f
}

// planFor plans with what some members have; the others are dead.
func (s *stopped) planFor(t testing.TB, targets []snapshot.Target, members ...int) *Plan {
	t.Helper()
	ask := Ask{Members: targets, Nonce: "ffeeddccbbaa99887766554433221100", Now: clock.Real().Wall()}
	alive := map[int]bool{}
	for _, i := range members {
		alive[i] = true
	}
	for i := range s.sources {
		if !alive[i] {
			ask.Dead = append(ask.Dead, fmt.Sprintf("m%d", i+1))
		}
	}
	ask.BumpRevision = s.bump
	p, err := NewPlan(s.collect(t, members...), ask)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
