package statemachine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine/alarm"
	"github.com/holdfast-db/holdfast/statemachine/lease"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

// fixture is a machine on a store of its own, and the log that drives it.
type fixture struct {
	t     *testing.T
	m     *Machine
	store *mvcc.Store
	index ident.Index
	conf  *raftpb.ConfState
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := newFixtureIn(t, t.TempDir())
	t.Cleanup(func() { f.store.Close() })
	return f
}

func newFixtureIn(t *testing.T, dir string) *fixture {
	t.Helper()
	store, err := mvcc.Create(mvcc.Config{
		FS: vfs.OS(), Dir: dir, Clock: clock.Real(), Logger: hclog.NewNullLogger(), Manual: true, BaseNoSync: true,
	}, mvcc.Identity{Cluster: 1, Timeline: 1})
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(store)
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{t: t, m: m, store: store, conf: &raftpb.ConfState{}}
}

// apply runs commands as one entry.
func (f *fixture) apply(cmds ...*holdfastpb.Command) []entry.Answer {
	f.t.Helper()
	f.index++
	e := entry.Entry{Index: f.index, Term: 2, Time: int64(f.index)}
	for i, c := range cmds {
		data, err := c.MarshalVT()
		if err != nil {
			f.t.Fatal(err)
		}
		e.Requests = append(e.Requests, entry.Request{ID: ident.RequestID{Sequence: uint64(i)}, Data: data})
	}
	answers, err := f.m.Apply([]entry.Entry{e})
	if err != nil {
		f.t.Fatal(err)
	}
	return answers
}

func (f *fixture) one(c *holdfastpb.Command) (any, error) {
	f.t.Helper()
	a := f.apply(c)
	return a[0].Value, a[0].Err
}

// applyConf runs a change of the members, as the log would.
func (f *fixture) applyConf(cmd *holdfastpb.Command, change *raftpb.ConfChangeV2) (accepted bool, err error) {
	f.t.Helper()
	data, merr := cmd.MarshalVT()
	if merr != nil {
		f.t.Fatal(merr)
	}
	f.index++
	answers, aerr := f.m.Apply([]entry.Entry{{Index: f.index, Term: 2, Time: int64(f.index), Conf: &entry.ConfChange{
		Change: change, Request: entry.Request{Data: data},
		Resolve: func(ok bool) *raftpb.ConfState { accepted = ok; return f.conf },
	}}})
	if aerr != nil {
		f.t.Fatal(aerr)
	}
	return accepted, answers[0].Err
}

func put(key, value string) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_Put{Put: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}}
}

func putLeased(key string, id int64) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_Put{Put: &pb.PutRequest{Key: []byte(key), Lease: id}}}
}

func del(key, end string) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_DeleteRange{DeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func txn(t *pb.TxnRequest) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_Txn{Txn: t}}
}

func grant(id, ttl int64) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_LeaseGrant{LeaseGrant: &holdfastpb.LeaseGrant{Id: id, Ttl: ttl}}}
}

func revoke(id int64) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_LeaseRevoke{LeaseRevoke: &holdfastpb.LeaseRevoke{Id: id}}}
}

func expire(term uint64, ids ...int64) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_LeaseExpire{LeaseExpire: &holdfastpb.LeaseExpire{Ids: ids, Term: term}}}
}

func setAlarm(id uint64, kind pb.AlarmType, on bool) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_Alarm{Alarm: &holdfastpb.AlarmSet{Alarm: &pb.AlarmMember{MemberID: id, Alarm: kind}, Active: on}}}
}

func opPut(key, value string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}}
}

func opRange(key string, rev int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key), Revision: rev}}}
}

// keys returns what there is, as key=value.
func (f *fixture) keys() string {
	f.t.Helper()
	v := f.store.View()
	defer v.Release()
	res, err := v.Range(f.t.Context(), mvcc.RangeArgs{Key: []byte{0}, End: []byte{0}})
	if err != nil {
		f.t.Fatal(err)
	}
	kvs, err := decode(res.KVs)
	if err != nil {
		f.t.Fatal(err)
	}
	var out bytes.Buffer
	for _, kv := range kvs {
		fmt.Fprintf(&out, "%s=%s ", kv.Key, kv.Value)
	}
	return out.String()
}

