package sim

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"

	"github.com/holdfast-db/holdfast/internal/ident"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/tests/check"
)

// Result is what became of a scenario.
type Result struct {
	Seed         uint64
	Trace        uint64
	Simulated    int64 // Microseconds.
	Acknowledged int
	Checked      int // Requests and reads that were held against the model.
	Leaders      int
	Kinds        int    // Of faults that fired.
	Reason       string // Why it does not count; empty: it does.
	Counters     Counters
	Failure      *Failure
}

// Counts reports whether enough happened for the run to prove something.
func (r *Result) Counts() bool { return r.Reason == "" }

// Least that has to happen in a run that counts.
const (
	acknowledgedMin = 200
	kindsMin        = 3
)

// Options are where a run leaves what it makes.
type Options struct {
	Scratch string            // A folder for real files, best in memory.
	Log     func(line string) // Hears what happens, for people; may be nil.
	Tape    io.Writer         // Gets all that the trace is made of, to find where two runs part; may be nil.
}

// Run carries a scenario. Raft draws election timeouts from crypto/rand.Reader,
// so that a process makes one run at a time.
func Run(s *Scenario, o Options) (res *Result) {
	reader := rand.Reader
	rand.Reader = stream(s.Config.Seed, "elections")
	defer func() { rand.Reader = reader }()
	root, err := os.MkdirTemp(o.Scratch, "holdfast-sim-")
	if err != nil {
		return &Result{Seed: s.Config.Seed, Failure: &Failure{Text: err.Error()}}
	}
	defer os.RemoveAll(root)
	w := newBareWorld(s.Config, root, o)
	defer w.hookPlaces()()
	res = &Result{Seed: s.Config.Seed}
	defer func() {
		switch v := recover().(type) {
		case nil:
		case *Failure:
			res.Failure = v
		default:
			res.Failure = &Failure{At: w.now, Text: fmt.Sprintf("panic: %v\n%s", v, debug.Stack())}
		}
		w.close()
		w.fill(res)
	}()
	w.begin()
	for i := range s.Actions {
		a := s.Actions[i]
		w.at(a.At, func() { w.act(&a) })
	}
	w.run(s.Config.SafetyTime)
	w.liveness()
	return res
}

func (w *World) begin() {
	for i := range w.cfg.Voters {
		w.addMember(ident.MemberID(i+1), start).founding = true
	}
	for _, id := range w.ids {
		w.members[id].restart()
	}
	w.addClients()
	w.after(second, w.confLook)
	w.supervise()
}

func (w *World) act(a *Action) {
	if w.phase != safety {
		return
	}
	w.note(9, hashText(a.Kind), uint64(a.A), uint64(a.B))
	w.logf(nil, "%s for %s s (%d, %d): %s", a.Kind, clockText(a.For), a.A, a.B, faultName(a.Kind))
	faults[a.Kind].do(w, a)
}

// supervise starts what has stopped, as the init system of a machine does.
func (w *World) supervise() {
	w.after(100*millisecond, w.supervise)
	w.each(func(m *Member) {
		if !m.alive && m.gone == "" && !m.keptDown && m.promised != nil && w.now >= m.down+int64(200+w.chance.Below(800))*millisecond {
			m.restart()
		}
	})
}

func (w *World) fill(r *Result) {
	r.Trace, r.Simulated, r.Acknowledged, r.Checked = w.trace, w.now, w.acknowledged, w.shadow.reads+w.shadow.writes
	r.Leaders = w.check.Elections
	for id := range w.count.Faults { //tidy:ordered a count
		w.count.Kinds[id] = 1
	}
	r.Kinds = len(w.count.Faults)
	least, decided := acknowledgedMin, r.Acknowledged+w.count.Reached["read denied"]+w.count.Reached["write denied"]
	if w.cfg.Users > 0 {
		least /= 2 // Half of the clients come with tokens that are too old, or may do little.
	}
	for name, n := range w.check.Fired { //tidy:ordered sums
		w.count.Checks[name] += n
	}
	r.Counters = w.count
	switch {
	case w.cfg.Beyond:
	case decided < least:
		r.Reason = fmt.Sprintf("%d requests acknowledged or denied, %d needed", decided, least)
	case r.Kinds < kindsMin:
		r.Reason = fmt.Sprintf("%d kinds of faults, %d needed", r.Kinds, kindsMin)
	case w.cfg.Voters > 1 && r.Leaders < 2:
		r.Reason = "the leader never changed"
	case w.cfg.Voters == 1 && w.boots < 2:
		r.Reason = "the member never restarted"
	}
}

func (w *World) close() {
	w.each(func(m *Member) {
		if m.alive {
			m.halt()
		}
	})
}

// liveness heals a majority, which has to serve, and then everything.
func (w *World) liveness() {
	if w.cfg.Beyond {
		w.disaster()
		return
	}
	core := w.core()
	w.phase = majority
	w.net.calm()
	if core != nil {
		w.logf(nil, "a majority is healed: %v", core)
		w.healOnly(core)
		w.mustServe(core)
	}
	w.phase = healed
	w.logf(nil, "all is healed")
	w.healAll()
	w.mustAgree()
	w.quiesce()
	w.compareAll()
	w.restartAll()
	w.finalRead()
	w.restoreOne()
}

