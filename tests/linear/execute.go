package linear

import (
	"context"
	"fmt"
	"sync"
	"time"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/tests/check"
)

// result is what came of a run.
type result struct {
	Scenario   Scenario
	History    *check.History
	Counts     map[string]int // Faults that took effect, by kind.
	Changes    int            // Of the leader.
	Operations int
	During     int           // Operations acknowledged while there were faults.
	Serving    time.Duration // From the end of all faults to the first acknowledged write.
	Stalled    time.Duration // The longest that the harness itself stood still.
	Violations []string      // What the harness has seen itself.
	Report     *check.Report
	Phases     []phase
}

// phase is how long a part of a run lasted.
type phase struct {
	name string
	took time.Duration
}

func (p phase) String() string { return fmt.Sprintf("%s %v", p.name, p.took) }

func (r *result) phase(name string, from time.Time) time.Time {
	now := time.Now()
	r.Phases = append(r.Phases, phase{name, now.Sub(from).Round(10 * time.Millisecond)})
	return now
}

// execute does a scenario from the first start to the last comparison. Its
// error means that the harness could not do its work; what the cluster did
// wrong stands in the result.
func execute(ctx context.Context, env *environment, s Scenario) (res *result, dir string, err error) {
	r := newRun(env, s)
	defer func() {
		dir = r.dir
		if e := r.close(); err == nil {
			err = e
		}
	}()
	res = &result{Scenario: s}
	start := time.Now()
	if err := r.open(ctx); err != nil {
		return nil, "", err
	}
	res.phase("start", start)
	r.work = workloads[s.Workload](r)
	if err := r.drive(ctx, res); err != nil {
		return nil, "", err
	}
	for _, w := range r.watchers {
		w.end(r.shadow.at())
	}
	r.grepLogs()
	res.Stalled = r.stalls.ever()
	res.History = r.rec.history(r.shadow.log(), r.shadow.at())
	res.Operations, res.Counts, res.Changes = len(res.History.Ops), r.counts, int(r.terms.Load())
	if r.work.finish != nil {
		r.work.finish()
	}
	res.Violations = r.rec.violations
	return res, "", nil
}

// drive has clients, watchers and nemeses at work, and brings them to an end in
// the order in which the last ones can be judged.
func (r *run) drive(ctx context.Context, res *result) error {
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	var watchers, guards, clients sync.WaitGroup
	defer watchers.Wait()
	defer stopWatching()
	if err := r.startWatchers(watching, &watchers); err != nil {
		return err
	}
	guarding, stopGuarding := context.WithCancel(ctx)
	defer guards.Wait()
	defer stopGuarding()
	guards.Go(func() { r.supervise(guarding) })
	watchers.Go(func() { r.observe(watching) })
	if r.work.setup != nil {
		if err := r.prepare(ctx); err != nil {
			return err
		}
	}
	working, stopWorking := context.WithCancel(ctx)
	defer clients.Wait()
	defer stopWorking()
	if err := r.startClients(working, &clients); err != nil {
		return err
	}
	r.serve(ctx, 3*beforeMin)

	start, from := time.Now(), r.rec.now()
	faulty, calm := context.WithCancel(ctx)
	guards.Go(func() { r.endFaults(faulty, calm, from) })
	r.attack(faulty)
	res.During = r.rec.acknowledged(from, r.rec.now())
	start = res.phase("faults", start)
	r.stalls.reset()
	r.revive(ctx, res)
	start = res.phase("revive", start)
	r.serve(ctx, 3*afterMin)
	stopWorking()
	clients.Wait()
	stopGuarding()
	guards.Wait()
	defer func() { res.phase("compare", start) }()
	return r.compare(ctx)
}

// serve lets clients work until so many of their requests were acknowledged, or
// it takes too long.
func (r *run) serve(ctx context.Context, want int) {
	from := r.rec.now()
	for sleep(ctx, warmUp); ctx.Err() == nil; sleep(ctx, 100*time.Millisecond) {
		now := r.rec.now()
		if r.rec.acknowledged(from, now) >= want || time.Duration(now-from) > serveMax {
			return
		}
	}
}

const serveMax = 10 * time.Second

// endFaults ends the faults when they have lasted as long as they should, when
// enough was served meanwhile to prove something, and when each nemesis has acted.
func (r *run) endFaults(ctx context.Context, calm context.CancelFunc, from int64) {
	defer calm()
	for ctx.Err() == nil {
		now := r.rec.now()
		if faultsAreOver(time.Duration(now-from), r.s.Faults, r.rec.acknowledged(from, now), len(r.idle())) {
			return
		}
		sleep(ctx, 200*time.Millisecond)
	}
}

