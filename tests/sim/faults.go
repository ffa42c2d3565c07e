package sim

import (
	"context"
	"slices"
	"syscall"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/raftnode"
)

// fault is a kind of harm, or of an administrator's act.
type fault struct {
	weight      int
	quorum      bool // Makes sense only with several members.
	least, most int64
	do          func(w *World, a *Action)
}

var faults = map[string]fault{
	"N1":  {3, true, second, 8 * second, func(w *World, a *Action) { w.set(a, &w.net.loss, 5+int(a.A%40), w.cfg.Loss) }},
	"N2":  {2, true, second, 8 * second, func(w *World, a *Action) { w.set(a, &w.net.duplicate, 5+int(a.A%40), w.cfg.Duplicate) }},
	"N3":  {2, true, second, 8 * second, setReorder},
	"N4":  {3, true, second, 6 * second, slowNetwork},
	"N5":  {3, true, 300 * millisecond, 4 * second, clogLinks},
	"N6":  {4, true, 300 * millisecond, 8 * second, func(w *World, a *Action) { w.isolate(a, w.pick(a.A).id, "N6", true, true) }},
	"N7":  {4, true, 300 * millisecond, 8 * second, func(w *World, a *Action) { w.isolate(a, w.pick(a.A).id, "N7", a.B%2 == 0, a.B%2 == 1) }},
	"N8":  {2, true, 500 * millisecond, 8 * second, cutRing},
	"N9":  {4, true, 500 * millisecond, 8 * second, cutLeader},
	"N10": {2, true, second, 8 * second, flap},
	"N11": {2, true, 5 * second, 20 * second, func(w *World, a *Action) { w.set(a, &w.net.cutSnapshots, 70, 0) }},
	"N12": {2, true, 2 * second, 8 * second, swizzle},
	"P1":  {8, false, 100 * millisecond, 4 * second, crashOne},
	"P2":  {2, false, 100 * millisecond, 2 * second, crashAll},
	"P3":  {2, false, 100 * millisecond, second, func(w *World, a *Action) { m := w.pick(a.A); m.crashLoop = 2 + int(a.B%5); w.powerCut(a, m, "P3") }},
	"P4":  {4, false, 50 * millisecond, 900 * millisecond, func(w *World, a *Action) { w.pause(a, w.pick(a.A), "P4") }},
	"P5":  {3, false, 3 * second, 10 * second, func(w *World, a *Action) { w.pause(a, w.pickLeaderly(a), "P5") }},
	"P6":  {2, false, second, 6 * second, slowProcessor},
	"P8":  {1, true, 0, 0, func(w *World, a *Action) { w.loseDisk(w.pick(a.A)) }},
	"D5": {3, false, 0, 0, func(w *World, a *Action) {
		w.failDisk(a, "D5", syscall.EIO, vfstest.OpWrite, vfstest.OpAllocate, vfstest.OpCreate)
	}},
	"D6": {3, false, 0, 0, func(w *World, a *Action) { w.failDisk(a, "D6", syscall.EIO, vfstest.OpSync, vfstest.OpSyncDir) }},
	"D7": {2, false, 0, 0, func(w *World, a *Action) { w.failDisk(a, "D7", syscall.EIO, vfstest.OpRead) }},
	"D8": {3, false, second, 8 * second, func(w *World, a *Action) { w.during(a, w.pick(a.A), func(m *Member, on bool) { m.disk.full = on }) }},
	"D9": {3, false, second, 6 * second, func(w *World, a *Action) {
		w.during(a, w.pick(a.A), func(m *Member, on bool) { m.disk.slow = factor(on, int64(10<<(a.B%6))) })
	}},
	"D10": {2, true, 0, 0, func(w *World, a *Action) { w.damage(a, "D10") }},
	"D11": {1, true, 0, 0, func(w *World, a *Action) { w.damage(a, "D11") }},
	"D12": {1, true, 0, 0, func(w *World, a *Action) { w.damage(a, "D12") }},
	"D13": {2, true, 0, 0, func(w *World, a *Action) { w.damage(a, "D13") }},
	"D14": {2, false, 500 * millisecond, 3 * second, func(w *World, a *Action) { w.during(a, w.pick(a.A), func(m *Member, on bool) { m.disk.readOnly = on }) }},
	"D15": {1, true, 0, 0, func(w *World, a *Action) { w.damage(a, "D15") }},
	"C1":  {1, false, 0, 0, func(w *World, a *Action) { w.fired("C1"); w.pick(a.A).clock.offset = (int64(a.B%7200) - 3600) * second }},
	"C2":  {2, false, 0, 0, func(w *World, a *Action) { w.fired("C2"); w.pickLeaderly(a).clock.offset += int64(a.B%3600) * second }},
	"C3":  {2, false, 0, 0, func(w *World, a *Action) { w.fired("C3"); w.pickLeaderly(a).clock.offset -= int64(a.B%3600) * second }},
	"C4": {2, false, second, 20 * second, func(w *World, a *Action) {
		w.fired("C4")
		w.during(a, w.pickLeaderly(a), func(m *Member, on bool) { m.clock.setRate(rateOf(m, a, on)) })
	}},
	"C5": {2, false, second, 6 * second, stopClock},
	"A2": {3, false, 0, 0, defragment},
	"A3": {3, true, 0, 0, func(w *World, a *Action) { w.admin.want(task{replace: w.pick(a.A).id}) }},
	"A5": {4, true, 0, 0, transfer},
	"A6": {3, false, 0, 0, checkpoint},
	"A7": {3, false, 0, 0, func(w *World, a *Action) { w.backup(w.pick(a.A)) }},
}