// disaster is what follows a fault budget that was overdrawn: all that can be
// healed is. Whatever answers is right, as before; where nobody leads, somebody
// says what is missing.
func (w *World) disaster() {
	w.phase = healed
	w.net.calm()
	w.healAll()
	w.run(20 * second)
	w.check.Fired["beyond"]++
	l := w.leader()
	if l != nil && l.shown.Settled {
		w.count.Reached["survived beyond the budget"]++
		return
	}
	told := 0
	w.each(func(m *Member) {
		if m.gone != "" && !m.removed || m.shown.Cut {
			w.logf(m.id, "is lost: %s (cut %v)", m.gone, m.shown.Cut)
			told++
		}
	})
	if told == 0 {
		w.fail("beyond: nobody leads, and nobody says why: %s", w.describe())
	}
	w.count.Reached["halted beyond the budget, and said why"]++
}

// core chooses a quorum that is intact; nil when it takes all. One that is down
// since a write of it was torn may find its log cut.
func (w *World) core() (ids []ident.MemberID) {
	voters := w.voters()
	for _, id := range voters {
		if m := w.members[id]; m.gone == "" && !m.excused && !m.shown.Cut && !m.disk.torn && len(ids) < len(voters)/2+1 {
			ids = append(ids, id)
		}
	}
	if len(ids) < len(voters)/2+1 || w.admin.busy() || w.confs > 0 {
		return nil
	}
	for _, id := range ids { // Who did not hear of a removal counts as before.
		known, chosen := w.members[id].shown.Voters, 0
		for _, v := range known {
			if slices.Contains(ids, v) {
				chosen++
			}
		}
		if chosen <= len(known)/2 {
			return nil
		}
	}
	return ids
}

func (m *Member) heal() {
	m.disk.full, m.disk.readOnly, m.disk.slow, m.disk.rules, m.disk.crashIn, m.disk.placesIn = false, false, 1, nil, 0, 0
	m.slow, m.pausedUntil, m.keptDown, m.crashLoop = 1, min(m.pausedUntil, m.w.now), false, 0
	m.wake()
	if m.clock.rate < -100_000 {
		m.clock.setRate(0)
	}
	if !m.alive && m.gone == "" && m.promised != nil {
		m.restart()
	}
}

// healOnly heals some, and cuts the others off.
func (w *World) healOnly(ids []ident.MemberID) {
	w.net.heal(w.ids)
	for _, a := range w.ids {
		for _, b := range w.ids {
			if a != b && slices.Contains(ids, a) != slices.Contains(ids, b) {
				w.net.cut(a, b, "N6")
			}
		}
	}
	for _, id := range ids {
		w.members[id].heal()
	}
}

func (w *World) healAll() {
	w.net.heal(w.ids)
	w.each(func(m *Member) { m.heal() })
}

// mustServe has a write succeed within five election timeouts (V1).
func (w *World) mustServe(ids []ident.MemberID) {
	served := false
	began := w.now
	for _, id := range ids {
		w.probe(w.members[id], func() { served = true }, func() bool { return served })
	}
	w.check.Fired["V1"]++
	if !w.runUntil(w.now+5*electionTime, func() bool { return served }) {
		w.fail("V1: a healed majority %v serves no write for 5 election timeouts: %s", ids, w.describe())
	}
	w.count.Reached[fmt.Sprintf("majority served within %d election timeouts", (w.now-began)/electionTime+1)]++
}

// probe puts again and again at one member, until something is through.
func (w *World) probe(m *Member, done func(), enough func() bool) {
	if enough() {
		return
	}
	if m.serves() {
		req := &pb.PutRequest{Key: []byte("probe"), Value: []byte(m.id.String() + " " + itoa(int(w.now)))}
		rec := len(w.history.Ops)
		w.history.Ops = append(w.history.Ops, check.Op{ID: rec + 1, Client: -1 - rec, Member: int(m.id), Call: w.now * 1000, Request: req})
		m.propose(w.asMember(w.command(req)), func(value any, err error) {
			o := &w.history.Ops[rec]
			o.Return = w.now*1000 + 1
			if o.Outcome, o.Error = w.outcomeOf(err); err == nil {
				o.Response = value.(*pb.PutResponse)
				done()
			}
		})
		m.settle()
	}
	w.after(200*millisecond, func() { w.probe(m, done, enough) })
}

// convergeTime bounds how long healed members take to agree.
const convergeTime = 60 * second

// mustAgree waits until all members are whole and have applied the same (V2).
func (w *World) mustAgree() {
	w.check.Fired["V2"]++
	if !w.runUntil(w.now+convergeTime, w.whole) {
		w.fail("V2: the healed cluster is not whole after 60 s, operator %+v: %s", w.admin, w.describe())
	}
}

