package sim

import (
	"errors"
	"math"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/statemachine"
	"github.com/holdfast-db/holdfast/statemachine/auth"
	"github.com/holdfast-db/holdfast/statemachine/lease"
	"github.com/holdfast-db/holdfast/tests/check"
	"github.com/holdfast-db/holdfast/tests/model"
)

// requestTime is when a member gives up a request: what package server waits.
const requestTime = 5*second + 2*electionTime

// op is a command on its way through the log. It is its own ticket.
type op struct {
	id     ident.RequestID
	data   []byte
	change *raftpb.ConfChangeV2
	floor  ident.Index // What was acknowledged to anybody when it began.

	claim     uint64 // Term in which Raft may have got it, plus one, or one of the claims.
	abandoned bool
	done      bool
	err       error
	then      func(value any, err error)
}

// A request that Raft got, and a snapshot hides what became of it.
const claimUnknown = math.MaxUint64

var _ raftnode.Ticket = (*op)(nil)

// Gone implements raftnode.Ticket.
func (o *op) Gone() bool { return o.abandoned }

// Claim implements raftnode.Ticket.
func (o *op) Claim(term ident.Term) bool {
	if o.abandoned {
		return false
	}
	o.claim = uint64(term) + 1
	return true
}

// Release implements raftnode.Ticket.
func (o *op) Release() {
	if !o.abandoned {
		o.claim = 0
	}
}

// propose hands a command to the cluster. then is called once, with the answer
// or why there is none, unless the member stops before: then with
// errConnection.
func (m *Member) propose(cmd *holdfastpb.Command, then func(value any, err error)) {
	data, err := cmd.MarshalVT()
	if err != nil {
		m.w.fail("encode a command: %v", err)
	}
	m.sequence++
	o := &op{
		id:   ident.RequestID{Member: m.id, Nonce: m.nonce, Sequence: m.sequence},
		data: data, change: statemachine.ConfChange(cmd), floor: m.w.check.Acknowledged, then: then,
	}
	m.w.ops[o.id] = o
	m.waiting[o.id] = o
	if o.change != nil {
		m.w.confBegins()
	}
	m.live(requestTime, func() {
		if !o.done {
			m.giveUp(o)
		}
	})
	m.step(&raftnode.Event{Kind: raftnode.EventPropose, Proposals: []raftnode.Proposal{{
		Request: entry.Request{ID: o.id, Data: data}, Conf: o.change, Ticket: o,
	}}})
}

// giveUp ends a wait, as Node.giveUp does.
func (m *Member) giveUp(o *op) {
	if o.claim != 0 {
		m.end(o.id, nil, raftnode.ErrUnknownOutcome)
		return
	}
	o.abandoned = true
	if m.shown.Leader == 0 {
		m.end(o.id, nil, raftnode.ErrNoLeader)
	} else {
		m.end(o.id, nil, raftnode.ErrBusy)
	}
}

func (m *Member) end(id ident.RequestID, value any, err error) {
	o := m.waiting[id]
	if o == nil {
		return // Given up before.
	}
	if o.done {
		m.w.fail("rule 21: request %v ends twice: %v after %v", id, err, o.err)
	}
	delete(m.waiting, id)
	o.done, o.err = true, err
	m.w.note(5, id.Sequence, hashText(m.w.errorText(err)))
	o.then(value, err)
}

func (w *World) errorText(err error) string {
	if err == nil {
		return ""
	}
	return w.plain(err)
}

// answered hears each answer of the state machine.
func (m *Member) answered(a *entry.Answer) {
	if a.ID.Member != m.id || a.ID.Nonce != m.nonce {
		return
	}
	o := m.waiting[a.ID]
	if o == nil {
		return
	}
	index := m.w.check.Answered(m, a)
	m.w.check.Fired["K1"]++
	if index <= o.floor {
		m.w.fail("K1: request %v is entry %d, and entry %d was acknowledged before it was sent", a.ID, index, o.floor)
	}
	m.end(a.ID, a.Value, a.Err)
}

// settled ends requests that Raft got in an earlier term: they are gone.
func (m *Member) settled(term ident.Term) {
	for _, id := range m.waitingIDs() {
		if o := m.waiting[id]; o.claim != 0 && o.claim != claimUnknown && o.claim-1 < uint64(term) {
			m.end(id, nil, raftnode.ErrLeaderChanged)
		}
	}
}

