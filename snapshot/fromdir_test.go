package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/statemachine"
)

// logOf appends entries to the log of a stopped member: n puts, then a member
// that is added, then n puts. commit is what the hard state says.
func logOf(t *testing.T, m PlannedMember, p *Plan, n int, commit ident.Index) {
	t.Helper()
	log, _, err := wal.Open(wal.Config{FS: vfs.OS(), Dir: filepath.Join(m.DataDir, "wal"), Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	index, term := uint64(p.At), uint64(p.Term)+1
	var entries []*raftpb.Entry
	add := func(kind raftpb.EntryType, data []byte) {
		index++
		entries = append(entries, &raftpb.Entry{Type: &kind, Index: new(index), Term: &term, Data: data})
	}
	batch := func(cmd *holdfastpb.Command) []byte {
		b := entry.Batch{Time: 1, Requests: []entry.Request{{ID: ident.RequestID{Member: m.ID, Nonce: 1, Sequence: index}, Data: mustMarshal(t, cmd)}}}
		return entry.AppendBatch(nil, &b)
	}
	puts := func() {
		for i := range n {
			add(raftpb.EntryNormal, batch(&holdfastpb.Command{Command: &holdfastpb.Command_Put{Put: &pb.PutRequest{Key: fmt.Appendf(nil, "log-%d", i), Value: []byte("v")}}}))
		}
	}
	add(raftpb.EntryNormal, nil)
	puts()
	cmd := &holdfastpb.Command{Command: &holdfastpb.Command_MemberAdd{MemberAdd: &holdfastpb.MemberAdd{
		Member: &holdfastpb.Member{Id: 0xdd, PeerUrls: []string{"http://added:2380"}}, LearnersMax: 1,
	}}}
	change := statemachine.ConfChange(cmd)
	change.Context = batch(cmd)
	data, err := proto.Marshal(change)
	if err != nil {
		t.Fatal(err)
	}
	add(raftpb.EntryConfChangeV2, data)
	puts()
	hs := &wal.HardState{Term: ident.Term(term), Commit: commit}
	if err := errors.Join(log.Append(entries, hs), log.Sync(), log.Append(nil, hs), log.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestAStoppedDirectoryIsSavedUpToWhatIsKnownAsCommitted(t *testing.T) {
	const n = 5
	for _, c := range []struct {
		name      string
		members   int
		commit    ident.Index // Entries after the restore.
		applied   ident.Index
		uncertain uint64
	}{
		{"three members", 3, 3, 3, 2 + 2*n - 3},
		{"three members, beyond the change", 3, n + 4, n + 4, 2 + 2*n - n - 4},
		// Alone all is committed, until the added member has a vote too.
		{"one member", 1, 0, n + 2, n},
	} {
		t.Run(c.name, func(t *testing.T) {
			old, _ := grown(t, 21)
			p := restore(t, writeFile(t, snapshotOf(t, old, WriteOptions{})), RestoreOptions{Members: three(t.TempDir())[:c.members]})
			m := p.Members[0]
			logOf(t, m, p, n, p.At+c.commit)
			src := DirSource{FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), DataDir: m.DataDir}
			path := filepath.Join(t.TempDir(), "dir.snap")
			for range 2 { // What the first left can be saved again.
				report, err := SaveFromDir(t.Context(), src, path, WriteOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if report.Position.Index != p.At+c.applied || report.Uncertain != c.uncertain {
					t.Fatalf("saved up to entry %d of %d, %d uncertain", report.Position.Index-p.At, 2+2*n, report.Uncertain)
				}
			}
			st, err := StatusOf(t.Context(), vfs.OS(), path, StatusOptions{})
			if err != nil || st.Header.MemberId != uint64(m.ID) {
				t.Fatalf("%+v, %v", st, err)
			}
			var conf raftpb.ConfState
			if err := proto.Unmarshal(st.Header.ConfState, &conf); err != nil {
				t.Fatal(err)
			}
			added := c.applied >= n+2
			if want := c.members; len(conf.Voters) != len(st.Members) || added != (len(conf.Voters) == want+1) {
				t.Errorf("configuration %v, members %v", &conf, st.Members)
			}
		})
	}
}

// What a learner's log holds beyond the commit index may be gone at the only voter.
func TestALearnerOfASingleVoterSavesOnlyWhatIsKnownAsCommitted(t *testing.T) {
	old, _ := grown(t, 22)
	p := restore(t, writeFile(t, snapshotOf(t, old, WriteOptions{})), RestoreOptions{Members: three(t.TempDir())[:1]})
	m := p.Members[0]
	logOf(t, m, p, 5, p.At+3)
	dir, err := datadir.Open(vfs.OS(), m.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	id, err := dir.Identity()
	id.Member++ // The directory of another, to whom the voter has sent its log.
	if err = errors.Join(err, dir.SetIdentity(id), dir.Close()); err != nil {
		t.Fatal(err)
	}
	src := DirSource{FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), DataDir: m.DataDir}
	report, err := SaveFromDir(t.Context(), src, filepath.Join(t.TempDir(), "dir.snap"), WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if report.Position.Index != p.At+3 || report.Uncertain != 2+2*5-3 {
		t.Errorf("saved up to entry %d, %d uncertain", report.Position.Index-p.At, report.Uncertain)
	}
}

// After a crash between an installed snapshot and the log's new beginning the log
// holds a past that the state does not have.
func TestALogThatTheStateDoesNotGoOnFromIsNotReplayed(t *testing.T) {
	old, _ := grown(t, 23)
	p := restore(t, writeFile(t, snapshotOf(t, old, WriteOptions{})), RestoreOptions{Members: three(t.TempDir())[:1]})
	m := p.Members[0]
	folder := filepath.Join(m.DataDir, "wal")
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	log, err := wal.Create(wal.Config{FS: vfs.OS(), Dir: folder, Logger: hclog.NewNullLogger()}, wal.Mark{Index: p.At - 1, Term: p.Term - 1})
	if err != nil {
		t.Fatal(err)
	}
	stale := func(i ident.Index) *raftpb.Entry {
		kind := raftpb.EntryNormal
		return &raftpb.Entry{Type: &kind, Index: new(uint64(p.At + i)), Term: new(uint64(p.Term - 1))}
	}
	if err := errors.Join(log.Append([]*raftpb.Entry{stale(0), stale(1), stale(2)}, nil), log.Close()); err != nil {
		t.Fatal(err)
	}
	src := DirSource{FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), DataDir: m.DataDir}
	report, err := SaveFromDir(t.Context(), src, filepath.Join(t.TempDir(), "dir.snap"), WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if report.Position.Index != p.At || report.Uncertain != 0 {
		t.Errorf("saved up to entry %d after the state's, %d uncertain", report.Position.Index-p.At, report.Uncertain)
	}
}

func TestADirectoryInUseOrWithoutMemberIsNotSaved(t *testing.T) {
	src := DirSource{FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), DataDir: t.TempDir()}
	path := filepath.Join(t.TempDir(), "dir.snap")
	if _, err := SaveFromDir(t.Context(), src, path, WriteOptions{}); !errors.Is(err, datadir.ErrEmpty) {
		t.Errorf("empty: %v", err)
	}
	dir, err := datadir.Open(vfs.OS(), src.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := SaveFromDir(t.Context(), src, path, WriteOptions{}); !errors.Is(err, datadir.ErrLocked) {
		t.Errorf("in use: %v", err)
	}
}