// pick chooses a member that is not gone.
func (w *World) pick(n uint32) *Member {
	var list []*Member
	w.each(func(m *Member) {
		if m.gone == "" {
			list = append(list, m)
		}
	})
	if len(list) == 0 {
		return w.members[w.ids[0]]
	}
	return list[int(n)%len(list)]
}

// pickLeaderly chooses the leader as often as not.
func (w *World) pickLeaderly(a *Action) *Member {
	if l := w.leader(); l != nil && a.B%2 == 0 {
		return l
	}
	return w.pick(a.A)
}

// present are the members that take part.
func (w *World) present() (ids []ident.MemberID) {
	w.each(func(m *Member) {
		if m.gone == "" {
			ids = append(ids, m.id)
		}
	})
	return ids
}

// set changes a number of the network for a while.
func (w *World) set(a *Action, field *int, value, back int) {
	*field = value
	w.later(a, func() { *field = back })
}

// later ends what an action began, unless the world was healed before.
func (w *World) later(a *Action, undo func()) {
	w.after(a.For, func() {
		if w.phase == safety {
			undo()
		}
	})
}

func setReorder(w *World, a *Action) {
	w.net.reorder = true
	w.later(a, func() { w.net.reorder = w.cfg.Reorder })
}

func slowNetwork(w *World, a *Action) {
	w.net.delay = 2 << (a.A % 6)
	w.later(a, func() { w.net.delay = 1 })
}

func clogLinks(w *World, a *Action) {
	m := w.pickLeaderly(a)
	for _, id := range w.present() {
		if id != m.id && (a.A>>(id%16))&1 == 0 {
			w.net.clog(m.id, id, true)
			if a.B%3 == 0 {
				w.net.clog(id, m.id, true)
			}
			w.later(a, func() { w.net.clog(m.id, id, false); w.net.clog(id, m.id, false) })
		}
	}
}

// isolate cuts a member off, in one direction or both.
func (w *World) isolate(a *Action, id ident.MemberID, fault string, out, in bool) {
	for _, other := range w.present() {
		if out {
			w.net.cut(id, other, fault)
		}
		if in {
			w.net.cut(other, id, fault)
		}
		w.later(a, func() { w.net.cut(id, other, ""); w.net.cut(other, id, "") })
	}
}

func cutLeader(w *World, a *Action) {
	if l := w.leader(); l != nil {
		w.isolate(a, l.id, "N9", true, true)
	}
}

