package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/statemachine"
)

const (
	restoredDir  = "/restored"
	snapshotPath = "/backup/a.snapshot"
)

// expectation is what the state has to be after an entry.
type expectation struct {
	model *model
	state *mvcc.State // As a member had it that never crashed. Nil: that one never applied the entry.
}

// truth is what was said and done, whatever the disk holds.
type truth struct {
	created  bool                          // The directory was made, and that was told.
	appended map[wal.Mark]*raftpb.Entry    // Everything the log was ever given.
	expected map[wal.Mark]*expectation     // By the last applied entry.
	terms    map[ident.Index]ident.Term    // Of what was acknowledged.
	acked    ident.Index                   // Acknowledged up to here.
	incoming ident.Index                   // Of a snapshot that may be in force.
	began    map[wal.Mark]bool             // Where a state that may be in force was made or received: behind it a log may begin anew.
	hard     wal.HardState                 // Synced.
	given    map[ident.Term]ident.MemberID // Votes that were handed to the log.
	saved    *expectation                  // Of the snapshot file, once its making has begun.
	earlier  *expectation                  // Of the one that it replaces.
	isSaved  bool                          // It was told that it is there.
	restored bool                          // It was told that the restore is done.
}

func (t *truth) clone() *truth {
	c := *t
	c.began = maps.Clone(t.began)
	c.appended, c.expected, c.terms, c.given = maps.Clone(t.appended), maps.Clone(t.expected), maps.Clone(t.terms), maps.Clone(t.given)
	return &c
}

// life is a member at work, a twin that never crashes and gets every entry
// first, and the truth.
type life struct {
	*member
	twin  *member
	rnd   *rand.Rand
	truth *truth
	model *model // After the twin's last entry.
	head  wal.Mark
	stamp int64
	lease int64
	peer  uint64

	onFull, onStep func() // Of the member, over all its starts.
	refused        int    // What failed and did no harm to the member.

	rows    int // Of base, since it was filled.
	filling bool
}

func newLife(d, twinDisk *disk, rnd *rand.Rand) (*life, error) {
	l := &life{rnd: rnd, model: newModel(), head: wal.Mark{Index: 1, Term: 1}, stamp: 1000, peer: 100, onFull: func() {}, onStep: func() {}}
	l.truth = &truth{
		incoming: l.head.Index, // What a new directory holds is committed.
		began:    map[wal.Mark]bool{l.head: true},
		appended: map[wal.Mark]*raftpb.Entry{}, expected: map[wal.Mark]*expectation{},
		terms: map[ident.Index]ident.Term{}, given: map[ident.Term]ident.MemberID{},
	}
	if err := create(twinDisk, memberDir, firstMember); err != nil {
		return nil, err
	}
	var err error
	if l.twin, err = boot(twinDisk, memberDir); err != nil {
		return nil, err
	}
	l.expect()
	return l, nil
}

// begin makes the member's directory and starts it.
func (l *life) begin(d *disk) error {
	l.member = &member{disk: d, onFull: l.onFull, onStep: l.onStep}
	if err := create(d, memberDir, firstMember); err != nil {
		return err
	}
	l.truth.created, l.truth.acked = true, l.head.Index
	return l.start(d)
}

func (l *life) start(d *disk) error {
	m, err := boot(d, memberDir)
	if err != nil {
		return err
	}
	m.onFull, m.onStep = l.onFull, l.onStep
	l.member = m
	return m.replay()
}

func (l *life) expect() {
	state := l.twin.rep.Store().Applied()
	l.truth.expected[l.head] = &expectation{model: l.model.clone(), state: &state}
}

// newEntry is one of the leader's, with some requests.
func (l *life) newEntry(at wal.Mark, commands ...*holdfastpb.Command) (*raftpb.Entry, error) {
	l.stamp += 1000
	batch := entry.Batch{Time: l.stamp}
	for i, c := range commands {
		data, err := c.MarshalVT()
		if err != nil {
			return nil, err
		}
		batch.Requests = append(batch.Requests, entry.Request{ID: ident.RequestID{Member: 1, Nonce: 5, Sequence: uint64(l.stamp) + uint64(i)}, Data: data})
	}
	kind, data := raftpb.EntryNormal, entry.AppendBatch(nil, &batch)
	if change := statemachine.ConfChange(commands[0]); change != nil {
		change.Context = data
		kind = raftpb.EntryConfChangeV2
		var err error
		if data, err = proto.Marshal(change); err != nil {
			return nil, err
		}
	}
	return &raftpb.Entry{Term: proto.Uint64(uint64(at.Term)), Index: proto.Uint64(uint64(at.Index)), Type: &kind, Data: data}, nil
}

