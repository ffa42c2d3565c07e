package server_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// diverge gives a stopped member, whose store is compacted at its head, another
// past: its digests differ from now on.
func diverge(t testing.TB, m *servertest.Member) {
	t.Helper()
	reseed(t, m, func(seed *mvcc.Seed) { seed.Meta.Digest[0] ^= 1 })
}

// rot changes the value of a key of such a member and nothing else: its digests
// are as before.
func rot(t testing.TB, m *servertest.Member) {
	t.Helper()
	reseed(t, m, func(seed *mvcc.Seed) {
		next, changed := seed.Next, false
		seed.Next = func() (key, kv []byte, err error) {
			key, kv, err = next()
			if kv = slices.Clone(kv); len(kv) > 0 && !changed {
				kv[len(kv)-1] ^= 1
				changed = true
			}
			return key, kv, err
		}
	})
}

// reseed gives a stopped member a store made of its own, and of what change does.
func reseed(t testing.TB, m *servertest.Member, change func(*mvcc.Seed)) {
	t.Helper()
	dir, err := datadir.Open(vfs.OS(), m.Config.DataDir)
	must(t, err)
	defer dir.Close()
	n, err := dir.Current()
	must(t, err)
	config := func(n int) mvcc.Config {
		return mvcc.Config{FS: vfs.OS(), Dir: dir.Generation(n), Clock: clock.Real(), Logger: hclog.NewNullLogger()}
	}
	old, err := mvcc.Open(config(n))
	must(t, err)
	v := old.Base().View()
	seed := mvcc.Seed{Meta: v.Meta(), Last: v.Meta().Applied.Index}
	for table := backend.TableLease; table <= backend.TableMeta; table++ {
		must(t, v.TableRows(table, func(key, value []byte) error {
			seed.Rows = append(seed.Rows, backend.RowChange{Table: table, Key: slices.Clone(key), Value: slices.Clone(value)})
			return nil
		}))
	}
	c := v.Cursor()
	step := func() (key, kv []byte, err error) { return c.Seek(nil) }
	seed.Next = func() (key, kv []byte, err error) {
		key, kv, err = step()
		step = c.Next
		return key, kv, err
	}
	change(&seed)
	next, err := dir.Next()
	must(t, err)
	s, err := mvcc.CreateFrom(config(next), seed)
	must(t, err)
	must(t, s.Close())
	v.Release()
	must(t, old.Close())
	must(t, dir.SetCurrent(next, datadir.Began{Index: seed.Meta.Applied.Index, Term: seed.Meta.Term}))
}

// compacted makes a cluster with some keys, all of them in base.
func compacted(t testing.TB, members int) *servertest.Cluster {
	t.Helper()
	return compactedWith(t, members, nil)
}

func compactedWith(t testing.TB, members int, set func(int, *server.Config)) *servertest.Cluster {
	t.Helper()
	c := servertest.New(t, members, set)
	var head int64
	for _, key := range []string{"a", "b", "c"} {
		head = mustPut(t, dial(t, c.Members[0]), key, "1").Header.Revision
	}
	_, err := pb.NewKVClient(dial(t, c.Members[0])).Compact(t.Context(), &pb.CompactionRequest{Revision: head, Physical: true})
	must(t, err)
	for _, m := range c.Members { // Merged on each.
		mustGet(t, dial(t, m), "a")
		_, err := pb.NewMaintenanceClient(dial(t, m)).Defragment(t.Context(), &pb.DefragmentRequest{})
		must(t, err)
	}
	return c
}

func corruptAlarms(t testing.TB, m *servertest.Member) (ids []uint64) {
	t.Helper()
	r, err := pb.NewMaintenanceClient(dial(t, m)).Alarm(t.Context(), &pb.AlarmRequest{Action: pb.AlarmRequest_GET, Alarm: pb.AlarmType_CORRUPT})
	must(t, err)
	for _, a := range r.Alarms {
		ids = append(ids, a.MemberID)
	}
	return ids
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(readyMax); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", readyMax, what)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("test ends")
		}
	}
}

// readyMax is far more than anything takes here: a story of ten seconds took 42 on a
// machine that stood still every other second.
const readyMax = 2 * time.Minute

func TestAMemberThatDiffersFromAQuorumIsNamedAndStops(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	c := compacted(t, 3)
	wrong := c.Members[2]
	wrong.Stop()
	diverge(t, wrong)
	wrong.Start()
	select {
	case <-wrong.Done():
	case <-time.After(readyMax):
		t.Fatal("a member whose digest differs goes on")
	}
	if err := wrong.Err(); err == nil || !strings.Contains(err.Error(), "differs from that of a quorum") {
		t.Fatalf("it ended because of %v", err)
	}
	eventually(t, "the alarm names it", func() bool {
		return slices.Equal(corruptAlarms(t, c.Members[0]), []uint64{uint64(wrong.MemberID())})
	})
}

func TestWhereNobodyHasAQuorumTheAlarmNamesNobody(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	now := &halted{Clock: clock.Real()}
	c := compactedWith(t, 2, func(_ int, cfg *server.Config) { cfg.Clock = now })
	wrong := c.Members[1]
	wrong.Stop()
	diverge(t, wrong)
	wrong.Start()
	wrong.WaitReady()
	eventually(t, "an alarm for no member", func() bool {
		now.mono.Add(int64(time.Second)) // Members that differ without a quorum are given ten.
		return slices.Equal(corruptAlarms(t, c.Members[0]), []uint64{0})
	})
	for _, m := range c.Members {
		select {
		case <-m.Done():
			t.Fatalf("%s ended: %v", m.Config.Name, m.Err())
		default:
		}
	}
}
