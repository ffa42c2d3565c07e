package raftnode

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// NoteCheckpoint is the kind of the note that Checkpointed leaves in the log.
const NoteCheckpoint uint8 = 1

// Config is what a Node stands on. Everything without a default is required.
type Config struct {
	ID           ident.MemberID
	StateMachine StateMachine
	Applied      Applied        // Where the state machine stands.
	Log          Log            // Opened. The owner closes it after the Node.
	Recovered    *wal.Recovered // What opening it found.
	Network      Network
	Clock        clock.Clock
	Random       io.Reader // For the nonce of this boot.
	// Confirm compares a received state with another member than its sender. An
	// error refuses it. Nil: nobody is asked.
	Confirm func(ctx context.Context, sender ident.MemberID, s Staged) error
	Logger  hclog.Logger

	HeartbeatInterval time.Duration // 100 ms by default.
	ElectionTimeout   time.Duration // 1 s by default, at least five heartbeats.
	StallTimeout      time.Duration // After which a disk that ends no write takes none; StallMin by default, three election timeouts at least.
	CatchUpEntries    uint64        // Kept behind the checkpoint for followers; CatchUpEntriesDefault by default.
	RequestBytesMax   int           // RequestBytesDefault by default.
	RequestTimeout    time.Duration // Until a request ends without an answer; RequestTimeoutDefault by default.
	AlwaysAppendAside bool          // A single member, too, leaves the log to the append goroutine.
}

func (c *Config) validate() error {
	if c.HeartbeatInterval == 0 {
		c.HeartbeatInterval = 100 * time.Millisecond
	}
	if c.ElectionTimeout == 0 {
		c.ElectionTimeout = time.Second
	}
	if c.StallTimeout == 0 {
		c.StallTimeout = max(StallMin, stallElections*c.ElectionTimeout)
	}
	if c.CatchUpEntries == 0 {
		c.CatchUpEntries = CatchUpEntriesDefault
	}
	if c.RequestBytesMax == 0 {
		c.RequestBytesMax = RequestBytesDefault
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = RequestTimeoutDefault
	}
	var errs []error
	if c.HeartbeatInterval < 0 || c.ElectionTimeout < 5*c.HeartbeatInterval {
		errs = append(errs, fmt.Errorf("election timeout %s is not at least five heartbeat intervals of %s", c.ElectionTimeout, c.HeartbeatInterval))
	}
	if c.ID == 0 {
		errs = append(errs, errors.New("member ID is 0"))
	}
	return errors.Join(errs...)
}

// Node is one member's part in the cluster: Core and the goroutines around it.
// It has a field for each part of them.
type Node struct {
	cfg    Config
	core   *Core // Owned by the loop.
	inbox  inbox
	append appender
	apply  applier

	waiters waiters
	readers readers
	frozen  Frozen            // Owned by the loop.
	shown   *raftpb.ConfState // Owned by the loop: the configuration in status.
	mine    []appendTask      // Owned by the loop: what it stores itself.
	leaving int               // Owned by the loop: ticks since it was removed.

	commit    atomic.Uint64
	last      atomic.Uint64
	alone     atomic.Bool // Core.isAlone, as of the last status.
	status    atomic.Pointer[statusBox]
	receiving sync.Mutex   // Held while a snapshot comes in.
	staged    atomic.Int64 // Received states that are not in force yet, nor given up.

	group   *task.Group
	working atomic.Int32  // append and apply.
	idle    chan struct{} // Closed when both have ended.
	handing sync.Once
	ready   <-chan struct{}
	stopped chan struct{} // Closed when the end begins.
	done    chan struct{} // Closed when all has ended.
	end     struct {
		sync.Once
		err error
	}
}

// statusBox is a status and a signal for the next one.
type statusBox struct {
	Status
	changed chan struct{} // Closed when leader, term, role or configuration are others.
}

