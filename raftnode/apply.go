package raftnode

import (
	"context"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
)

// applier owns the state machine: entries in order, each once, and between
// them freezes and installations.
type applier struct {
	execute Executor
	waiters *waiters
	readers *readers
	inbox   *inbox
	applied atomic.Uint64 // Index of the last entry whose effects can be seen.

	wake chan struct{}
	mu   struct {
		sync.Mutex
		queue []applyTask
	}
}

// applyTask is one of its fields.
type applyTask struct {
	apply   *Apply
	freeze  func(Frozen, error)
	install *installation
}

type installation struct {
	staged Staged
	done   chan error
}

func (a *applier) init(machine StateMachine, w *waiters, r *readers, b *inbox, applied ident.Index) {
	a.wake = make(chan struct{}, 1)
	a.waiters, a.readers, a.inbox = w, r, b
	a.execute = Executor{
		Machine: machine, Publish: a.publish,
		Answer:  func(x *entry.Answer) { w.resolve(x.ID, x.Value, x.Err) },
		Settled: func(term ident.Term) { w.resolveBefore(term, ErrLeaderChanged) },
		Resolve: func(index ident.Index, change *raftpb.ConfChangeV2, accept bool) *raftpb.ConfState {
			reply := make(chan *raftpb.ConfState, 1)
			b.ask(resolve{index: index, change: change, accept: accept, reply: reply})
			return <-reply // The loop answers until apply has ended, also when the member stops.
		},
	}
	a.applied.Store(uint64(applied))
	a.readers.appliedTo(applied)
}

func (a *applier) put(t applyTask) {
	a.mu.Lock()
	a.mu.queue = append(a.mu.queue, t)
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// run works until ctx ends.
func (a *applier) run(ctx context.Context) error {
	var tasks []applyTask
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		}
		for {
			clear(tasks)
			a.mu.Lock()
			tasks, a.mu.queue = a.mu.queue, tasks[:0]
			a.mu.Unlock()
			if len(tasks) == 0 {
				break
			}
			for i := range tasks {
				if ctx.Err() != nil {
					return nil
				}
				if err := a.work(&tasks[i]); err != nil {
					return err
				}
			}
		}
	}
}

func (a *applier) work(t *applyTask) error {
	switch {
	case t.apply != nil:
		if err := a.execute.Apply(t.apply.Entries); err != nil {
			return err
		}
		a.inbox.put(Event{Kind: EventApplied, Apply: t.apply})
	case t.freeze != nil:
		t.freeze(a.execute.Machine.Freeze())
	case t.install != nil:
		err := a.execute.Machine.Install(t.install.staged)
		if err == nil {
			a.waiters.obscure()
			a.publish(t.install.staged.Meta().Index)
		}
		t.install.done <- err // Append decides whether to try again.
	}
	return nil
}

// installNext is called by append: everything that was handed to apply before is
// done first.
func (a *applier) installNext(ctx context.Context, s Staged) error {
	i := &installation{staged: s, done: make(chan error, 1)}
	a.put(applyTask{install: i})
	select {
	case err := <-i.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// publish lets readers see what was applied, before anybody gets an answer.
func (a *applier) publish(index ident.Index) {
	a.applied.Store(uint64(index))
	a.readers.appliedTo(index)
}