// cutRing leaves each member with its neighbours only: all see a majority, and
// no two the same.
func cutRing(w *World, a *Action) {
	ids := w.present()
	for i, x := range ids {
		for j, y := range ids {
			d := (j - i + len(ids)) % len(ids)
			if d > 1 && d < len(ids)-1 || len(ids) == 3 && i+j == int(a.A%3)+1 {
				w.net.cut(x, y, "N8")
				w.later(a, func() { w.net.cut(x, y, "") })
			}
		}
	}
}

func flap(w *World, a *Action) {
	m := w.pickLeaderly(a)
	end := w.now + a.For
	period := int64(50+a.A%600) * millisecond
	var turn func(on bool)
	turn = func(on bool) {
		if w.phase != safety {
			return
		}
		for _, id := range w.present() {
			if on && w.now < end {
				w.net.cut(m.id, id, "N10")
				w.net.cut(id, m.id, "N10")
			} else {
				w.net.cut(m.id, id, "")
				w.net.cut(id, m.id, "")
			}
		}
		if w.now < end {
			w.after(period, func() { turn(!on) })
		}
	}
	turn(true)
}

func swizzle(w *World, a *Action) {
	ids := w.present()
	for i, id := range ids {
		w.after(a.For*int64(i)/int64(2*len(ids)), func() {
			if w.phase == safety {
				heal := *a
				heal.For = a.For/2 + a.For*int64((a.A>>(2*i))%4)/8
				w.isolate(&heal, id, "N12", true, true)
			}
		})
	}
}

// powerCut takes the power of a member away, now or at one of its next changes,
// and keeps it down for a while.
func (w *World) powerCut(a *Action, m *Member, id string) {
	w.fired(id)
	if m.alive && a.B%3 != 0 {
		m.disk.crashIn = 1 + int(a.B>>4)%60
		m.disk.crashSync = a.B%2 == 0
		if placesNamed && a.A%2 == 0 {
			m.disk.crashIn, m.disk.placesIn = 0, 1+int(a.B>>4)%60
		}
		return // The supervisor starts it again.
	}
	if m.alive {
		m.crash("idle")
	}
	w.keepDown(a, m)
}

func (w *World) keepDown(a *Action, m *Member) {
	m.keptDown = true
	w.after(a.For, func() { m.keptDown = false })
}

func crashOne(w *World, a *Action) {
	m := w.pickLeaderly(a)
	switch a.A % 8 {
	case 0: // Stopped in order.
		if m.alive {
			w.fired("P1")
			m.orderly = true
			m.halt()
			w.count.Reached["orderly stop"]++
			w.keepDown(a, m)
		}
	case 1, 2: // Killed: the machine goes on.
		if m.alive {
			w.fired("P1")
			m.halt()
			w.count.Reached["killed"]++
			w.keepDown(a, m)
		}
	default:
		w.powerCut(a, m, "P1")
	}
}

func crashAll(w *World, a *Action) {
	w.fired("P2")
	w.each(func(m *Member) {
		if m.gone == "" && m.alive {
			m.crash("idle")
			if a.A%2 == 0 {
				w.keepDown(a, m)
			}
		}
	})
}

func (w *World) pause(a *Action, m *Member, id string) {
	if m.alive {
		w.fired(id)
		m.pause(a.For)
		w.logf(m.id, "pauses for %s s", clockText(a.For))
	}
}

func slowProcessor(w *World, a *Action) {
	w.fired("P6")
	w.during(a, w.pick(a.A), func(m *Member, on bool) { m.slow = factor(on, 2+int64(a.B%10)) })
}

func factor(on bool, n int64) int64 {
	if on {
		return n
	}
	return 1
}

// during does something to a member for a while.
func (w *World) during(a *Action, m *Member, set func(m *Member, on bool)) {
	set(m, true)
	w.later(a, func() { set(m, false) })
}

func rateOf(m *Member, a *Action, on bool) int64 {
	if on {
		return int64(a.B%10_000) - 5000
	}
	return m.w.cfg.ratePPM(m.id)
}

func stopClock(w *World, a *Action) {
	w.fired("C5")
	m := w.pickLeaderly(a)
	m.clock.setRate(-1_000_000)
	w.after(a.For, func() {
		m.clock.setRate(0)
		m.clock.offset += a.For // The machine has slept: only the time of day knows.
	})
}