// next makes an entry, applies it to the twin and to the model, and expects it.
func (l *life) next(commands ...*holdfastpb.Command) (*raftpb.Entry, error) {
	l.head.Index++
	e, err := l.newEntry(l.head, commands...)
	if err != nil {
		return nil, err
	}
	if err := l.model.apply(e); err != nil {
		return nil, err
	}
	if err := l.twin.apply([]*raftpb.Entry{e}); err != nil {
		return nil, fmt.Errorf("twin: %w", err)
	}
	for more := l.head.Index%8 == 0; more; {
		if more, err = l.twin.rep.Store().Step(); err != nil {
			return nil, fmt.Errorf("twin: %w", err)
		}
	}
	l.expect()
	return e, nil
}

// commit puts entries through log and state: after the sync they count.
func (l *life) commit(entries ...*raftpb.Entry) error {
	hard := l.hard
	hard.Term, hard.Commit = max(hard.Term, l.head.Term), l.truth.acked
	if hard.Term != l.hard.Term {
		hard.Vote = 1
	}
	if err := l.hand(entries, hard); err != nil {
		return err
	}
	if err := l.member.sync(); err != nil {
		return err
	}
	l.truth.hard = hard
	for _, e := range entries {
		l.truth.acked = ident.Index(e.GetIndex())
		l.truth.terms[l.truth.acked] = ident.Term(e.GetTerm())
	}
	return l.member.apply(entries)
}

// hand gives the log entries and hard state, and notes that it did.
func (l *life) hand(entries []*raftpb.Entry, hard wal.HardState) error {
	for _, e := range entries {
		l.truth.appended[wal.Mark{Index: ident.Index(e.GetIndex()), Term: ident.Term(e.GetTerm())}] = e
	}
	l.truth.given[hard.Term] = hard.Vote
	return l.member.append(entries, hard)
}

func (l *life) propose(commands ...*holdfastpb.Command) error {
	e, err := l.next(commands...)
	if err != nil {
		return err
	}
	return l.commit(e)
}

func (l *life) key() []byte {
	if l.rows > 0 && l.rnd.IntN(3) == 0 {
		return fmt.Appendf(nil, "row-%03d", l.rnd.IntN(l.rows))
	}
	return fmt.Appendf(nil, "key-%02d", l.rnd.IntN(24))
}

// fill puts rows into base, by way of history. Nobody watches meanwhile: other
// steps do the same.
func (l *life) fill(rows int) error {
	if rows == 0 {
		return nil
	}
	l.filling = true
	defer func() { l.filling = false }()
	for from := 0; from < rows; from += 20 {
		var commands []*holdfastpb.Command
		for i := from; i < min(from+20, rows); i++ {
			commands = append(commands, put(fmt.Appendf(nil, "row-%03d", i), l.value(160), 0))
		}
		if err := l.propose(commands...); err != nil {
			return err
		}
	}
	l.rows = rows
	if err := l.propose(compaction(l.model.revision)); err != nil {
		return err
	}
	return l.stepAll()
}

func (l *life) value(bytesMax int) []byte {
	b := make([]byte, l.rnd.IntN(bytesMax))
	for i := range b {
		b[i] = byte(l.rnd.Uint32())
	}
	return b
}

func put(key, value []byte, lease int64) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_Put{Put: &pb.PutRequest{Key: key, Value: value, Lease: lease}}}
}

func remove(key, end []byte) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_DeleteRange{DeleteRange: &pb.DeleteRangeRequest{Key: key, RangeEnd: end}}}
}

func compaction(revision int64) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_Compaction{Compaction: &pb.CompactionRequest{Revision: revision}}}
}

// The steps of a life.

func (l *life) putOne() error  { return l.propose(put(l.key(), l.value(200), 0)) }
func (l *life) putLong() error { return l.propose(put(l.key(), l.value(2500), 0)) }

func (l *life) putMany() error {
	var commands []*holdfastpb.Command
	for range 1 + l.rnd.IntN(4) {
		commands = append(commands, put(l.key(), l.value(100), 0))
	}
	return l.propose(commands...)
}