// Start boots a member. What it lacks it gets from its peers; Ready tells when
// it may serve clients.
func Start(cfg Config) (*Node, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	boot, err := PlanBoot(cfg.Recovered, cfg.Applied, cfg.Log)
	if err != nil {
		return nil, err
	}
	if boot.Reset {
		cfg.Logger.Warn("log does not reach the installed state, beginning it anew", "last", cfg.Recovered.Last.Index, "applied", boot.Applied.Index)
		if err := cfg.Log.Reset(boot.Start); err != nil {
			return nil, fmt.Errorf("reset log to %s: %w", boot.Start, err)
		}
	}
	var nonce [8]byte
	if _, err := io.ReadFull(cfg.Random, nonce[:]); err != nil {
		return nil, fmt.Errorf("draw the nonce of this boot: %w", err)
	}
	n := &Node{cfg: cfg, idle: make(chan struct{}), stopped: make(chan struct{}), done: make(chan struct{})}
	n.waiters.init(cfg.ID, ident.Nonce(binary.LittleEndian.Uint64(nonce[:])))
	n.core, err = NewCore(CoreConfig{
		ID: cfg.ID, Nonce: n.waiters.nonce, ElectionTicks: int(cfg.ElectionTimeout / cfg.HeartbeatInterval),
		StallTicks: int(cfg.StallTimeout / cfg.HeartbeatInterval), Boot: boot, Log: cfg.Log, CatchUpEntries: cfg.CatchUpEntries, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	n.inbox.init()
	n.append = appender{
		self: cfg.ID, log: cfg.Log, network: cfg.Network, clock: cfg.Clock, logger: cfg.Logger,
		report: func(events []Event) { n.inbox.put(events...) }, install: n.install,
	}
	n.append.init()
	n.apply.init(cfg.StateMachine, &n.waiters, &n.readers, &n.inbox, boot.Applied.Index)
	n.publish(true)
	now, _ := n.readers.join() // What a quorum says now is what clients may count on (rule 20).
	n.ready = now.done
	n.inbox.wantRead()
	n.warmUp()
	n.run()
	return n, nil
}

// warmUp saves a starting member most of its first election timeout, and a
// single one all of it.
func (n *Node) warmUp() {
	if n.core.isSingle() {
		n.core.Step(&Event{Kind: EventCampaign})
		return
	}
	for i := electionTicksAtStart; i < n.core.electionTicks; i++ {
		n.core.Step(&Event{Kind: EventTick})
	}
}

func (n *Node) run() {
	n.group = task.New(context.Background())
	n.working.Store(2)
	n.group.Go("raft append", n.worker(n.append.run))
	n.group.Go("raft apply", n.worker(n.apply.run))
	n.group.Go("raft prepare", n.append.runPrepare)
	n.group.Go("raft timeouts", n.expire)
	n.group.Go("raft loop", n.loop)
}

// worker runs one of the two that the loop outlives.
func (n *Node) worker(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		n.stop(run(ctx))
		if n.working.Add(-1) == 0 {
			close(n.idle)
		}
		return nil
	}
}

// stop begins the end. The first reason stays; nil is no reason by itself.
func (n *Node) stop(err error) {
	if err == nil {
		return
	}
	n.end.Do(func() {
		n.end.err = err
		close(n.stopped)
		n.waiters.close()
		n.group.Stop()
	})
}

// Propose hands a request to the cluster and waits for its answer. ErrNoLeader,
// ErrBusy, ErrTooLarge and ErrStopped alone say that it has no effect and never
// will; ErrUnknownOutcome that it may have one. Other errors are the answer.
func (n *Node) Propose(ctx context.Context, data []byte) (any, error) {
	return n.propose(ctx, data, nil)
}

// ProposeConf does the same with a configuration change. data says what it
// means to the state machine, which may still refuse it.
func (n *Node) ProposeConf(ctx context.Context, change *raftpb.ConfChangeV2, data []byte) (any, error) {
	return n.propose(ctx, data, change)
}

func (n *Node) propose(ctx context.Context, data []byte, change *raftpb.ConfChangeV2) (any, error) {
	if len(data) > n.cfg.RequestBytesMax {
		return nil, fmt.Errorf("%d bytes, limit %d: %w", len(data), n.cfg.RequestBytesMax, ErrTooLarge)
	}
	if commit, applied := n.commit.Load(), n.apply.applied.Load(); commit > applied+ApplyLagMax {
		return nil, fmt.Errorf("%d entries wait for apply: %w", commit-applied, ErrBusy)
	}
	w, err := n.waiters.add(data, change, n.cfg.Clock.Mono()+n.cfg.RequestTimeout)
	if err != nil {
		return nil, err
	}
	id := w.request.ID
	if !n.inbox.propose(Proposal{Request: w.request, Conf: change, Ticket: w}) {
		n.waiters.remove(id)
		return nil, fmt.Errorf("requests wait for the log: %w", ErrBusy)
	}
	select { // Nothing that others wait on too: a thousand waiters on one channel cost more than their requests.
	case <-w.done:
		if w.givenUp != nil {
			return nil, n.giveUp(w, w.givenUp)
		}
		value, err := w.value, w.err
		n.waiters.reuse(w)
		return value, err
	case <-ctx.Done():
	}
	if n.waiters.remove(id) == nil {
		<-w.done // The answer was on its way.
		if w.givenUp == nil {
			return w.value, w.err
		}
	}
	return nil, n.giveUp(w, ctx.Err())
}

// giveUp says what is known about a request that nobody waits for any more.
func (n *Node) giveUp(w *waiter, why error) error {
	if !w.abandon() {
		return errors.Join(ErrUnknownOutcome, why)
	}
	switch {
	case why == ErrStopped:
		return ErrStopped
	case n.Status().Leader == 0:
		return errors.Join(ErrNoLeader, why)
	}
	return errors.Join(ErrBusy, why)
}

// expire ends requests that wait too long.
func (n *Node) expire(ctx context.Context) error {
	ticker := n.cfg.Clock.NewTicker(timeoutCheckInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
			n.waiters.expire(n.cfg.Clock.Mono())
		}
	}
}

// ReadIndex returns when the state includes everything that was acknowledged
// to anybody before the call, or after RequestTimeout.
func (n *Node) ReadIndex(ctx context.Context) error {
	if n.alone.Load() {
		return n.waitReady(ctx) // Whatever was acknowledged was acknowledged here, after it was applied.
	}
	group, first := n.readers.join()
	if first {
		n.inbox.wantRead()
	}
	err := n.waitRead(ctx, group.done)
	if err != nil {
		n.readers.leave(group)
	}
	return err
}