func TestEachRequestOfAnEntrySucceedsOrFailsAlone(t *testing.T) {
	f := newFixture(t)
	bad := entry.Request{Data: []byte{0xff, 0xff}}
	good, err := put("a", "1").MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	f.index++
	answers, err := f.m.Apply([]entry.Entry{{Index: 1, Term: 2, Requests: []entry.Request{bad, {Data: good}, {}}}})
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(answers[0].Err, ErrUndecodable) || answers[1].Err != nil || !errors.Is(answers[2].Err, ErrUnknown) {
		t.Fatalf("answers are %v, %v, %v", answers[0].Err, answers[1].Err, answers[2].Err)
	}
	if got := f.keys(); got != "a=1 " {
		t.Fatalf("store holds %q", got)
	}
}

func TestATransactionThatCannotFinishWritesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		op   *pb.RequestOp
		want error
	}{
		"future range":  {opRange("a", 99), mvcc.ErrFutureRevision},
		"unknown lease": {&pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("z"), Lease: 7}}}, lease.ErrNotFound},
		"value of a key that is not there": {&pb.RequestOp{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: []byte("z"), IgnoreValue: true}}}, mvcc.ErrKeyNotFound},
		"the same, nested": {&pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: []*pb.RequestOp{opRange("a", 99)}}}}, mvcc.ErrFutureRevision},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			_, err := f.one(txn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut("a", "1"), c.op}}))
			if !errors.Is(err, c.want) {
				t.Fatalf("error is %v, want %v", err, c.want)
			}
			if got := f.keys(); got != "" || f.store.Head() != 1 {
				t.Fatalf("store holds %q at revision %d", got, f.store.Head())
			}
		})
	}
}

func TestNestedConditionsSeeTheStateBeforeTheTransaction(t *testing.T) {
	f := newFixture(t)
	ifA1 := []*pb.Compare{{Key: []byte("a"), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte("1")}}}
	v, err := f.one(txn(&pb.TxnRequest{Success: []*pb.RequestOp{
		opPut("a", "1"),
		{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Compare: ifA1, Success: []*pb.RequestOp{opPut("b", "yes")}, Failure: []*pb.RequestOp{opPut("b", "no")}}}},
		opRange("a", 0),
	}}))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.keys(); got != "a=1 b=no " {
		t.Fatalf("store holds %q", got)
	}
	r := v.(*pb.TxnResponse)
	if kvs := r.Responses[2].GetResponseRange().Kvs; len(kvs) != 1 || kvs[0].ModRevision != 2 || r.Header.Revision != 2 {
		t.Fatalf("a later operation does not see an earlier put: %v", r)
	}
}

