package raftnode

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/transport"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// appender owns the tail of the log. It stores all that is queued with one
// sync, then lets the responses go, in order.
type appender struct {
	self    ident.MemberID
	log     Log
	network Network
	clock   clock.Clock
	logger  hclog.Logger
	report  func([]Event)                       // To the loop.
	install func(context.Context, Staged) error // By apply, after everything handed to it so far.

	wake    chan struct{}
	prepare chan struct{} // Holds a token when prepare may have something to do.
	mu      struct {
		sync.Mutex
		queue  []appendTask
		worker worker
	}

	dirty bool      // Owned by the worker: something vital is not synced yet.
	done  []*Append // Stored, waiting for the sync.
	spare []Event
}

// worker says who works on the log right now.
type worker uint8

const (
	nobody worker = iota
	appendGoroutine
	loopGoroutine
)

// appendTask is one of its fields.
type appendTask struct {
	append   *Append
	compact  ident.Index
	note     *wal.Note
	clearCut bool
}

func (a *appender) init() {
	a.wake = make(chan struct{}, 1)
	a.prepare = make(chan struct{}, 1)
	a.prepare <- struct{}{}
}

// runPrepare keeps the next segment of the log ready, so that append never
// waits for one to be allocated.
func (a *appender) runPrepare(ctx context.Context) error {
	for warned := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-a.prepare:
		}
		err := a.log.Prepare()
		if err != nil && !warned {
			a.logger.Warn("next segment of the raft log cannot be prepared", "error", err)
		}
		if warned = err != nil; !warned {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.clock.After(diskFullPause):
		}
	}
}

func (a *appender) wakePrepare() {
	select {
	case a.prepare <- struct{}{}:
	default:
	}
}

func (a *appender) put(t appendTask) {
	a.mu.Lock()
	a.mu.queue = append(a.mu.queue, t)
	a.mu.Unlock()
	a.signal()
}

func (a *appender) signal() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// run works until ctx ends. What is queued then is never acknowledged.
func (a *appender) run(ctx context.Context) error {
	var tasks []appendTask
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		}
		for ctx.Err() == nil {
			tasks = a.take(tasks)
			if len(tasks) == 0 {
				break
			}
			if err := a.work(ctx, tasks); err != nil {
				return err
			}
		}
	}
}

func (a *appender) take(spare []appendTask) []appendTask {
	clear(spare)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.worker == loopGoroutine {
		return nil // It wakes us when it is through.
	}
	tasks := a.mu.queue
	a.mu.queue = spare[:0]
	a.mu.worker = nobody
	if len(tasks) > 0 {
		a.mu.worker = appendGoroutine
	}
	return tasks
}

// workInline lets the loop store something itself when nothing else is under
// way: a single member has nobody to send to meanwhile, and saves two hand-offs.
func (a *appender) workInline(ctx context.Context, tasks []appendTask) error {
	a.mu.Lock()
	if a.mu.worker != nobody || len(a.mu.queue) > 0 {
		a.mu.queue = append(a.mu.queue, tasks...)
		a.mu.Unlock()
		a.signal()
		return nil
	}
	a.mu.worker = loopGoroutine
	a.mu.Unlock()
	err := a.work(ctx, tasks)
	a.mu.Lock()
	a.mu.worker = nobody
	more := len(a.mu.queue) > 0
	a.mu.Unlock()
	if more {
		a.signal()
	}
	return err
}

func (a *appender) work(ctx context.Context, tasks []appendTask) error {
	for i := range tasks {
		t := &tasks[i]
		var err error
		switch {
		case t.append != nil:
			err = a.store(ctx, t.append)
		case t.compact != 0:
			err = a.retry(ctx, func() error { return a.log.Compact(t.compact) })
			a.wakePrepare()
		case t.note != nil:
			a.dirty = true
			err = a.retry(ctx, func() error { return a.log.Note(*t.note) })
		case t.clearCut:
			a.dirty = true
			err = a.log.ClearCut()
		}
		if err != nil {
			return err
		}
	}
	return a.flush()
}

func (a *appender) store(ctx context.Context, p *Append) error {
	if p.Staged != nil {
		if err := a.flush(); err != nil {
			return err
		}
		// The state machine switches first: a crash between the two is seen at
		// boot, and the log begins anew then (rule 19).
		if err := a.retry(ctx, func() error { return a.install(ctx, p.Staged) }); err != nil {
			return fmt.Errorf("install snapshot at %d: %w", p.Start.Index, err)
		}
		fail.Here("raftnode/install/after")
		if err := a.retry(ctx, func() error { return a.log.Reset(p.Start) }); err != nil {
			return fmt.Errorf("reset log to %s: %w", p.Start, err)
		}
		a.wakePrepare()
	}
	if len(p.Entries) > 0 || p.Hard != nil {
		if err := a.retry(ctx, func() error { return a.log.Append(p.Entries, p.Hard) }); err != nil {
			return fmt.Errorf("append %d entries: %w", len(p.Entries), err)
		}
	}
	a.dirty = a.dirty || p.Sync
	a.done = append(a.done, p)
	return nil
}

// retry waits out a full disk, or whatever else keeps a segment from being made, as
// too few file descriptors: log and state are unharmed, and what Raft accepted has to
// be stored before anything else can happen.
func (a *appender) retry(ctx context.Context, f func() error) error {
	for warned := false; ; {
		err := f()
		if !errors.Is(err, wal.ErrNoSegment) && (!errors.Is(err, syscall.ENOSPC) || errors.Is(err, wal.ErrFailed)) {
			return err
		}
		if !warned {
			if errors.Is(err, syscall.ENOSPC) {
				a.logger.Error("no space for the raft log or a snapshot, waiting for some", "error", err)
			} else {
				a.logger.Error("the raft log cannot go on in another segment, trying again until it can", "error", err)
			}
			warned = true
		}
		select {
		case <-ctx.Done():
			return err
		case <-a.clock.After(diskFullPause):
		}
	}
}

// flush makes everything stored so far durable and lets the responses go.
func (a *appender) flush() error {
	if a.dirty {
		if err := a.log.Sync(); err != nil {
			return fmt.Errorf("sync raft log: %w", err)
		}
		a.dirty = false
		if !a.log.Prepared() {
			a.wakePrepare()
		}
	}
	if len(a.done) == 0 {
		return nil
	}
	fail.Here("raftnode/respond/before")
	for _, p := range a.done {
		a.respond(p.Responses)
		a.spare = append(a.spare, Event{Kind: EventAppended, Append: p})
	}
	a.report(a.spare)
	clear(a.spare)
	clear(a.done)
	a.spare, a.done = a.spare[:0], a.done[:0]
	return nil
}

// respond sends the responses that are for others; the core takes its own.
func (a *appender) respond(responses []*raftpb.Message) {
	for _, m := range responses {
		if to := ident.MemberID(m.GetTo()); to != a.self {
			a.network.Send(to, transport.Frame{Kind: transport.KindRaft, Message: m})
		}
	}
}
