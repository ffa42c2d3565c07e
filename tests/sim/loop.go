package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/transport"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

func durationOf(t int64) time.Duration { return time.Duration(t) * time.Microsecond }

// logTask is one of its fields: what the append goroutine of a Node would do.
type logTask struct {
	append   *raftnode.Append
	compact  ident.Index
	note     *wal.Note
	clearCut bool
}

type applyTask struct {
	apply   *raftnode.Apply
	freeze  bool
	install *raftnode.Append
}

// step is one turn of the loop.
func (m *Member) step(e *raftnode.Event) {
	if !m.alive {
		return
	}
	w := m.w
	w.note(2, uint64(w.now), uint64(m.id), uint64(e.Kind))
	m.core.Step(e)
	effects := slices.Clone(m.core.Take(m.clock.Wall().UnixNano()))
	m.show()
	w.check.After(m, &m.shown)
	for i := range effects {
		m.carry(&effects[i])
		if !m.alive {
			return
		}
	}
	switch {
	case m.core.Removed() && !m.leaving:
		m.leaving = true
		m.live(electionTime, func() { m.stop(raftnode.ErrRemoved) })
	case m.core.Err() != nil:
		m.stop(m.core.Err())
	}
}

// show logs what others see changing.
func (m *Member) show() {
	s := m.core.Status()
	old := &m.shown
	m.w.note(uint64(s.Role), uint64(s.Term), uint64(s.Leader), uint64(s.Commit), uint64(s.Last))
	changed := s.Role != old.Role || s.Term != old.Term || s.Leader != old.Leader
	if changed {
		m.w.logf(m.id, "is %s in term %d, leader %s", s.Role, s.Term, s.Leader)
	}
	if s.Stalled && s.Transferee != 0 && old.Transferee == 0 {
		m.w.count.Reached["leadership offered because of a disk"]++
	}
	m.shown = s
	if changed {
		m.lead()
	}
}

func (m *Member) carry(e *raftnode.Effect) {
	w := m.w
	w.note(3, uint64(e.Kind), uint64(e.Peer), uint64(e.Index), e.Round)
	switch e.Kind {
	case raftnode.EffectSend:
		w.net.send(m, e.Peer, e.Frame)
	case raftnode.EffectAppend:
		w.check.Appended(m, e.Append)
		m.queueLog(logTask{append: e.Append})
	case raftnode.EffectApply:
		m.queueApply(applyTask{apply: e.Apply})
	case raftnode.EffectFreeze:
		m.queueApply(applyTask{freeze: true})
	case raftnode.EffectRead:
		m.readConfirmed(e.Round, e.Index)
	case raftnode.EffectDrop:
		m.end(e.Proposal.Request.ID, nil, e.Err)
	case raftnode.EffectSnapshot:
		m.sendSnapshot(e.Peer, e.Message)
	case raftnode.EffectThaw:
		if m.frozen != nil {
			_ = m.frozen.Close()
		}
		m.frozen = nil
	case raftnode.EffectDiscard:
		w.logf(m.id, "drops the snapshot at %d", e.Staged.Meta().Index)
		if err := e.Staged.Discard(); err != nil {
			w.logf(m.id, "discarding it failed: %v", err)
		}
		w.count.Reached["snapshot discarded"]++
	case raftnode.EffectCompact:
		w.check.Compacted(m, e.Index)
		m.queueLog(logTask{compact: e.Index})
	case raftnode.EffectClearCut:
		w.logf(m.id, "has back what it lost")
		w.count.Reached["cut made good"]++
		m.queueLog(logTask{clearCut: true})
	}
}

func (m *Member) queueLog(t logTask) {
	m.logTasks = append(m.logTasks, t)
	m.startLog()
}

// startLog does all that is queued with one sync, up to an installation.
func (m *Member) startLog() {
	if m.writing || len(m.logTasks) == 0 {
		return
	}
	m.writing = true
	if a := m.logTasks[0].append; a != nil && a.Staged != nil {
		m.logTasks = m.logTasks[1:]
		m.queueApply(applyTask{install: a})
		return
	}
	n := 0
	for n < len(m.logTasks) && (m.logTasks[n].append == nil || m.logTasks[n].append.Staged == nil) {
		n++
	}
	batch := m.logTasks[:n:n]
	m.logTasks = m.logTasks[n:]
	m.writeLog(batch, 0)
}