// pipeline has several entries wait for one sync.
func (l *life) pipeline() error {
	var entries []*raftpb.Entry
	for range 2 + l.rnd.IntN(3) {
		e, err := l.next(put(l.key(), l.value(100), 0))
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	return l.commit(entries...)
}

func (l *life) deleteSome() error {
	if l.rnd.IntN(2) == 0 {
		return l.propose(remove(l.key(), nil))
	}
	return l.propose(remove([]byte("key-05"), []byte("key-1")))
}

func (l *life) txn() error {
	op := func() []*pb.RequestOp {
		key := l.key()
		ops := []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: l.value(60)}}}}
		if other := l.key(); !bytes.Equal(key, other) {
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: other}}})
		}
		return ops
	}
	return l.propose(&holdfastpb.Command{Command: &holdfastpb.Command_Txn{Txn: &pb.TxnRequest{
		Compare: []*pb.Compare{{
			Key: l.key(), Target: pb.Compare_VERSION, Result: pb.Compare_EQUAL,
			TargetUnion: &pb.Compare_Version{Version: l.rnd.Int64N(2)},
		}},
		Success: op(), Failure: op(),
	}}})
}

func (l *life) leases() error {
	l.lease++
	grant := &holdfastpb.Command{Command: &holdfastpb.Command_LeaseGrant{LeaseGrant: &holdfastpb.LeaseGrant{Id: l.lease, Ttl: 10 + l.lease}}}
	if err := l.propose(grant, put(l.key(), l.value(50), l.lease)); err != nil {
		return err
	}
	if l.lease%3 == 0 {
		return l.propose(&holdfastpb.Command{Command: &holdfastpb.Command_LeaseRevoke{LeaseRevoke: &holdfastpb.LeaseRevoke{Id: l.lease - 1}}})
	}
	return nil
}

func (l *life) learner() error {
	l.peer++
	m := &holdfastpb.Member{Id: l.peer, PeerUrls: []string{fmt.Sprintf("http://m%d:2380", l.peer)}, IsLearner: true}
	if err := l.propose(&holdfastpb.Command{Command: &holdfastpb.Command_MemberAdd{MemberAdd: &holdfastpb.MemberAdd{Member: m, LearnersMax: 100}}}); err != nil {
		return err
	}
	return l.propose(&holdfastpb.Command{Command: &holdfastpb.Command_MemberRemove{MemberRemove: &holdfastpb.MemberRemove{Id: l.peer}}})
}

func (l *life) compact() error {
	low := max(l.model.compacted, 0)
	return l.propose(compaction(low + (l.model.revision-low+1)*int64(1+l.rnd.IntN(3))/3))
}

func (l *life) work() error {
	for range 1 + l.rnd.IntN(3) {
		if _, err := l.step(); err != nil {
			return err
		}
	}
	return nil
}

func (l *life) settle() error { return l.stepAll() }

func (l *life) prepare() error {
	err := l.log.Prepare()
	if errors.Is(err, wal.ErrNoSegment) || err != nil && l.log.Append(nil, nil) == nil {
		l.full++
		l.onFull() // The next segment is made later.
		return nil
	}
	return err
}

func (l *life) vote() error {
	hard := l.hard
	hard.Term, hard.Vote = max(hard.Term, l.head.Term)+1, ident.MemberID(2+l.rnd.IntN(3))
	if err := l.hand(nil, hard); err != nil {
		return err
	}
	if err := l.member.sync(); err != nil {
		return err
	}
	l.truth.hard = hard
	l.head.Term = hard.Term + 1 // Of the entries to come.
	return nil
}

// conflict appends what a leader did not get through, and what its successor
// puts in the place.
func (l *life) conflict() error {
	term := max(l.hard.Term, l.head.Term) + 1
	var lost []*raftpb.Entry
	for i := range 1 + l.rnd.IntN(3) {
		e, err := l.newEntry(wal.Mark{Index: l.head.Index + 1 + ident.Index(i), Term: term}, put(l.key(), l.value(80), 0))
		if err != nil {
			return err
		}
		lost = append(lost, e)
	}
	hard := wal.HardState{Term: term, Vote: 2, Commit: l.truth.acked}
	if err := l.hand(lost, hard); err != nil {
		return err
	}
	if l.rnd.IntN(2) == 0 {
		if err := l.member.sync(); err != nil {
			return err
		}
		l.truth.hard = hard
	}
	l.head.Term = term + 1
	return l.pipeline()
}

func (l *life) restart() error {
	if err := l.close(); err != nil {
		return err
	}
	l.log = nil // Closed in order. If the next one fails to open, it is not this one that failed.
	return l.start(l.disk)
}