func TestConditionsOnWhatIsNotThere(t *testing.T) {
	f := newFixture(t)
	f.apply(put("x1", "v"), put("x2", "v"))
	for name, c := range map[string]struct {
		cmp  *pb.Compare
		want bool
	}{
		"value of a missing key never differs": {&pb.Compare{Key: []byte("m"), Target: pb.Compare_VALUE, Result: pb.Compare_NOT_EQUAL}, false},
		"version of a missing key is zero":     {&pb.Compare{Key: []byte("m"), Target: pb.Compare_VERSION}, true},
		"a missing union is zero":              {&pb.Compare{Key: []byte("x1"), Target: pb.Compare_LEASE}, true},
		"all keys of a range must meet it":     {&pb.Compare{Key: []byte("x"), RangeEnd: []byte("y"), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: 2}}, false},
		"and do":                               {&pb.Compare{Key: []byte("x"), RangeEnd: []byte("y"), Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: 1}}, true},
	} {
		v, err := f.one(txn(&pb.TxnRequest{Compare: []*pb.Compare{c.cmp}}))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := v.(*pb.TxnResponse).Succeeded; got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestALeaseTakesItsKeysAlongAtOneRevision(t *testing.T) {
	f := newFixture(t)
	f.apply(grant(7, 10), putLeased("b", 7), putLeased("a", 7), put("c", "stays"), putLeased("d", 7), put("d", "detached"))
	if _, err := f.one(grant(8, 9_000_000_001)); !errors.Is(err, lease.ErrTTL) {
		t.Errorf("a lease for too long: %v", err)
	}
	if _, err := f.one(grant(7, 10)); !errors.Is(err, lease.ErrExists) {
		t.Errorf("granting again: %v", err)
	}
	head := f.store.Head()
	if _, err := f.one(revoke(7)); err != nil {
		t.Fatal(err)
	}
	if got := f.keys(); got != "c=stays d=detached " {
		t.Errorf("after revocation: %q", got)
	}
	if f.store.Head() != head+1 {
		t.Errorf("revocation moved the revision from %d to %d", head, f.store.Head())
	}
	if _, err := f.one(revoke(7)); !errors.Is(err, lease.ErrNotFound) {
		t.Errorf("revoking again: %v", err)
	}
}

func TestALeaderOfAnotherTermExpiresNothing(t *testing.T) {
	f := newFixture(t)
	f.apply(grant(7, 10), putLeased("a", 7))
	if _, err := f.one(expire(1, 7)); !errors.Is(err, ErrTerm) {
		t.Fatalf("expiry by the leader of term 1 in an entry of term 2: %v", err)
	}
	if f.keys() != "a= " {
		t.Fatal("the key is gone")
	}
	if _, err := f.one(expire(2, 7, 8)); err != nil || f.keys() != "" {
		t.Fatalf("expiry by the present leader: %v, %q left", err, f.keys())
	}
}

func TestAlarmsRefuseWhatMakesThingsWorse(t *testing.T) {
	f := newFixture(t)
	f.apply(put("a", "1"), grant(1, 5))
	f.apply(setAlarm(9, pb.AlarmType_NOSPACE, true))
	for name, c := range map[string]struct {
		cmd  *holdfastpb.Command
		want error
	}{
		"put":                {put("b", "2"), ErrNoSpace},
		"grant":              {grant(2, 5), ErrNoSpace},
		"txn with a put":     {txn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut("b", "2")}}), ErrNoSpace},
		"txn that only asks": {txn(&pb.TxnRequest{Success: []*pb.RequestOp{opRange("a", 0)}}), nil},
		"revoke":             {revoke(1), nil},
		"delete":             {del("a", ""), nil},
	} {
		if _, err := f.one(c.cmd); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	f.apply(setAlarm(8, pb.AlarmType_NOSPACE, false)) // The wrong member.
	if !f.m.Alarms.On(alarm.NoSpace) {
		t.Fatal("the alarm of member 9 went off with that of member 8")
	}
	f.apply(setAlarm(9, pb.AlarmType_NOSPACE, false))
	if _, err := f.one(put("b", "2")); err != nil {
		t.Fatal(err)
	}
	f.apply(setAlarm(9, pb.AlarmType_CORRUPT, true))
	if _, err := f.one(del("b", "")); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("delete in a corrupt cluster: %v", err)
	}
}

func memberAdd(id uint64, url string, learner bool) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_MemberAdd{MemberAdd: &holdfastpb.MemberAdd{
		Member: &holdfastpb.Member{Id: id, PeerUrls: []string{url}, IsLearner: learner}, LearnersMax: 1,
	}}}
}

func memberRemove(id uint64) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_MemberRemove{MemberRemove: &holdfastpb.MemberRemove{Id: id}}}
}

func TestMembersComeAndGoButNeverComeBack(t *testing.T) {
	f := newFixture(t)
	for i, step := range []struct {
		cmd  *holdfastpb.Command
		want error
	}{
		{memberAdd(1, "http://a:1", false), nil},
		{memberRemove(1), member.ErrLastVoter},
		{memberAdd(2, "http://b:1", false), nil},
		{memberAdd(2, "http://c:1", false), member.ErrIDExists},
		{memberAdd(3, "http://b:1", false), member.ErrURLExists},
		{memberAdd(3, "http://c:1", true), nil},
		{memberAdd(4, "http://d:1", true), member.ErrTooManyLearner},
		{memberRemove(2), nil},
		{memberRemove(2), member.ErrRemoved},
		{memberAdd(2, "http://b:1", false), member.ErrRemoved},
		{memberRemove(77), member.ErrNotFound},
	} {
		accepted, err := f.applyConf(step.cmd, ConfChange(step.cmd))
		if !errors.Is(err, step.want) || accepted != (step.want == nil) {
			t.Fatalf("step %d: accepted %v with %v, want %v", i, accepted, err, step.want)
		}
	}
	if n := len(f.m.Members.List()); n != 2 {
		t.Fatalf("%d members are left", n)
	}
	cmd := memberAdd(5, "http://e:1", false)
	if accepted, err := f.applyConf(cmd, ConfChange(memberRemove(1))); accepted || !errors.Is(err, ErrMismatch) {
		t.Fatalf("a command that says another thing than Raft's change: accepted %v, %v", accepted, err)
	}
}