func (n *Node) waitReady(ctx context.Context) error { return n.waitRead(ctx, n.ready) }

func (n *Node) waitRead(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.RequestTimeout)
	defer cancel()
	select {
	case <-done:
		return nil
	case <-n.stopped:
		return ErrStopped
	case <-ctx.Done():
		if n.Status().Leader == 0 {
			return errors.Join(ErrNoLeader, ctx.Err())
		}
		return errors.Join(ErrNoQuorum, ctx.Err())
	}
}

// Ready is closed once everything is applied that a quorum knew to be committed
// after this boot: before that an older state could show than clients have seen.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Status tells what this member knows.
func (n *Node) Status() Status {
	s := n.status.Load().Status
	s.Commit = ident.Index(n.commit.Load())
	s.Last = ident.Index(n.last.Load())
	s.Applied = ident.Index(n.apply.applied.Load())
	return s
}

// Term is that of Status, for those who ask with each answer.
func (n *Node) Term() ident.Term { return n.status.Load().Term }

// Pending is how many requests wait for their answer.
func (n *Node) Pending() int64 { return n.waiters.count.Load() }

// StatusChanged returns a channel that is closed when leader, term, role or
// configuration change. Take it before Status, so that no change is missed.
func (n *Node) StatusChanged() <-chan struct{} { return n.status.Load().changed }

// TransferLeader hands leadership to another voter and waits until it has it.
func (n *Node) TransferLeader(ctx context.Context, to ident.MemberID) error {
	s := n.Status()
	if s.Role != Leader {
		return ErrNotLeader
	}
	if !slices.Contains(s.Voters, to) {
		return fmt.Errorf("member %s: %w", to, ErrTransferee)
	}
	if to == n.cfg.ID {
		return nil
	}
	n.inbox.put(Event{Kind: EventTransfer, Peer: to})
	given := n.cfg.Clock.After(n.cfg.ElectionTimeout + n.cfg.HeartbeatInterval) // Raft gives up after one timeout.
	for {
		changed := n.StatusChanged()
		s := n.Status()
		if s.Leader == to {
			return nil
		}
		if s.Leader != 0 && s.Leader != n.cfg.ID {
			return fmt.Errorf("member %s leads instead of %s: %w", s.Leader, to, ErrTransferFailed)
		}
		select {
		case <-changed:
		case <-given:
			return ErrTransferFailed
		case <-ctx.Done():
			return errors.Join(ErrTransferFailed, ctx.Err())
		case <-n.stopped:
			return ErrStopped
		}
	}
}

// Checkpointed says that the state up to index is durable outside the log. The
// note stays in the log; entries behind the checkpoint before this one may go,
// but for what followers need.
func (n *Node) Checkpointed(index ident.Index, note []byte) {
	if note != nil {
		n.append.put(appendTask{note: &wal.Note{Kind: NoteCheckpoint, Data: note}})
	}
	n.inbox.put(Event{Kind: EventCheckpoint, Index: index})
}

// ReportClock says that the wall clock of a peer was found to be ahead of ours by
// offset, below 0: behind. Without it the clock of a member decides nothing.
func (n *Node) ReportClock(of ident.MemberID, offset time.Duration) {
	n.inbox.put(Event{Kind: EventClock, Peer: of, Offset: offset})
}

// ReportApplied says that a peer has applied all entries up to index. Without it
// nothing is known of an apply of ours that hangs.
func (n *Node) ReportApplied(by ident.MemberID, index ident.Index) {
	n.inbox.put(Event{Kind: EventPeerApplied, Peer: by, Index: index})
}

// ReportRemoved says that a peer refused this member because it was removed. A
// member that was down when it was removed learns it no other way.
func (n *Node) ReportRemoved() { n.stop(ErrRemoved) }

// Done is closed when the member has stopped, for whatever reason.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err tells why the member stopped; nil before that and after Close.
func (n *Node) Err() error {
	select {
	case <-n.done:
	default:
		return nil
	}
	if errors.Is(n.end.err, errClosed) {
		return nil
	}
	return n.end.err
}

// errClosed is the reason of an end by Close.
var errClosed = errors.New("closed")

// HandOver has another member lead, if this one does, within a bound: the others
// need no election timeout when it stops. Close does it first, and it is done
// once: who still has to do things before Close, calls it before those.
func (n *Node) HandOver() {
	n.handing.Do(func() {
		to := n.Status().Heir
		if to == 0 {
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		defer n.cfg.Clock.AfterFunc(CloseTransferMax, cancel).Stop()
		if err := n.TransferLeader(ctx, to); err != nil && !errors.Is(err, ErrStopped) && !errors.Is(err, ErrNotLeader) {
			n.cfg.Logger.Warn("stopping without a successor", "transferee", to, "error", err)
		}
	})
}

// Close stops the member and waits for its end.
func (n *Node) Close() error {
	n.HandOver()
	n.stop(errClosed)
	return n.group.Wait()
}
