package etcd

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"path/filepath"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/statemachine"
)

// replay applies what a data directory's log has beyond its database.
type replay struct {
	log  *log
	db   *database
	conf *raftpb.ConfState // In force at the entry that is being looked at.
}

// Fields of etcdserverpb.InternalRaftRequest.
const (
	requestPut         = 4
	requestDeleteRange = 5
	requestTxn         = 6
	requestCompaction  = 7
	requestLeaseGrant  = 8
	requestLeaseRevoke = 9
	requestAlarm       = 10
	requestAuthEnable  = 1000
	requestLast        = 9999 // Users, roles, versions, members lie between the two.
)

// requestsPassedOver change no row: those of the second version, ranges, the
// remaining time of leases, headers.
var requestsPassedOver = []protowire.Number{2, 3, 11, 100}

// stateFile is what the newest .snap file says: the configuration as of an entry.
type stateFile struct {
	index uint64
	conf  *raftpb.ConfState
}

// newestState reads the newest .snap file of a directory. One that is damaged is
// an error, though etcd would take the one before: we are not in a hurry.
func newestState(fsys vfs.FS, dir string) (*stateFile, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	newest := ""
	for _, name := range names { // TERM-INDEX.snap, in hexadecimal digits of equal number.
		if filepath.Ext(name) == ".snap" {
			newest = max(newest, name)
		}
	}
	if newest == "" {
		return &stateFile{conf: &raftpb.ConfState{}}, nil
	}
	path := filepath.Join(dir, newest)
	b, err := readAll(fsys, path)
	if err != nil {
		return nil, err
	}
	damaged := func(format string, args ...any) error {
		return &DamageError{File: path, Reason: fmt.Sprintf(format, args...)}
	}
	outer, err := decodeFields(b)
	if err != nil {
		return nil, damaged("%v", err)
	}
	data := outer.bytes[2]
	if got := crc32.Checksum(data, castagnoli); uint64(got) != outer.numbers[1] {
		return nil, damaged("checksum is %08x, says %08x", got, outer.numbers[1])
	}
	snap := &raftpb.Snapshot{}
	if err := proto.Unmarshal(data, snap); err != nil || snap.GetMetadata().GetConfState() == nil {
		return nil, damaged("no snapshot of Raft: %v", err)
	}
	return &stateFile{index: snap.GetMetadata().GetIndex(), conf: snap.GetMetadata().GetConfState()}, nil
}

