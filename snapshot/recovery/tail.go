package recovery

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot"
)

// readBytes of a log at a time.
const readBytes = 1 << 20

// readLog goes through all entries: those that change who votes count wherever
// they are, those that may not be committed are put into words.
func (c *collector) readLog(log *wal.Log, l *Log) error {
	r := &logReader{m: c.m, log: l, proven: max(c.m.proven(), l.Commit)}
	if c.examined != nil {
		r.conf, r.applied, l.Newest = c.examined.Conf, c.m.State.Applied.Index, c.m.State.Time
	}
	for next := l.Start.Index + 1; next <= l.Last.Index; {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		entries, err := log.Entries(next, l.Last.Index+1, readBytes)
		if err != nil && c.m.Running {
			if ended, err := l.unsynced(log, next, err); ended {
				return err
			}
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := r.take(e); err != nil {
				return fmt.Errorf("entry %d: %w", next, err)
			}
			next++
		}
	}
	return nil
}

// logReader takes the entries of a log in, in order.
type logReader struct {
	m       *Member
	log     *Log
	proven  ident.Index
	applied ident.Index
	conf    *raftpb.ConfState // Behind the last entry; nil without a state to begin with.
}

func (r *logReader) take(e *raftpb.Entry) error {
	l, unapplied := r.log, r.conf != nil && ident.Index(e.GetIndex()) > r.applied
	in := wordsOf(e, func(cmd *holdfastpb.Command) {
		if unapplied {
			r.m.learn(cmd)
		}
	})
	if n := len(l.Terms); n == 0 || l.Terms[n-1].Term != in.Term {
		l.Terms = append(l.Terms, in.Mark)
	}
	if !in.Time.IsZero() {
		l.Newest = in.Time
	}
	if in.Index > r.proven {
		l.Tail = append(l.Tail, in)
	}
	if e.GetType() == raftpb.EntryNormal {
		return nil
	}
	change := Change{Index: in.Index}
	if unapplied {
		var err error
		if r.conf, err = after(r.conf, e); err != nil {
			return err
		}
		now := confOf(r.conf)
		change.After = &now
	}
	l.Changes = append(l.Changes, change)
	return nil
}

// after is what an entry makes of a configuration, if it takes effect. A change
// that raft replaced by an empty one, or that is not possible, changes nothing.
func after(conf *raftpb.ConfState, e *raftpb.Entry) (*raftpb.ConfState, error) {
	change := &raftpb.ConfChangeV2{}
	if err := proto.Unmarshal(e.GetData(), change); err != nil {
		return nil, err
	}
	next, err := snapshot.ConfAfter(conf, change)
	if err != nil {
		return conf, nil //nolint:nilerr // Members do the same when they apply it.
	}
	return next, nil
}

// learn takes what a command says of the members, which nobody needs to know
// whether it was committed: it only names them.
func (m *Member) learn(cmd *holdfastpb.Command) {
	var id uint64
	var change func(*Peer)
	switch c := cmd.Command.(type) {
	case *holdfastpb.Command_ClusterInit:
		if m.UUID == "" {
			m.UUID = hex.EncodeToString(c.ClusterInit.GetUuid())
		}
		return
	case *holdfastpb.Command_MemberPublish:
		id = c.MemberPublish.GetId()
		change = func(p *Peer) {
			p.Name, p.ClientURLs, p.Incarnation = c.MemberPublish.GetName(), c.MemberPublish.GetClientUrls(), ID(c.MemberPublish.GetIncarnation())
		}
	case *holdfastpb.Command_MemberUpdate:
		id = c.MemberUpdate.GetId()
		change = func(p *Peer) { p.PeerURLs = c.MemberUpdate.GetPeerUrls() }
	case *holdfastpb.Command_MemberPromote:
		id = c.MemberPromote.GetId()
		change = func(p *Peer) { p.Learner = false }
	case *holdfastpb.Command_MemberAdd:
		if added := peerOf(c.MemberAdd.GetMember()); !slices.ContainsFunc(m.Peers, func(p Peer) bool { return p.ID == added.ID }) {
			m.Peers = append(m.Peers, added)
		}
		return
	default:
		return
	}
	if i := slices.IndexFunc(m.Peers, func(p Peer) bool { return p.ID == ID(id) }); i >= 0 {
		change(&m.Peers[i])
	}
}

// wordsOf says what an entry wants, and shows each command that it holds.
func wordsOf(e *raftpb.Entry, see func(*holdfastpb.Command)) Entry {
	in := Entry{Mark: Mark{ident.Index(e.GetIndex()), ident.Term(e.GetTerm())}}
	data := e.GetData()
	if e.GetType() != raftpb.EntryNormal {
		change := &raftpb.ConfChangeV2{}
		if err := proto.Unmarshal(data, change); err != nil {
			in.Requests = []Request{{What: "change of members that does not decode"}}
			return in
		}
		data = change.Context
	}
	if len(data) == 0 {
		return in
	}
	batch, err := entry.DecodeBatch(data, nil)
	if err != nil {
		in.Requests = []Request{{What: "batch that does not decode"}}
		return in
	}
	in.Time = time.Unix(0, batch.Time).UTC()
	for _, r := range batch.Requests {
		cmd := &holdfastpb.Command{}
		if err := cmd.UnmarshalVT(r.Data); err != nil {
			in.Requests = append(in.Requests, Request{What: "request that does not decode"})
			continue
		}
		see(cmd)
		in.Requests = append(in.Requests, requestsOf(cmd)...)
	}
	return in
}

func requestsOf(cmd *holdfastpb.Command) []Request {
	switch c := cmd.Command.(type) {
	case *holdfastpb.Command_Put:
		return []Request{{What: "put", Key: c.Put.GetKey()}}
	case *holdfastpb.Command_DeleteRange:
		return []Request{{What: "delete", Key: c.DeleteRange.GetKey(), End: c.DeleteRange.GetRangeEnd()}}
	case *holdfastpb.Command_Txn:
		return txnRequests(c.Txn)
	case nil:
		return []Request{{What: "request of a later version"}}
	}
	_, kind, _ := strings.Cut(fmt.Sprintf("%T", cmd.Command), "Command_")
	return []Request{{What: kind}}
}

// txnRequests are the writes of both branches: which one counts is known only
// when it is applied. The recursion ends with the message, whose depth the
// server bounds and the decoder too.
func txnRequests(t *pb.TxnRequest) []Request {
	out := []Request{}
	for _, branch := range [][]*pb.RequestOp{t.GetSuccess(), t.GetFailure()} {
		for _, op := range branch {
			switch o := op.GetRequest().(type) {
			case *pb.RequestOp_RequestPut:
				out = append(out, Request{What: "put in a txn", Key: o.RequestPut.GetKey()})
			case *pb.RequestOp_RequestDeleteRange:
				out = append(out, Request{What: "delete in a txn", Key: o.RequestDeleteRange.GetKey(), End: o.RequestDeleteRange.GetRangeEnd()})
			case *pb.RequestOp_RequestTxn:
				out = append(out, txnRequests(o.RequestTxn)...)
			}
		}
	}
	return out
}