// TestRecordsAndEntriesLeadToTheSameState drives one machine by the log and
// another by the first one's history, and compares digests, tables and hashes;
// then a third by a restart.
func TestRecordsAndEntriesLeadToTheSameState(t *testing.T) {
	for seed := range int64(8) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			rng := rand.New(rand.NewSource(seed))
			byLog, byHistory := newFixture(t), newFixture(t)
			for range 150 {
				batch := make([]*holdfastpb.Command, 1+rng.Intn(4))
				for i := range batch {
					batch[i] = randomCommand(rng, byLog.store)
				}
				byLog.apply(batch...)
			}
			byLog.replayTo(byHistory)
			sameState(t, byLog, byHistory)
		})
	}
}

// replayTo drives another machine by the history of this one.
func (f *fixture) replayTo(other *fixture) {
	f.t.Helper()
	r, err := f.store.History().Scan(ident.Position{})
	if err != nil {
		f.t.Fatal(err)
	}
	defer r.Close()
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			f.t.Fatal(err)
		}
		if err := other.m.ApplyRecord(rec); err != nil {
			f.t.Fatal(err)
		}
	}
}

func randomCommand(rng *rand.Rand, s *mvcc.Store) *holdfastpb.Command {
	key := fmt.Sprintf("k%02d", rng.Intn(30))
	id := int64(1 + rng.Intn(5))
	switch rng.Intn(10) {
	case 0:
		return del(key, fmt.Sprintf("k%02d", rng.Intn(30)))
	case 1:
		return grant(id, 10)
	case 2:
		return revoke(id)
	case 3:
		return putLeased(key, id)
	case 4:
		return txn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(key, "t"), opPut(key+"x", "t"), opRange(key, 0)}})
	case 5:
		return setAlarm(uint64(id), pb.AlarmType_NOSPACE, false)
	case 6:
		if rng.Intn(10) > 0 {
			return expire(2, id)
		}
		return &holdfastpb.Command{Command: &holdfastpb.Command_Compaction{Compaction: &pb.CompactionRequest{Revision: int64(s.Head()) - int64(rng.Intn(5))}}}
	}
	return put(key, fmt.Sprint(rng.Int()))
}

func sameState(t *testing.T, a, b *fixture) {
	t.Helper()
	x, y := a.store.Applied(), b.store.Applied()
	if x.Digest != y.Digest || x.Revision != y.Revision || x.Compacted != y.Compacted {
		t.Fatalf("states differ: %+v and %+v", x, y)
	}
	if got, want := fmt.Sprint(b.m.Leases.List(), b.m.Alarms.List(alarm.None)), fmt.Sprint(a.m.Leases.List(), a.m.Alarms.List(alarm.None)); got != want {
		t.Fatalf("tables differ: %s and %s", got, want)
	}
	hx, err := a.store.HashKV(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	hy, err := b.store.HashKV(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if hx != hy {
		t.Fatalf("hashes differ: %+v and %+v", hx, hy)
	}
}

func TestARecordMayWriteTheMembersAnew(t *testing.T) {
	f := newFixture(t)
	if _, err := f.applyConf(memberAdd(1, "http://a:1", false), ConfChange(memberAdd(1, "http://a:1", false))); err != nil {
		t.Fatal(err)
	}
	row, err := (&holdfastpb.Member{Id: 2}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	e := f.store.Begin(f.index+1, 2, 9) // As a restore does, below the machine.
	tx := e.Tx()
	tx.DeleteRow(mvcc.TableMember, member.Key(1))
	tx.SetRow(mvcc.TableMember, member.Key(2), row)
	tx.Commit()
	if err := e.Commit(); err != nil {
		t.Fatal(err)
	}
	follower := newFixture(t)
	f.replayTo(follower)
	if list := follower.m.Members.List(); len(list) != 1 || list[0].Id != 2 {
		t.Fatalf("members are %v", list)
	}
}