// whole reports whether nobody is missing.
func (w *World) whole() bool {
	l := w.leader()
	if l == nil || w.admin.busy() || len(w.admin.tasks) > 0 {
		return false
	}
	for _, id := range append(slices.Clone(l.shown.Voters), l.shown.Learners...) {
		m := w.members[id]
		if !m.alive || m.shown.Cut || !m.ready || m.published+10 < l.published {
			return false
		}
	}
	return true
}

// quiesce ends the clients and waits until leases have run out, all members are
// at one index, and watchers have everything.
func (w *World) quiesce() {
	for _, c := range w.clients {
		c.quiet = true
	}
	calm := w.now
	if !w.runUntil(w.now+convergeTime, func() bool { return w.level() && w.watchersDone() }) {
		w.fail("V2: the healed cluster does not agree after 60 s: %s%s", w.describe(), w.lateWatchers())
	}
	// L3: six seconds are the longest lease; leadership may have been new.
	limit := calm + 6*second + 2*electionTime + second + 2*electionTime
	w.check.Fired["L3"]++
	if !w.runUntil(max(limit, w.now), func() bool { return len(w.shadow.model.Leases()) == 0 }) {
		w.fail("L3: leases %v that nobody renews are still there: %s", w.shadow.model.Leases(), w.describe())
	}
	if !w.runUntil(w.now+convergeTime, func() bool { return w.level() && w.watchersDone() }) {
		w.fail("V2: the quiet cluster does not agree after 60 s: %s%s", w.describe(), w.lateWatchers())
	}
}

// level reports whether all members stand at the same index.
func (w *World) level() bool {
	l := w.leader()
	if l == nil || !w.whole() {
		return false
	}
	for _, id := range append(slices.Clone(l.shown.Voters), l.shown.Learners...) {
		if w.members[id].published != l.shown.Last {
			return false
		}
	}
	return true
}

func (w *World) watchersDone() bool { return w.lateWatchers() == "" }

// lateWatchers names those that wait for something that happened (W11).
func (w *World) lateWatchers() string {
	w.check.Fired["W11"]++
	head := w.shadow.model.Revision()
	for _, c := range w.clients {
		for _, x := range c.watches {
			if x.next == 0 || x.next > head {
				continue
			}
			if missing := x.wanted(x.next, head); len(missing) > 0 {
				return fmt.Sprintf("\n  watcher of client %d at %d has not got %v", c.id, x.next, missing[0])
			}
		}
	}
	return ""
}

// compareAll compares all members (A1), and what base says of itself.
func (w *World) compareAll() {
	w.checkRights()
	l := w.leader()
	w.note(10, w.stateOf(l.replica.Store()))
	want, err := l.replica.Store().HashKV(context.Background(), 0)
	if err != nil {
		w.fail("hash of member %s: %v", l.id, err)
	}
	for _, id := range l.shown.Voters {
		m := w.members[id]
		store := m.replica.Store()
		got, err := store.HashKV(context.Background(), 0)
		w.check.Fired["A1 hash"]++
		if err != nil || got.Hash != want.Hash || got.Revision != want.Revision {
			if m.blame(err) == "" || err == nil {
				w.fail("A1: hash of member %s is %+v (%v), of the leader %+v", m.id, got, err, want)
			}
			continue
		}
		w.history.Hashes = append(w.history.Hashes, check.Hash{Member: int(m.id), Revision: int64(got.Revision), Compacted: int64(got.Compacted), Hash: got.Hash})
		if _, err := store.Base().Verify(context.Background(), nil); err != nil && m.blame(err) == "" {
			w.fail("S1: base of member %s: %v", m.id, err)
		}
	}
}

// restartAll has the power fail everywhere: what comes back has to be the same.
func (w *World) restartAll() {
	w.each(func(m *Member) {
		if m.alive {
			m.crash("idle")
		}
	})
	w.each(func(m *Member) {
		if m.gone == "" && m.promised != nil {
			m.restart()
		}
	})
	if !w.runUntil(w.now+convergeTime, w.level) {
		w.fail("S7: after a power cut of all the cluster does not agree: %s", w.describe())
	}
	w.compareAll()
}

// finalRead reads everything from every member.
func (w *World) finalRead() {
	all := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	for _, m := range w.alive() {
		answer, err := m.rangeOf(all)
		w.shadow.checkRange(m, all, answer, err)
		w.check.Fired["K2"]++
	}
	w.history.Log = w.shadow.model.Events(0, w.shadow.model.Revision())
	w.history.Head = w.shadow.model.Revision()
	r := check.Check(&w.history, check.Options{ClockError: 0.02})
	w.count.Checks["history"]++
	w.count.Reached["operations in checked histories"] += r.Counts.Ops
	w.count.Reached["events in checked histories"] += r.Counts.Events
	w.count.Reached["unknown outcomes in histories"] += r.Counts.Unknown
	if err := r.Err(); err != nil {
		w.fail("history: %v", err)
	}
}

// Scratch is a folder for the files of a run: in memory where there is one.
func Scratch() string {
	const memory = "/dev/shm"
	if info, err := os.Stat(memory); err == nil && info.IsDir() {
		return memory
	}
	return os.TempDir()
}
