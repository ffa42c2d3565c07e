package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

// bench is a replica without a log, and the checkpoints its stores reported.
type bench struct {
	*Replica
	t     *testing.T
	index ident.Index

	mu          sync.Mutex
	checkpoints []string // Of which generation, with which one in force.
}

func newBench(t *testing.T, members ...*holdfastpb.Member) *bench {
	t.Helper()
	return newBenchOf(t, 0, members...)
}

func newBenchOf(t *testing.T, quota int64, members ...*holdfastpb.Member) *bench {
	t.Helper()
	b := &bench{t: t}
	dir, err := datadir.Open(vfs.OS(), filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	cfg := Config{FS: vfs.OS(), Dir: dir, WALBytes: 64 << 10, QuotaBytes: quota, Clock: clock.Real(), Logger: hclog.NewNullLogger(), OnCheckpoint: func(generation int, _ mvcc.Checkpoint) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.Replica != nil {
			b.checkpoints = append(b.checkpoints, fmt.Sprintf("%d of %d", generation, b.generation.Load()))
		}
	}}
	id := datadir.Identity{Cluster: member.ClusterID([]ident.MemberID{1}), Member: 1, Timeline: 1}
	if err := Create(cfg, id, members); err != nil {
		t.Fatal(err)
	}
	r, err := Open(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	b.Replica = r
	b.mu.Unlock()
	b.index = r.Store().Applied().Position.Index
	return b
}

func (b *bench) put(key, value string) {
	b.t.Helper()
	b.do(&holdfastpb.Command{Command: &holdfastpb.Command_Put{Put: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}})
}

func (b *bench) do(cmd *holdfastpb.Command) {
	b.t.Helper()
	data, err := cmd.MarshalVT()
	if err != nil {
		b.t.Fatal(err)
	}
	b.index++
	if _, err := b.Apply([]entry.Entry{{Index: b.index, Term: 2, Time: int64(b.index), Requests: []entry.Request{{Data: data}}}}); err != nil {
		b.t.Fatal(err)
	}
}

// install brings another replica's state here, as a leader's snapshot does.
func (b *bench) install(from *bench) {
	b.t.Helper()
	f, err := from.Freeze()
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	var buf bytes.Buffer
	if err := f.WriteTo(&buf, b.Have()); err != nil {
		b.t.Fatal(err)
	}
	staged, err := b.Receive(&buf)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.Install(staged); err != nil {
		b.t.Fatal(err)
	}
}

var oneMember = &holdfastpb.Member{Id: 1, PeerUrls: []string{"http://one:2380"}}

// A note in the log says which transaction base has reached; one of another
// store would make the next start refuse base, and the log give up too much.
func TestOnlyTheStoreInForceTellsTheLogOfCheckpoints(t *testing.T) {
	leader, joiner := newBench(t, oneMember), newBench(t)
	for i := range 3 {
		leader.put("a", fmt.Sprint(i))
		joiner.install(leader)
		if err := joiner.Store().Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	joiner.mu.Lock()
	defer joiner.mu.Unlock()
	seen := map[string]bool{}
	for _, line := range joiner.checkpoints {
		seen[line] = true
	}
	// All of them ask; Note lets only these through.
	for _, want := range []string{"2 of 2", "3 of 3", "4 of 4"} {
		if !seen[want] {
			t.Errorf("no checkpoint %s: %v", want, joiner.checkpoints)
		}
	}
	if !seen["2 of 1"] {
		t.Errorf("the test does not show what it is about: %v", joiner.checkpoints)
	}
}

// A store that was replaced may be read on for a while, also when its files are
// deleted meanwhile.
func TestOfReplacedGenerationsTheNewestStays(t *testing.T) {
	leader, joiner := newBench(t, oneMember), newBench(t)
	leader.put("a", "0")
	joiner.install(leader)
	old, err := joiner.Use()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		leader.put("a", fmt.Sprint(i+1))
		joiner.install(leader)
		if err := joiner.Clean(); err != nil {
			t.Fatal(err)
		}
	}
	v := old.View()
	res, err := v.Range(t.Context(), statemachine.RangeArgs(&pb.RangeRequest{Key: []byte("a")}))
	if err != nil || len(res.KVs) != 1 {
		t.Fatalf("a read of a store that was replaced: %v, %v", res, err)
	}
	v.Release()
	old.Release()
	for pattern, want := range map[string]int{"gen-*": 1, "old-gen-*": 1, "doomed-*": 0} {
		if names, err := filepath.Glob(filepath.Join(joiner.cfg.Dir.Path(), pattern)); err != nil || len(names) != want {
			t.Errorf("%s: %v, %v, want %d", pattern, names, err, want)
		}
	}
}

func TestReadsGoOnWhileSnapshotsReplaceTheStore(t *testing.T) {
	leader, follower := newBench(t, oneMember), newBench(t)
	leader.put("a", "0")
	follower.install(leader)
	group := task.New(t.Context())
	stop := make(chan struct{})
	for range 4 {
		group.Go("reader", func(ctx context.Context) error {
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				store, err := follower.Use()
				if err != nil {
					return err
				}
				v := store.View()
				res, err := v.Range(ctx, statemachine.RangeArgs(&pb.RangeRequest{Key: []byte("a")}))
				if err == nil && len(res.KVs) != 1 {
					err = fmt.Errorf("%d keys", len(res.KVs))
				}
				follower.Sizes()
				v.Release()
				store.Release()
				if err != nil {
					return err
				}
			}
		})
	}
	for i := range 8 {
		leader.put("a", fmt.Sprint(i))
		follower.install(leader)
	}
	frozen, err := follower.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	leader.put("a", "last")
	follower.install(leader)
	if err := frozen.WriteTo(io.Discard, nil); err != nil {
		t.Errorf("a frozen state of the store that was replaced: %v", err)
	}
	if err := frozen.Close(); err != nil {
		t.Error(err)
	}
	close(stop)
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	if err := follower.Close(); err != nil {
		t.Error(err)
	}
	if store, err := follower.Use(); err == nil {
		t.Errorf("a closed replica gives %v", store)
	}
	if follower.Sizes() != (mvcc.Sizes{}) {
		t.Error("a closed replica has a size")
	}
}