var diskClasses = []string{"", "wal", "history", "meta"}

// failDisk lets the next operations of some kinds fail.
func (w *World) failDisk(a *Action, id string, err error, kinds ...vfstest.Kind) {
	m := w.pickLeaderly(a)
	m.disk.rules = append(m.disk.rules, &diskRule{
		id: id, kinds: kinds, class: diskClasses[a.A%4], skip: int(a.A>>8) % 20, left: 1 + int(a.B>>8)%4, err: err,
	})
}

// mayDamage reports whether the fault budget lets a member lose what it had
// promised to keep: all others of a quorum have to be intact.
func (w *World) mayDamage(m *Member) bool {
	if m.gone != "" || m.excused {
		return false
	}
	if w.cfg.Beyond {
		return true
	}
	voters := w.voters()
	if w.admin.busy() || w.admin.enough() || len(voters) < 3 || w.confs > 0 {
		return false
	}
	bad := 1 + w.lost(m)
	for _, id := range voters {
		if v := w.members[id]; v != nil && v != m && !v.excused && v.gone == "" && (v.shown.Cut || v.disk.torn) {
			bad++
		}
	}
	return slices.Contains(voters, m.id) && bad <= (len(voters)-1)/2
}

// lost counts the members but one that are gone, or may have lost what they had
// promised. One counts until all others have it durably that another took its
// place: who has a cut log waits for the answer of every voter that it knows.
func (w *World) lost(but *Member) (n int) {
	w.each(func(m *Member) {
		if m != but && (m.excused || m.gone != "") &&
			(m.replaced == 0 || w.now < m.replaced+2*w.cfg.CheckpointInterval) {
			n++
		}
	})
	return n
}

// damage stops a member and does harm to one of its files.
func (w *World) damage(a *Action, id string) {
	m := w.pick(a.A)
	if !w.mayDamage(m) {
		return
	}
	if m.alive {
		m.crash("idle")
	}
	class := []string{"", "wal", "history", "base"}[a.B%4]
	if id == "D13" {
		class = "base"
	}
	what, err := m.disk.damage(id, class)
	if err != nil {
		w.fail("damage to member %s: %v", m.id, err)
	}
	if what == "" {
		return
	}
	w.fired(id)
	w.logf(m.id, "%s: %s", id, what)
	w.excuse(m)
}

// excuse takes note that a member may have lost what it had promised. It is to
// be replaced.
func (w *World) excuse(m *Member) {
	m.excused = true
	w.check.Forget(m.id)
	w.admin.want(task{replace: m.id})
}

func (w *World) loseDisk(m *Member) {
	if !w.mayDamage(m) {
		return
	}
	w.fired("P8")
	if m.alive {
		m.crash("idle")
	}
	m.disk.wipe()
	m.gone = "its disk is lost"
	w.logf(m.id, "has lost its disk")
	w.excuse(m)
}

func defragment(w *World, a *Action) {
	m := w.pick(a.A)
	if !m.alive || m.pausedUntil > w.now {
		return
	}
	settled, cancel := context.WithCancel(context.Background())
	cancel()
	store := m.replica.Store()
	if store.WaitMerged(settled) != nil {
		return // A compaction is still being merged.
	}
	w.fired("A2")
	if err := store.Defragment(context.Background()); err != nil {
		w.logf(m.id, "defragmentation failed: %v", err)
		if m.blame(err) == "" {
			w.fail("member %s cannot defragment: %v", m.id, err)
		}
	}
	m.settle()
}

func transfer(w *World, a *Action) {
	l := w.leader()
	if l == nil || l.pausedUntil > w.now {
		return
	}
	voters := l.shown.Voters
	to := voters[int(a.A)%len(voters)]
	w.fired("A5")
	l.step(&raftnode.Event{Kind: raftnode.EventTransfer, Peer: to})
	l.settle()
}

func checkpoint(w *World, a *Action) {
	m := w.pick(a.A)
	if !m.alive || m.pausedUntil > w.now {
		return
	}
	w.fired("A6")
	asked, cancel := context.WithCancel(context.Background())
	cancel()
	_ = m.replica.Store().Checkpoint(asked) // Its next turn does it.
}