// obscure keeps settled from requests whose outcome a snapshot hides.
func (m *Member) obscure() {
	for _, o := range m.waiting { //tidy:ordered each by itself
		if o.claim != 0 {
			o.claim = claimUnknown
		}
	}
}

func (m *Member) waitingIDs() []ident.RequestID {
	var list []ident.RequestID
	for s := uint64(1); s <= m.sequence && len(list) < len(m.waiting); s++ {
		id := ident.RequestID{Member: m.id, Nonce: m.nonce, Sequence: s}
		if m.waiting[id] != nil {
			list = append(list, id)
		}
	}
	return list
}

// dropClients breaks all connections to a member that stopped.
func (m *Member) dropClients() {
	for _, id := range m.waitingIDs() {
		m.end(id, nil, errConnection)
	}
	for _, c := range m.w.clients {
		c.disconnected(m)
	}
}

var (
	errConnection = errors.New("connection lost")
	errNotServing = errors.New("connection refused")
)

// definite are the errors by which a client knows that a request has no effect.
var definite = []error{
	raftnode.ErrNoLeader, raftnode.ErrBusy, raftnode.ErrLeaderChanged, raftnode.ErrStopped, raftnode.ErrConfPending,
	raftnode.ErrConfInvalid, raftnode.ErrNotLeader, raftnode.ErrRemoved, raftnode.ErrNoQuorum, errNotServing,
	auth.ErrNobody, auth.ErrDenied, auth.ErrOldRevision, auth.ErrUserNotFound,
}

// wire are the outcomes of requests in the words of the protocol.
var wire = []struct{ err, text error }{
	{mvcc.ErrCompacted, model.ErrCompacted},
	{mvcc.ErrFutureRevision, model.ErrFutureRevision},
	{mvcc.ErrKeyNotFound, model.ErrKeyNotFound},
	{statemachine.ErrEmptyKey, model.ErrEmptyKey},
	{lease.ErrTTL, model.ErrLeaseTTL},
	{lease.ErrNotFound, model.ErrLeaseNotFound},
	{lease.ErrExists, model.ErrLeaseExists},
}

// inWords turns an outcome into what a client reads; ok is false when it is none.
func inWords(err error) (text string, ok bool) {
	for _, row := range wire {
		if errors.Is(err, row.err) {
			return row.text.Error(), true
		}
	}
	return "", false
}

// outcomeOf says what a client knows after an error or none.
func (w *World) outcomeOf(err error) (check.Outcome, string) {
	if err == nil {
		return check.Acknowledged, ""
	}
	if text, ok := inWords(err); ok {
		return check.Refused, text
	}
	for _, d := range definite {
		if errors.Is(err, d) {
			return check.Refused, w.plain(err)
		}
	}
	return check.Unknown, w.plain(err)
}

// command is a request of the protocol as the log carries it.
func (w *World) command(req proto.Message) *holdfastpb.Command {
	switch r := req.(type) {
	case *pb.PutRequest:
		return &holdfastpb.Command{Command: &holdfastpb.Command_Put{Put: r}}
	case *pb.DeleteRangeRequest:
		return &holdfastpb.Command{Command: &holdfastpb.Command_DeleteRange{DeleteRange: r}}
	case *pb.TxnRequest:
		return &holdfastpb.Command{Command: &holdfastpb.Command_Txn{Txn: r}}
	case *pb.CompactionRequest:
		return &holdfastpb.Command{Command: &holdfastpb.Command_Compaction{Compaction: r}}
	case *pb.LeaseGrantRequest:
		return &holdfastpb.Command{Command: &holdfastpb.Command_LeaseGrant{LeaseGrant: &holdfastpb.LeaseGrant{Id: r.ID, Ttl: max(r.TTL, leaseTTLMin)}}}
	case *pb.LeaseRevokeRequest:
		return &holdfastpb.Command{Command: &holdfastpb.Command_LeaseRevoke{LeaseRevoke: &holdfastpb.LeaseRevoke{Id: r.ID}}}
	}
	w.fail("no command for %T", req)
	return nil
}
