package sim

import (
	"slices"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// task is something that the operator shall do to the cluster.
type task struct {
	replace ident.MemberID
}

// operator changes the members, one step after the other, as a careful
// administrator would: a newcomer begins as a learner and is promoted when it
// has caught up; a voter that is lost is removed first, one that works last.
type operator struct {
	w       *World
	tasks   []task
	old     ident.MemberID // Being replaced; 0: nothing to do.
	fresh   ident.MemberID // Its successor; 0: not added yet.
	next    ident.MemberID // The next ID to give.
	asking  bool           // A change is on its way.
	changes int
}

func (o *operator) init(w *World) {
	*o = operator{w: w, next: ident.MemberID(w.cfg.Voters) + 10}
	w.after(operatorTime, o.look)
}

const operatorTime = 300 * millisecond

func (o *operator) busy() bool { return o.old != 0 }

// want puts a task on the list.
func (o *operator) want(t task) {
	if o.old != t.replace && !slices.Contains(o.tasks, t) && (o.w.members[t.replace].excused || !o.enough()) {
		o.tasks = append(o.tasks, t)
	}
}

// enough bounds how many members there ever are: each costs time.
func (o *operator) enough() bool { return len(o.w.members) >= o.w.cfg.Voters+8 }

// look does the next step of the present task.
func (o *operator) look() {
	w := o.w
	w.after(operatorTime, o.look)
	if w.phase == majority || o.asking {
		return
	}
	if o.old == 0 {
		if w.phase == healed { // Only what is broken is mended.
			o.tasks = slices.DeleteFunc(o.tasks, func(t task) bool { return !w.members[t.replace].excused })
		}
		if len(o.tasks) == 0 {
			return
		}
		o.old, o.fresh, o.tasks = o.tasks[0].replace, 0, o.tasks[1:]
	}
	l := w.leader()
	if l == nil || !l.serves() || l.pausedUntil > w.now || !l.shown.Settled {
		return
	}
	o.step(l)
	l.settle()
}

func (o *operator) step(l *Member) {
	w := o.w
	members := l.replica.Machine.Members
	old := w.members[o.old]
	there := members.Get(o.old) != nil
	lost := old.gone != "" && !old.removed
	switch {
	case there && lost && len(l.shown.Voters) > 1: // First, so that it counts no more.
		o.change(l, &holdfastpb.Command{Command: &holdfastpb.Command_MemberRemove{MemberRemove: &holdfastpb.MemberRemove{Id: uint64(o.old)}}})
	case o.fresh == 0:
		o.fresh = o.next
		o.next++
		w.addMember(o.fresh, wal.Mark{})
	case members.Get(o.fresh) == nil && !members.Removed(o.fresh):
		o.change(l, &holdfastpb.Command{Command: &holdfastpb.Command_MemberAdd{MemberAdd: &holdfastpb.MemberAdd{
			LearnersMax: 1, Member: &holdfastpb.Member{Id: uint64(o.fresh), PeerUrls: []string{peerURL(o.fresh)}, IsLearner: true},
		}}})
	case !w.members[o.fresh].alive && w.members[o.fresh].promised == nil && w.members[o.fresh].gone == "":
		w.members[o.fresh].restart()
	case members.Get(o.fresh) != nil && members.Get(o.fresh).IsLearner:
		if o.ready(l) {
			w.fired("A4")
			o.change(l, &holdfastpb.Command{Command: &holdfastpb.Command_MemberPromote{MemberPromote: &holdfastpb.MemberPromote{Id: uint64(o.fresh)}}})
		}
	case there && o.mayRemove(l):
		o.change(l, &holdfastpb.Command{Command: &holdfastpb.Command_MemberRemove{MemberRemove: &holdfastpb.MemberRemove{Id: uint64(o.old)}}})
	case !there:
		w.logf(nil, "member %s takes the place of %s", o.fresh, o.old)
		w.count.Reached["member replaced"]++
		old.replaced = w.now
		o.old = 0
	}
}

// ready reports whether the learner has caught up, as package server asks.
func (o *operator) ready(l *Member) bool {
	for _, p := range l.shown.Progress {
		if p.ID == o.fresh {
			return uint64(p.Match)*100 >= uint64(l.shown.Last)*90
		}
	}
	return false
}

// mayRemove reports whether what is left has a quorum that works, and nobody who
// waits for the answers of all.
func (o *operator) mayRemove(l *Member) bool {
	voters, up := 0, 0
	for _, id := range l.shown.Voters {
		if id == o.old {
			continue
		}
		voters++
		m := o.w.members[id]
		if m.gone == "" && (m.shown.Cut || m.disk.torn) { // One that is gone does not wait.
			return false
		}
		if m.alive {
			up++
		}
	}
	return up > voters/2
}

func (o *operator) change(l *Member, cmd *holdfastpb.Command) {
	o.w.fired("A3")
	o.asking = true
	o.changes++
	l.propose(o.w.asMember(cmd), func(_ any, err error) {
		o.asking = false
		if err != nil {
			o.w.logf(nil, "change of members: %v", err)
		}
	})
}

// publishSelf tells the cluster who this member is, as a server does when it is
// ready.
func (m *Member) publishSelf() {
	if m.replica.Machine.Cluster() == nil {
		m.propose(&holdfastpb.Command{Command: &holdfastpb.Command_ClusterInit{ClusterInit: &holdfastpb.ClusterInit{
			Uuid: []byte("0123456789abcdef"), ClusterId: 1, Version: "3.7.0",
		}}}, func(any, error) {})
	}
	if !m.alive {
		return
	}
	if row := m.replica.Machine.Members.Get(m.id); row != nil && row.Name == "" {
		m.propose(&holdfastpb.Command{Command: &holdfastpb.Command_MemberPublish{MemberPublish: &holdfastpb.MemberPublish{
			Id: uint64(m.id), Name: "m" + m.id.String(), ClientUrls: []string{"http://m" + m.id.String()}, Incarnation: uint64(m.id) * 1000,
		}}}, func(any, error) {})
	}
}

// confBegins and confApplied keep the checker from counting quorums while the
// voters change.
func (w *World) confBegins() {
	w.confs++
	w.check.Changing = true
}

func (w *World) confApplied(*Member) { w.confEnd = w.now }

const confQuiet = 3 * second

func (w *World) confLook() {
	w.after(second, w.confLook)
	pending := 0
	w.each(func(m *Member) {
		for _, o := range m.waiting { //tidy:ordered a count
			if o.change != nil {
				pending++
			}
		}
	})
	w.confs = pending
	if pending == 0 && w.now > w.confEnd+confQuiet {
		w.check.Changing = false
	}
}
