package check

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/tests/model"
)

// state is one that the search has come to: what happened since the window
// began, each a link to the one before. Two are equal if they have the same
// revision and the same digest of all events, so that neither comparing nor
// keeping them costs more than the last step.
type state struct {
	before   *state
	events   []*mvccpb.Event // At revision.
	revision int64
	digest   uint64
}

// engine executes requests on states. It has one model, which it takes from one
// state to the next by undoing and forcing events: a search goes back often,
// but seldom far.
type engine struct {
	m    *model.Store
	at   *state
	seed maphash.Seed
}

func (e *engine) moveTo(s *state) {
	var forward []*state
	for ; s.revision > e.at.revision; s = s.before {
		forward = append(forward, s)
	}
	for e.at != s {
		e.m.Undo()
		e.at = e.at.before
		if s.revision > e.at.revision {
			forward = append(forward, s)
			s = s.before
		}
	}
	slices.Reverse(forward)
	for _, next := range forward {
		e.m.Force(next.events)
		e.at = next
	}
}

// after is the state that the model is at now, one revision behind before.
func (e *engine) after(before *state) *state {
	rev := e.m.Revision()
	next := &state{before: before, events: slices.Clone(e.m.Events(rev, rev)), revision: rev}
	var h maphash.Hash
	h.SetSeed(e.seed)
	fmt.Fprint(&h, before.digest)
	for _, event := range next.events {
		kv := event.Kv
		fmt.Fprintf(&h, "%d %q %q %d %d %d ", event.Type, kv.Key, kv.Value, kv.CreateRevision, kv.Version, kv.Lease)
	}
	next.digest = h.Sum64()
	e.at = next
	return next
}

func newEngine() *engine {
	return &engine{m: model.New(), at: &state{revision: 1}, seed: maphash.MakeSeed()}
}

// forward takes the engine to a revision of the log, where a window begins.
func (e *engine) forward(c *checker, rev int64) {
	for e.at.before != nil {
		e.moveTo(e.at.before)
	}
	for e.m.Revision() < rev {
		e.m.Force(c.log[e.m.Revision()+1])
	}
	e.at = &state{revision: rev}
}

// porcupine is the model of a window that begins where the engine is.
func (e *engine) porcupine() porcupine.Model {
	first := e.at
	return porcupine.Model{
		Init: func() any { return first },
		StepContext: func(ctx context.Context, s, input, _ any) (bool, any) {
			if ctx.Err() != nil {
				return false, s
			}
			return e.step(s.(*state), input.(step))
		},
		Equal: func(a, b any) bool {
			x, y := a.(*state), b.(*state)
			return x.revision == y.revision && x.digest == y.digest
		},
		Hash:              func(s any) uint64 { return s.(*state).digest },
		DescribeOperation: func(input, _ any) string { return input.(step).String() },
		DescribeState:     func(s any) string { return fmt.Sprintf("revision %d", s.(*state).revision) },
	}
}

func (e *engine) step(s *state, in step) (bool, *state) {
	e.moveTo(s)
	switch {
	case in.cluster:
		if s.revision+1 != in.rev {
			return false, s
		}
		e.m.Force(in.all)
		return true, e.after(s)
	case in.op == nil:
		return s.revision == in.rev && sameEvents(e.m.Events(in.from+1, in.rev), in.all), s
	}
	eachPut(in.op.Request, func(p *pb.PutRequest) {
		if p.Lease != 0 {
			_, _ = e.m.Execute(&pb.LeaseGrantRequest{ID: p.Lease}) // An error says that it is there.
		}
	})
	res, err := e.m.Execute(in.op.Request)
	if err != nil {
		return false, s
	}
	next := s
	if e.m.Revision() > s.revision {
		next = e.after(s)
	}
	if in.op.Outcome == Acknowledged {
		return same(res, in.op.Response), next
	}
	return next.revision == in.rev, next
}

func (s step) String() string {
	switch {
	case s.cluster:
		return fmt.Sprintf("leases run out, revision %d", s.rev)
	case s.op == nil:
		return fmt.Sprintf("the log from revision %d to %d", s.from+1, s.rev)
	}
	return describe(s.op)
}

// describe shows an operation in a line.
func describe(op *Op) string {
	text := short(op.Request) + " → " + op.Outcome.String()
	if op.Outcome == Acknowledged {
		text = short(op.Request) + " → " + short(op.Response)
	}
	if op.Error != "" {
		text += ": " + op.Error
	}
	return text
}

func short(m proto.Message) string {
	if m == nil {
		return "nothing"
	}
	text := prototext.MarshalOptions{Multiline: false}.Format(m)
	if len(text) > 400 {
		text = text[:400] + "…"
	}
	return strings.TrimSuffix(string(m.ProtoReflect().Descriptor().Name()), "Request") + " " + text
}