func (l *life) defragment() error {
	if err := l.stepAll(); err != nil {
		return err
	}
	err := l.rep.Store().Base().Defragment(context.Background())
	if errors.Is(err, backend.ErrFailed) {
		return err
	}
	return l.refuse(err)
}

// refuse counts a request that failed: the member goes on.
func (l *life) refuse(err error) error {
	if err != nil {
		l.refused++
		l.onFull()
	}
	return nil
}

// install has the member miss some entries and get the state that the twin is
// in by then, as a snapshot.
func (l *life) install() error {
	for range 1 + l.rnd.IntN(6) {
		if _, err := l.next(put(l.key(), l.value(150), 0)); err != nil {
			return err
		}
	}
	if l.rnd.IntN(2) == 0 {
		if _, err := l.next(compaction(l.model.revision - int64(l.rnd.IntN(3)))); err != nil {
			return err
		}
	}
	stream, err := l.frozen()
	if err != nil {
		return err
	}
	l.truth.incoming, l.truth.began[l.head] = l.head.Index, true
	staged, err := l.rep.Receive(bytes.NewReader(stream))
	for range 3 { // The leader sends it again.
		if err == nil {
			break
		}
		l.refused++
		l.onFull()
		staged, err = l.rep.Receive(bytes.NewReader(stream))
	}
	if err != nil {
		return err
	}
	if err := l.try(func() error { return l.rep.Install(staged) }); err != nil {
		return err
	}
	if err := l.try(func() error { return l.log.Reset(l.head) }); err != nil {
		return err
	}
	l.hard.Commit = l.head.Index
	l.checkpoints, l.previous, l.conf = nil, 0, staged.Meta().Conf
	l.truth.acked, l.truth.terms[l.head.Index] = l.head.Index, l.head.Term
	return l.commit()
}

func (l *life) frozen() ([]byte, error) {
	f, err := l.twin.rep.Freeze()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var stream bytes.Buffer
	err = f.WriteTo(&stream, l.rep.Have())
	return stream.Bytes(), err
}

// save keeps the state in a snapshot file.
func (l *life) save() error { return l.refuse(l.saveFile()) }

func (l *life) saveFile() error {
	file, size, done, err := l.rep.SnapshotFile(context.Background(), 1)
	if err != nil {
		return err
	}
	l.truth.earlier, l.truth.isSaved = l.truth.saved, false
	l.truth.saved = l.truth.expected[wal.Mark{Index: l.truth.acked, Term: l.truth.terms[l.truth.acked]}]
	at := int64(0)
	if err := l.disk.mem.MkdirAll(filepath.Dir(snapshotPath)); err != nil {
		return errors.Join(err, done())
	}
	if err := l.disk.mem.SyncDir("/"); err != nil {
		return errors.Join(err, done())
	}
	_, err = snapshot.Save(context.Background(), l.disk.mem, snapshotPath, func() ([]byte, error) {
		if at == size {
			return nil, io.EOF
		}
		b := make([]byte, min(size-at, 3000))
		n, err := file.ReadAt(b, at)
		at += int64(n)
		if errors.Is(err, io.EOF) && n == len(b) {
			err = nil
		}
		return b, err
	}, nil)
	if err = errors.Join(err, done()); err == nil {
		l.truth.isSaved = true
	}
	return err
}

// restore makes another member's directory of the file.
func (l *life) restore() error {
	if err := l.saveFile(); err != nil {
		return l.refuse(err)
	}
	if err := restoreFrom(l.disk); err != nil {
		return l.refuse(err)
	}
	l.truth.restored = true
	return nil
}

func restoreFrom(d *disk) error {
	status, err := snapshot.ReadHeader(d.mem, snapshotPath)
	if err != nil {
		return err
	}
	plan, err := snapshot.PlanRestore(status.Header, snapshot.RestoreOptions{
		Members: []snapshot.Target{{Name: "r1", PeerURLs: []string{"http://r1:2380"}, DataDir: restoredDir}}, Replace: true,
	})
	if err != nil {
		return err
	}
	return snapshot.Restore(context.Background(), snapshot.RestoreConfig{
		FS: d.mem, Clock: clocktest.New(), Logger: hclog.NewNullLogger(), Random: bytes.NewReader(bytes.Repeat([]byte{7}, 64)),
		Tune: func(c *mvcc.Config) { tune(d, c) },
	}, snapshotPath, plan)
}
