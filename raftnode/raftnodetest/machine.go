package raftnodetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// ErrRefused is the answer to a request whose data says "refuse".
var ErrRefused = errors.New("state machine refused")

// Machine is a raftnode.StateMachine that keeps the list of all requests.
type Machine struct {
	// OnApply hears each entry as it is applied; may be nil.
	OnApply func(e *entry.Entry, sum uint64)
	// FullDisk is how many times Install will find no space.
	FullDisk atomic.Int32

	mu struct {
		sync.Mutex
		state   state
		durable []byte // state at the last checkpoint or installation.
	}
	answers []entry.Answer
}

var _ raftnode.StateMachine = (*Machine)(nil)

// state is everything that is replicated.
type state struct {
	Index    ident.Index
	Term     ident.Term
	Sum      uint64 // Over all that was applied.
	Conf     *raftpb.ConfState
	Requests []string
}

// NewMachine begins at a mark with a configuration.
func NewMachine(at wal.Mark, conf *raftpb.ConfState) *Machine {
	m := &Machine{}
	m.mu.state = state{Index: at.Index, Term: at.Term, Conf: conf}
	m.Checkpoint()
	return m
}

// Applied says where the machine stands.
func (m *Machine) Applied() raftnode.Applied {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.mu.state
	return raftnode.Applied{Mark: wal.Mark{Index: s.Index, Term: s.Term}, Conf: proto.CloneOf(s.Conf)}
}

// Requests returns all that was applied, in order.
func (m *Machine) Requests() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.mu.state.Requests...)
}

// Sum is equal on machines that have applied the same.
func (m *Machine) Sum() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.state.Sum
}

// Checkpoint makes the state durable and returns its index.
func (m *Machine) Checkpoint() ident.Index {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.durable = m.encodeLocked()
	return m.mu.state.Index
}

// Crash returns what a power cut leaves: the state of the last checkpoint.
func (m *Machine) Crash() *Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := &Machine{OnApply: m.OnApply}
	if err := json.Unmarshal(m.mu.durable, &after.mu.state); err != nil {
		panic(err)
	}
	after.mu.durable = m.mu.durable
	return after
}

func (m *Machine) encodeLocked() []byte {
	data, err := json.Marshal(&m.mu.state)
	if err != nil {
		panic(err)
	}
	return data
}

// Apply implements raftnode.StateMachine.
func (m *Machine) Apply(entries []entry.Entry) ([]entry.Answer, error) {
	m.answers = m.answers[:0]
	for i := range entries {
		if err := m.applyOne(&entries[i], len(entries)); err != nil {
			return nil, err
		}
	}
	return m.answers, nil
}

func (m *Machine) applyOne(e *entry.Entry, together int) error {
	conf := (*raftpb.ConfState)(nil)
	refused := false
	if e.Conf != nil {
		if together != 1 || len(e.Requests) != 0 {
			return fmt.Errorf("configuration change %d is not alone", e.Index)
		}
		refused = string(e.Conf.Request.Data) == "refuse"
		conf = e.Conf.Resolve(!refused) // Without the lock: the loop may look at us.
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.mu.state
	if e.Index != s.Index+1 {
		return fmt.Errorf("entry %d after %d", e.Index, s.Index)
	}
	s.Index, s.Term = e.Index, e.Term
	s.Sum = mix(s.Sum, uint64(e.Index), uint64(e.Term))
	for _, r := range e.Requests {
		m.requestLocked(r, nil)
	}
	if e.Conf != nil {
		s.Conf = conf
		var err error
		if refused {
			err = ErrRefused
		}
		if e.Conf.Request.Data != nil {
			m.requestLocked(e.Conf.Request, err)
		}
		s.Sum = mix(s.Sum, sumOf([]byte(raftDescribe(conf))))
	}
	if m.OnApply != nil {
		m.OnApply(e, s.Sum)
	}
	return nil
}

func (m *Machine) requestLocked(r entry.Request, err error) {
	s := &m.mu.state
	s.Requests = append(s.Requests, string(r.Data))
	s.Sum = mix(s.Sum, sumOf(r.Data))
	m.answers = append(m.answers, entry.Answer{ID: r.ID, Value: len(s.Requests), Err: err})
}

// Freeze implements raftnode.StateMachine.
func (m *Machine) Freeze() (raftnode.Frozen, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.mu.state
	return &frozen{data: m.encodeLocked(), meta: raftnode.SnapMeta{Index: s.Index, Term: s.Term, Conf: proto.CloneOf(s.Conf)}}, nil
}

// Have implements raftnode.StateMachine.
func (m *Machine) Have() []byte { return nil }

// Receive implements raftnode.StateMachine.
func (m *Machine) Receive(r io.Reader) (raftnode.Staged, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	s := &staged{data: data}
	if err := json.Unmarshal(data, &s.state); err != nil {
		return nil, err
	}
	return s, nil
}

// Install implements raftnode.StateMachine.
func (m *Machine) Install(s raftnode.Staged) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.FullDisk.Add(-1) >= 0 {
		return syscall.ENOSPC
	}
	in := s.(*staged)
	if in.state.Index <= m.mu.state.Index {
		return fmt.Errorf("install %d over %d", in.state.Index, m.mu.state.Index)
	}
	m.mu.state, m.mu.durable = in.state, in.data
	return nil
}

type frozen struct {
	data   []byte
	meta   raftnode.SnapMeta
	closed bool
}

func (f *frozen) Meta() raftnode.SnapMeta { return f.meta }

func (f *frozen) WriteTo(w io.Writer, _ []byte) error {
	if f.closed {
		return errors.New("frozen state is closed")
	}
	_, err := io.Copy(w, bytes.NewReader(f.data))
	return err
}

func (f *frozen) Close() error {
	f.closed = true
	return nil
}

type staged struct {
	data  []byte
	state state
}

func (s *staged) Meta() raftnode.SnapMeta {
	return raftnode.SnapMeta{Index: s.state.Index, Term: s.state.Term, Conf: proto.CloneOf(s.state.Conf)}
}

func (s *staged) Discard() error { return nil }