// faultsAreOver also where little is served or a nemesis cannot act, in the end.
func faultsAreOver(lasted, faults time.Duration, acknowledged, idle int) bool {
	if lasted >= faultsStretch*faults {
		return true
	}
	return lasted >= faults && acknowledged >= duringEnough && (idle == 0 || lasted >= faults+idleMax)
}

const (
	duringEnough  = 2 * duringMin
	faultsStretch = 6
	idleMax       = 25 * time.Second // A loaded machine may need as long for what takes a second or two.
)

// idle are the nemeses that have not acted yet.
func (r *run) idle() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range r.s.Nemeses {
		if r.counts[name] == 0 {
			names = append(names, name)
		}
	}
	return names
}

// prepare does the setup of the workload, before there are any faults.
func (r *run) prepare(ctx context.Context) error {
	c, err := r.newClient(adminID + 2)
	if err != nil {
		return err
	}
	defer c.close()
	for try := 0; ; try++ {
		if err = r.work.setup(ctx, c); err == nil || try == 20 {
			return err
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

func (r *run) startClients(ctx context.Context, all *sync.WaitGroup) error {
	for i := range clientsMax {
		c, err := r.newClient(i)
		if err != nil {
			return err
		}
		all.Go(func() {
			defer c.close()
			for ctx.Err() == nil {
				r.work.step(ctx, c)
				sleep(ctx, time.Duration(c.rng.Int63n(int64(2*paceMean))))
			}
		})
	}
	return nil
}

// startWatchers starts those that feed the shadow, some of each kind, and what
// the workload wants.
func (r *run) startWatchers(ctx context.Context, all *sync.WaitGroup) error {
	rng := seedOf(r.s, "watchers")
	everything := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 1}
	var list []follower
	for i := range 2 {
		list = append(list, follower{name: fmt.Sprintf("shadow %d", i), req: everything})
	}
	for i := range 3 {
		list = append(list, follower{name: fmt.Sprintf("watcher %d", i)})
	}
	if r.work.follow != nil {
		list = append(list, r.work.follow()...)
	}
	for i, f := range list {
		late := f.req == nil
		if late {
			f.req = watchKinds(rng, r.work.prefix, 1)
		}
		w, err := r.newWatcher(f.name, watcherID+i, f.req)
		if err != nil {
			return err
		}
		w.each = f.each
		if i < 2 {
			w.id, w.feed = shadowID+i, r.shadow
		}
		r.watchers = append(r.watchers, w)
		delay := time.Duration(0)
		if late && rng.Intn(2) == 0 {
			delay = time.Duration(rng.Int63n(int64(r.s.Faults)))
		}
		all.Go(func() {
			if sleep(ctx, delay); delay > 0 {
				w.req = watchKinds(w.rng, r.work.prefix, r.shadow.at())
			}
			w.follow(ctx)
		})
	}
	return nil
}

// revive waits until everybody serves again, and for how long nobody did.
func (r *run) revive(ctx context.Context, res *result) {
	from, start := r.rec.now(), time.Now()
	deadline := start.Add(servingLimit)
	for time.Now().Before(deadline) {
		_, err := r.admin.at(ctx, r.admin.rng.Intn(len(r.places)), put("harness/served", r.admin.value()))
		if err == nil {
			break
		}
		sleep(ctx, 20*time.Millisecond)
	}
	res.Serving = time.Since(start)
	if stalled, void := r.stalls.void(); res.Serving >= servingLimit && !void {
		r.rec.violate("no write succeeded for %v after all faults had ended (the harness stalled for %v at most)", res.Serving, stalled)
	}
	ready, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for i, p := range r.places {
		if err := r.untilServing(ready, i); err != nil {
			r.rec.violate("member %s does not serve %v after all faults had ended: %v", p.Name, readyLimit, err)
		}
	}
	r.rec.span("harness", "everything heals", from, false)
}

// servingLimit leaves room for processes that start on a busy machine.
const servingLimit = 20*time.Second + 5*electionTimeout

// untilServing waits until a member answers a linearizable read as a voter.
func (r *run) untilServing(ctx context.Context, i int) (err error) {
	for ctx.Err() == nil {
		if _, err = r.admin.at(ctx, i, get("harness/served")); err == nil {
			return nil
		}
		sleep(ctx, 50*time.Millisecond)
	}
	return err
}

// compare reads everything from each member, has all members restart from
// their disks alone, and reads again. Watchers look on until the end.
func (r *run) compare(ctx context.Context) error {
	head, err := r.readAll(ctx)
	if err != nil {
		return nil // Said already.
	}
	r.judgeWatchers(head)
	r.hashes(ctx, head)
	r.checkMembers(ctx)
	r.checkBackups(ctx)
	r.restart(ctx)
	ready, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for i, p := range r.places {
		if err := r.untilServing(ready, i); err != nil {
			r.rec.violate("member %s does not serve after a restart of all from their disks: %v", p.Name, err)
			return nil
		}
	}
	after, err := r.readAll(ctx)
	if err != nil {
		return nil
	}
	if after < head {
		r.rec.violate("the revision was %d, and is %d after a restart of all from their disks", head, after)
	}
	r.hashes(ctx, head)
	r.hashes(ctx, after)
	r.judgeWatchers(after)
	return nil
}

// readAll reads everything from each member and returns the newest revision.
// The reads are in the history, so what they find is checked there.
func (r *run) readAll(ctx context.Context) (head int64, err error) {
	for i, p := range r.places {
		var res any
		for end := time.Now().Add(readyLimit); ; sleep(ctx, 200*time.Millisecond) {
			res, err = r.admin.at(ctx, i, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
			if err == nil || time.Now().After(end) {
				break
			}
		}
		if err != nil {
			r.rec.violate("member %s does not read out what it has: %v", p.Name, err)
			return 0, err
		}
		head = max(head, res.(*pb.RangeResponse).Header.Revision)
	}
	return head, nil
}

// checkMembers asks each member who belongs to the cluster: all places, as
// voters, whoever was replaced meanwhile.
func (r *run) checkMembers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for i, p := range r.places {
		res, err := r.admin.wires[i].group.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
		if err != nil {
			r.rec.violate("member %s does not list the members: %v", p.Name, err)
			continue
		}
		for _, q := range r.places {
			if idOf(res.Members, q.PeerURL) == 0 {
				r.rec.violate("member %s does not know of %s: %v", p.Name, q.Name, res.Members)
			}
		}
		for _, m := range res.Members {
			if m.IsLearner || len(res.Members) != len(r.places) {
				r.rec.violate("member %s lists %d members, of them %v", p.Name, len(res.Members), m)
			}
		}
	}
}

// judgeWatchers gives every watcher time to see all there is.
func (r *run) judgeWatchers(head int64) {
	if err := r.shadow.reach(head, reachLimit); err != nil {
		r.rec.violate("%v", err)
		return
	}
	deadline := time.Now().Add(reachLimit)
	for _, w := range r.watchers {
		for !w.reached(head) && time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond)
		}
		if !w.reached(head) {
			r.rec.violate("%s has seen everything up to revision %d, of %d, %v after all faults had ended: %v", w.name, w.mark.Load(), head, reachLimit, w.req)
		}
	}
}