// writeLog stores tasks from the n-th on. A full disk is waited out.
func (m *Member) writeLog(batch []logTask, n int) {
	for ; n < len(batch); n++ {
		err := m.writeOne(&batch[n])
		if errors.Is(err, wal.ErrNoSegment) && !m.disk.dead {
			m.w.count.Reached["log waited for room"]++
			m.live(200*millisecond, func() { m.writeLog(batch, n) })
			return
		}
		if err != nil {
			m.stop(fmt.Errorf("raft log: %w", err))
			return
		}
	}
	d := m.w.between(m.w.cfg.SyncMin, m.w.cfg.SyncMax) * m.disk.slow
	if m.disk.slow > 1 {
		m.w.fired("D9")
		d = min(d, 2*second/m.slow) // One that is under way when all is healed ends soon.
	}
	m.live(d, func() { m.syncLog(batch) })
}

func (m *Member) writeOne(t *logTask) error {
	switch {
	case t.append != nil:
		m.dirty = m.dirty || t.append.Sync
		if len(t.append.Entries) == 0 && t.append.Hard == nil {
			return nil
		}
		if err := m.log.Append(t.append.Entries, t.append.Hard); err != nil {
			return err
		}
		return m.promised.Append(t.append.Entries, t.append.Hard)
	case t.compact != 0:
		if err := m.log.Compact(t.compact); err != nil {
			return err
		}
		m.w.count.Reached["log compacted"]++
		return m.promised.Compact(t.compact)
	case t.note != nil:
		m.dirty = true
		return m.log.Note(*t.note)
	}
	m.dirty = true
	return m.log.ClearCut()
}

func (m *Member) syncLog(batch []logTask) {
	if m.dirty {
		if err := m.log.Sync(); err != nil {
			m.stop(fmt.Errorf("sync raft log: %w", err))
			return
		}
		if err := m.promised.Sync(); err != nil {
			m.w.fail("member %s: %v", m.id, err)
		}
		m.dirty = false
	}
	m.w.check.Synced(m)
	if !m.log.Prepared() {
		m.live(m.w.between(0, 5*millisecond), func() {
			if err := m.log.Prepare(); err != nil {
				m.w.logf(m.id, "next segment cannot be prepared: %v", err)
			}
		})
	}
	m.appended(batch)
}

// appended lets responses go and tells the core.
func (m *Member) appended(batch []logTask) {
	for _, t := range batch {
		if t.append == nil {
			continue
		}
		for _, r := range t.append.Responses {
			if to := ident.MemberID(r.GetTo()); to != m.id {
				m.w.net.send(m, to, transport.Frame{Kind: transport.KindRaft, Message: r})
			}
		}
	}
	for _, t := range batch {
		if t.append != nil {
			m.step(&raftnode.Event{Kind: raftnode.EventAppended, Append: t.append})
		}
	}
	if !m.alive {
		return
	}
	m.writing = false
	m.startLog()
}

func (m *Member) queueApply(t applyTask) {
	m.applies = append(m.applies, t)
	m.startApply()
}

func (m *Member) startApply() {
	if m.applying || len(m.applies) == 0 {
		return
	}
	m.applying = true
	t := m.applies[0]
	m.applies = m.applies[1:]
	m.live(m.w.between(m.w.cfg.ApplyMin, m.w.cfg.ApplyMax), func() {
		m.apply(t)
		if m.alive {
			m.applying = false
			m.startApply()
		}
	})
}

func (m *Member) apply(t applyTask) {
	switch {
	case t.apply != nil:
		if err := m.execute.Apply(t.apply.Entries); err != nil {
			m.stop(err)
			return
		}
		m.step(&raftnode.Event{Kind: raftnode.EventApplied, Apply: t.apply})
		if m.alive {
			m.stepHub()
		}
	case t.freeze:
		f, err := m.replica.Freeze()
		if err != nil {
			m.w.logf(m.id, "cannot freeze its state: %v", err)
			m.step(&raftnode.Event{Kind: raftnode.EventFrozen})
			return
		}
		m.frozen = f
		m.w.count.Reached["state frozen"]++
		m.step(&raftnode.Event{Kind: raftnode.EventFrozen, Frozen: f})
	case t.install != nil:
		m.install(t.install)
	}
}