// seer notes which keys are in force when a user is found to be gone.
type seer struct {
	*bench
	heads []ident.Revision
}

func (*seer) Assigned(string, string) {}
func (*seer) Disabled()               {}
func (s *seer) Invalidated(string)    { s.heads = append(s.heads, s.Store().Head()) }

// A read takes a view of the keys, then asks whether it may: so of what a snapshot
// brings, who may read comes before what is read.
func TestUsersOfASnapshotAreInForceBeforeItsKeys(t *testing.T) {
	leader, follower := newBench(t, oneMember), newBench(t)
	leader.do(&holdfastpb.Command{Command: &holdfastpb.Command_UserAdd{UserAdd: &holdfastpb.UserAdd{Name: "alice", NoPassword: true}}})
	leader.put("a", "for alice")
	follower.install(leader)
	before := follower.Store().Head()
	leader.do(&holdfastpb.Command{Command: &holdfastpb.Command_UserDelete{UserDelete: &pb.AuthUserDeleteRequest{Name: "alice"}}})
	leader.put("a", "not for alice")
	seer := &seer{bench: follower}
	follower.Machine.Auth.Watch(seer)
	follower.install(leader)
	if len(seer.heads) != 1 || seer.heads[0] != before {
		t.Errorf("alice was gone when the head was %d, it was %d before", seer.heads, before)
	}
	if head := follower.Store().Head(); head != before+1 {
		t.Errorf("head is %d", head)
	}
}

// A follower that takes its time would else fill the quota, which keeps everybody
// from writing.
func TestAStateThatACompactionCannotWaitForIsNotSentToItsEnd(t *testing.T) {
	const quota = 4 << 20
	b := newBenchOf(t, quota, oneMember)
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	fill := func(bytes int64) {
		for i := 0; b.Store().Bytes() < bytes; i++ {
			b.put(fmt.Sprint(i), strings.Repeat("v", 16<<10))
		}
	}
	fill(quota * 3 / 4)
	f, err := b.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.WriteTo(io.Discard, nil); err != nil {
		t.Fatal(err)
	}
	b.do(&holdfastpb.Command{Command: &holdfastpb.Command_Compaction{Compaction: &pb.CompactionRequest{Revision: int64(b.Store().Head())}}})
	fill(quota * 15 / 16)
	if err := f.WriteTo(io.Discard, nil); !errors.Is(err, mvcc.ErrOverdue) {
		t.Errorf("%d of %d bytes are taken and a compaction waits: %v", b.Store().Bytes(), quota, err)
	}
}