// hashes asks each member for the hash at a revision, until all answer as of
// the same compaction: others cannot be compared. That they are equal is the
// checkers' business.
func (r *run) hashes(ctx context.Context, rev int64) {
	var err error
	for range 20 {
		var list []check.Hash
		if list, err = r.hashAll(ctx, rev); err == nil {
			for _, h := range list {
				r.rec.hash(h)
			}
			return
		}
		sleep(ctx, 200*time.Millisecond)
	}
	r.rec.violate("no hashes of all members at revision %d: %v", rev, err)
}

func (r *run) hashAll(ctx context.Context, rev int64) (list []check.Hash, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for i, p := range r.places {
		res, err := r.admin.wires[i].admin.HashKV(ctx, &pb.HashKVRequest{Revision: rev})
		if err != nil {
			return nil, fmt.Errorf("member %s: %w", p.Name, err)
		}
		h := check.Hash{Member: r.memberAt(i), Revision: res.HashRevision, Compacted: res.CompactRevision, Hash: res.Hash}
		if len(list) > 0 && list[0].Compacted != h.Compacted {
			return nil, fmt.Errorf("member %s has dropped history up to %d, another up to %d", p.Name, h.Compacted, list[0].Compacted)
		}
		list = append(list, h)
	}
	return list, nil
}

// restart kills all members at once and starts them on what their disks have.
func (r *run) restart(ctx context.Context) {
	from := r.rec.now()
	r.cluster.KillAll()
	for _, p := range r.places {
		if err := p.Start(); err != nil {
			r.rec.violate("member %s does not start again: %v", p.Name, err)
		}
	}
	r.rec.span("harness", "everybody restarts", from, false)
}