// install switches to a received state. The state machine goes first.
func (m *Member) install(a *raftnode.Append) {
	if err := m.replica.Install(a.Staged); err != nil {
		m.stop(fmt.Errorf("install snapshot at %d: %w", a.Start.Index, err))
		return
	}
	m.w.logf(m.id, "installed the snapshot at %d", a.Start.Index)
	m.obscure()
	m.confIndex = a.Start.Index
	m.publish(a.Start.Index)
	m.w.check.Installed(m, a.Start, m.w.stateOf(m.replica.Store()))
	m.live(m.w.between(0, 2*m.w.cfg.SyncMax), func() { m.resetLog(a) })
}

func (m *Member) resetLog(a *raftnode.Append) {
	err := m.log.Reset(a.Start)
	if errors.Is(err, wal.ErrNoSegment) && !m.disk.dead {
		m.live(200*millisecond, func() { m.resetLog(a) })
		return
	}
	if err == nil {
		err = m.promised.Reset(a.Start)
	}
	if err == nil {
		err = m.log.Append(a.Entries, a.Hard)
	}
	if err == nil {
		err = m.promised.Append(a.Entries, a.Hard)
	}
	if err != nil {
		m.stop(fmt.Errorf("reset raft log: %w", err))
		return
	}
	m.dirty = true
	m.syncLog([]logTask{{append: a}})
}

// machine is the state machine as the executor drives it.
type machine struct{ *Member }

// Apply implements raftnode.StateMachine.
func (x machine) Apply(entries []entry.Entry) ([]entry.Answer, error) {
	m := x.Member
	for i := range entries {
		m.w.check.Applied(m, &entries[i])
	}
	answers, err := m.replica.Apply(entries)
	if err != nil {
		return nil, err
	}
	last := entries[len(entries)-1].Index
	m.w.shadow.applied(m, entries, answers)
	state := m.w.stateOf(m.replica.Store())
	m.w.note(uint64(m.id), uint64(last), state)
	m.w.check.State(m, last, state)
	if entries[0].Conf != nil {
		m.confIndex = last
		m.w.confApplied(m)
	}
	return answers, nil
}

// Freeze, Have, Receive and Install are called on the replica itself.
func (x machine) Freeze() (raftnode.Frozen, error)           { return x.replica.Freeze() }
func (x machine) Have() []byte                               { return x.replica.Have() }
func (x machine) Receive(r reading) (raftnode.Staged, error) { return x.replica.Receive(r) }
func (x machine) Install(s raftnode.Staged) error            { return x.replica.Install(s) }

// read calls done when the state includes all that was acknowledged before.
func (m *Member) read(done func()) {
	m.round++
	m.readers = append(m.readers, reader{round: m.round, floor: m.w.check.Acknowledged, done: done})
	m.step(&raftnode.Event{Kind: raftnode.EventRead, Round: m.round})
}

func (m *Member) readConfirmed(round uint64, index ident.Index) {
	n := 0
	for n < len(m.readers) && m.readers[n].round <= round {
		r := m.readers[n]
		r.index = index
		m.confirmed = append(m.confirmed, r)
		n++
	}
	m.readers = m.readers[n:]
	m.wakeReaders()
}

func (m *Member) publish(index ident.Index) {
	m.published = max(m.published, index)
	m.wakeReaders()
}

func (m *Member) wakeReaders() {
	var kept, ripe []reader
	for _, r := range m.confirmed {
		if r.index <= m.published {
			ripe = append(ripe, r)
		} else {
			kept = append(kept, r)
		}
	}
	m.confirmed = kept
	for _, r := range ripe {
		m.w.check.Fired["rule 22"]++
		if m.published < r.floor {
			m.w.fail("rule 22: member %s reads at %d what was acknowledged up to %d", m.id, m.published, r.floor)
		}
		if m.alive {
			r.done()
		}
	}
}

// refused gives requests that another member did not take another try.
func (m *Member) refused(data []byte) {
	reason, ids, err := raftnode.DecodeRefusal(data)
	if err != nil {
		m.w.fail("member %s: %v", m.id, err)
	}
	for _, id := range ids {
		o := m.waiting[id]
		if id.Nonce != m.nonce || o == nil {
			continue
		}
		if errors.Is(reason, raftnode.ErrNotLeader) {
			o.Release()
			m.step(&raftnode.Event{Kind: raftnode.EventPropose, Proposals: []raftnode.Proposal{{
				Request: entry.Request{ID: id, Data: o.data}, Conf: o.change, Ticket: o, Refused: true,
			}}})
		} else {
			m.end(id, nil, reason)
		}
	}
}