func readAll(fsys vfs.FS, path string) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > stateFileBytesMax {
		return nil, &DamageError{File: path, Offset: stateFileBytesMax, Reason: "longer than any such file is"}
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

// openReplay reads the log and decides how far it is known as committed.
func openReplay(fsys vfs.FS, snapDir, walDir string, db *database) (*replay, error) {
	state, err := newestState(fsys, snapDir)
	if err != nil {
		return nil, err
	}
	if db.conf != nil {
		state = &stateFile{index: db.index, conf: db.conf}
	}
	l, err := openLog(fsys, walDir, min(state.index, db.index)+1)
	if err != nil {
		return nil, err
	}
	r := &replay{log: l, db: db, conf: state.conf}
	if err := r.check(state.index); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return r, nil
}

// check compares log and database, and brings the configuration up to the
// database.
func (r *replay) check(confIndex uint64) error {
	l, at := r.log, r.db.index
	newest := l.files[len(l.files)-1].Name()
	switch {
	case at > l.last():
		return &DamageError{File: newest, Reason: fmt.Sprintf("the log ends with entry %d, the database has entry %d: it is of another time or member", l.last(), at)}
	case at+1 < l.first:
		return &DamageError{File: l.files[0].Name(), Reason: fmt.Sprintf("the log begins with entry %d, the database ends with entry %d", l.first, at)}
	case l.state.GetCommit() > l.last():
		return &DamageError{File: newest, Reason: fmt.Sprintf("the log ends with entry %d, but entry %d was committed", l.last(), l.state.GetCommit())}
	}
	if at >= l.first {
		term := l.places[at-l.first].term
		if r.db.term != 0 && r.db.term != term {
			return &DamageError{File: newest, Reason: fmt.Sprintf("entry %d is of term %d, in the database of term %d: one is another member's", at, term, r.db.term)}
		}
		r.db.term = term
	}
	for i := max(confIndex+1, l.first); i <= at; i++ {
		if err := r.configure(i); err != nil {
			return err
		}
	}
	return nil
}

// configure takes in an entry if it changes the configuration.
func (r *replay) configure(index uint64) error {
	if !r.log.places[index-r.log.first].conf {
		return nil
	}
	e, err := r.log.entryAt(index)
	if err != nil {
		return err
	}
	change := &raftpb.ConfChangeV2{}
	if e.GetType() == raftpb.EntryConfChange {
		first := &raftpb.ConfChange{}
		err = proto.Unmarshal(e.GetData(), first)
		change = first.AsV2()
	} else {
		err = proto.Unmarshal(e.GetData(), change)
	}
	if err == nil {
		r.conf, err = snapshot.ConfAfter(r.conf, change)
	}
	if err != nil {
		return fmt.Errorf("change of configuration in entry %d: %w", index, err)
	}
	return nil
}

// until is the last entry that was committed for certain: of a member that is
// the only voter, all there are.
func (r *replay) until() uint64 {
	if len(r.conf.Voters) == 1 && len(r.conf.VotersOutgoing) == 0 {
		return r.log.last()
	}
	return r.log.state.GetCommit()
}

// run applies the committed entries beyond the database to a store that was
// made from it.
func (r *replay) run(store *mvcc.Store, report *Report) error {
	machine, err := statemachine.New(store)
	if err != nil {
		return err
	}
	next := r.db.index + 1
	for ; next <= r.until() && next <= r.log.last(); next++ {
		if err := r.configure(next); err != nil {
			return err
		}
		e, err := r.log.entryAt(next)
		if err != nil {
			return err
		}
		if err := r.apply(machine, e); err != nil {
			return fmt.Errorf("entry %d of etcd's log: %w", next, err)
		}
		report.FromLog++
	}
	report.Uncertain = r.log.last() + 1 - next
	return nil
}

// apply executes an entry as etcd would have.
func (r *replay) apply(machine *statemachine.Machine, e *raftpb.Entry) error {
	ent := entry.Entry{Index: ident.Index(e.GetIndex()), Term: ident.Term(e.GetTerm())}
	if e.GetType() == raftpb.EntryNormal && len(e.GetData()) > 0 {
		cmd, err := r.command(e.GetData())
		if err != nil {
			return err
		}
		if cmd != nil {
			data, err := cmd.MarshalVT()
			if err != nil {
				return err
			}
			ent.Requests = []entry.Request{{ID: ident.RequestID{Nonce: 1, Sequence: e.GetIndex()}, Data: data}}
		}
	}
	_, err := machine.Apply([]entry.Entry{ent}) // That a request was refused is an outcome, which etcd had too.
	return err
}

// command turns a request of etcd's log into ours. Nil: it changes nothing that
// is carried over, as those about members and versions, questions, and those of
// etcd's second version.
func (r *replay) command(data []byte) (*holdfastpb.Command, error) {
	f, err := decodeFields(data)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	if legacy(f) {
		return nil, nil
	}
	for _, number := range slices.Sorted(maps.Keys(f.bytes)) {
		switch {
		case number >= requestPut && number <= requestAlarm || number >= requestAuthEnable && number <= requestLast:
			cmd, err := translated(number, f.bytes[number])
			if cmd != nil && err == nil {
				cmd.Actor, err = actorOf(number, f.bytes[requestHeader])
			}
			return cmd, err
		case !slices.Contains(requestsPassedOver, number):
			return nil, fmt.Errorf("request of kind %d, which no etcd up to 3.7 has", number)
		}
	}
	return nil, nil
}

// legacy reports whether a message is a request of etcd's second version: ID 1
// (a number), method 2 (a word). Others have a message in field 2.
func legacy(f fields) bool {
	return slices.Contains([]string{"PUT", "POST", "GET", "QGET", "DELETE", "SYNC"}, string(f.bytes[2]))
}

func translated(number protowire.Number, b []byte) (*holdfastpb.Command, error) {
	var body interface{ UnmarshalVT([]byte) error }
	cmd := &holdfastpb.Command{}
	switch number {
	case requestPut:
		m := &etcdserverpb.PutRequest{}
		body, cmd.Command = m, &holdfastpb.Command_Put{Put: m}
	case requestDeleteRange:
		m := &etcdserverpb.DeleteRangeRequest{}
		body, cmd.Command = m, &holdfastpb.Command_DeleteRange{DeleteRange: m}
	case requestTxn:
		m := &etcdserverpb.TxnRequest{}
		body, cmd.Command = m, &holdfastpb.Command_Txn{Txn: m}
	case requestCompaction:
		m := &etcdserverpb.CompactionRequest{}
		body, cmd.Command = m, &holdfastpb.Command_Compaction{Compaction: m}
	default:
		if number >= requestAuthEnable {
			return translatedUser(number, b)
		}
		return translatedSmall(number, b)
	}
	return cmd, body.UnmarshalVT(b)
}

// translatedSmall is for requests that have another form here.
func translatedSmall(number protowire.Number, b []byte) (*holdfastpb.Command, error) {
	f, err := decodeFields(b)
	if err != nil {
		return nil, err
	}
	switch number {
	case requestLeaseGrant: // TTL 1, ID 2.
		return &holdfastpb.Command{Command: &holdfastpb.Command_LeaseGrant{LeaseGrant: &holdfastpb.LeaseGrant{
			Id: int64(f.numbers[2]), Ttl: int64(f.numbers[1]),
		}}}, nil
	case requestLeaseRevoke: // ID 1.
		return &holdfastpb.Command{Command: &holdfastpb.Command_LeaseRevoke{LeaseRevoke: &holdfastpb.LeaseRevoke{Id: int64(f.numbers[1])}}}, nil
	}
	action := etcdserverpb.AlarmRequest_AlarmAction(f.numbers[1]) // Action 1, member 2, alarm 3.
	if action != etcdserverpb.AlarmRequest_ACTIVATE && action != etcdserverpb.AlarmRequest_DEACTIVATE {
		return nil, nil
	}
	return &holdfastpb.Command{Command: &holdfastpb.Command_Alarm{Alarm: &holdfastpb.AlarmSet{
		Alarm:  &etcdserverpb.AlarmMember{MemberID: f.numbers[2], Alarm: etcdserverpb.AlarmType(f.numbers[3])},
		Active: action == etcdserverpb.AlarmRequest_ACTIVATE,
	}}}, nil
}
