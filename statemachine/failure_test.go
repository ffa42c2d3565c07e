package statemachine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
)

// A member that can not read what the others can must not take that for the
// outcome of a request: it would go on with another state than theirs.
func TestAMemberThatCanNotReadItsFilesStopsInsteadOfAnsweringDifferently(t *testing.T) {
	dir := t.TempDir()
	f := newFixtureIn(t, dir)
	value := bytes.Repeat([]byte("value"), 20)
	f.apply(put("k", string(value)))
	f.apply(&holdfastpb.Command{Command: &holdfastpb.Command_Compaction{Compaction: &pb.CompactionRequest{Revision: 2}}})
	for more := true; more || f.store.Applied().Merged < 2; {
		var err error
		if more, err = f.store.Step(); err != nil {
			t.Fatal(err)
		}
		if !more && f.store.Applied().Merged < 2 {
			f.store.Checkpoint(t.Context())
		}
	}
	base, err := filepath.Glob(filepath.Join(dir, "base*"))
	if err != nil || len(base) != 1 {
		t.Fatalf("base files %v, %v", base, err)
	}
	data, err := os.ReadFile(base[0])
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(base[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for at := 0; ; at++ {
		next := bytes.Index(data[at:], value)
		if next < 0 {
			break
		}
		at += next
		if _, err := file.WriteAt([]byte("V"), int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	cmd, err := (&holdfastpb.Command{Command: &holdfastpb.Command_Put{Put: &pb.PutRequest{Key: []byte("k"), IgnoreValue: true}}}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	f.index++
	answers, err := f.m.Apply([]entry.Entry{{Index: f.index, Term: 2, Requests: []entry.Request{{Data: cmd}}}})
	if err == nil || f.store.Err() == nil {
		t.Fatalf("apply on a damaged base: %v, %v", answers, err)
	}
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// watched notes what the keeper of leases would hear.
type watched []string

func (w *watched) Granted(id ident.LeaseID, ttl int64) {
	*w = append(*w, fmt.Sprintf("granted %d for %d", id, ttl))
}
func (w *watched) Revoked(id ident.LeaseID) { *w = append(*w, fmt.Sprintf("revoked %d", id)) }

func TestAnotherStoreTakesTheTablesOverAtOnce(t *testing.T) {
	old, next := newFixture(t), newFixture(t)
	member := func(id uint64) *holdfastpb.Command {
		return &holdfastpb.Command{Command: &holdfastpb.Command_MemberAdd{MemberAdd: &holdfastpb.MemberAdd{
			Member: &holdfastpb.Member{Id: id, PeerUrls: []string{fmt.Sprint("http://", id)}},
		}}}
	}
	for _, f := range []*fixture{old, next} {
		f.applyConf(member(1), ConfChange(member(1)))
		f.apply(grant(1, 10), grant(2, 20))
	}
	next.apply(revoke(2), grant(3, 30))
	heard := &watched{}
	old.m.Leases.Watch(heard)
	*heard = nil
	done := make(chan struct{})
	missing := make(chan bool, 1)
	group := task.New(t.Context())
	group.Go("reader", func(context.Context) error {
		for {
			if old.m.Members.Get(1) == nil || old.m.Leases.Check(1) != nil {
				missing <- true
				return nil
			}
			select {
			case <-done:
				missing <- false
				return nil
			default:
			}
		}
	})
	for range 1000 {
		if err := old.m.Reload(next.store); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	if <-missing {
		t.Error("a reader saw a table half loaded")
	}
	if got := fmt.Sprint(*heard); got != "[revoked 2 granted 3 for 30]" {
		t.Errorf("the keeper heard %s", got)
	}
}
