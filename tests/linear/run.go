// Package linear attacks clusters of real processes and has everything judged
// that clients saw meanwhile.
//
// A run is one cluster of three or five members, each in a network namespace of
// its own where that can be made, behind proxies on loopback elsewhere. Eight
// clients work on it, each with a connection to every member and without
// retries; watchers follow, are cut off and go on at other members. Nemeses
// (the table in nemesis.go) do harm, mostly two or three at the same time, drawn
// from a seed. Each takes back what it did, so when the last has ended the
// cluster must serve again, and all members must agree: on every key, on hashes,
// on who is a member, and once more when all were killed and started on what
// their disks have.
//
// What is written down is a history of tests/check. The order of the revisions
// is known from the shadow: watchers from revision 1 on several members, kept
// whole through every compaction, which therefore never goes beyond what the
// shadow has. An answer that did not come is unknown, and so is every error
// that is not certain to have had no effect (client.go lists those that are).
//
// Limits on time hold only if the harness itself got the processor; a run with
// too little traffic fails; a member that ends, complains as for an operator,
// or panics fails the run, unless its disk was made to fail.
//
// Crashed runs leave nothing: processes die with the test, and namespaces and
// mounts are listed by name and swept by the next run (tests/network).
package linear

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/tests/cluster"
	"github.com/holdfast-db/holdfast/tests/fusefs"
	"github.com/holdfast-db/holdfast/tests/network"
)

// Scenario is what a run does. It and a commit say all that a replay needs,
// but for the mood of the machine.
type Scenario struct {
	Seed     int64
	Members  int
	Workload string
	Nemeses  []string
	Faults   time.Duration // How long there are faults.
	Loopback bool          // Without namespaces, also where there could be.
}

func (s Scenario) String() string {
	text := fmt.Sprintf("seed %d, %d members, workload %s, nemeses %s", s.Seed, s.Members, s.Workload, strings.Join(s.Nemeses, ","))
	if s.Loopback {
		text += ", on loopback"
	}
	return text
}

// replay is the command that runs it again.
func (s Scenario) replay() string {
	return fmt.Sprintf("go test ./tests/linear -v -run TestHistories -seed %d -members %d -workload %s -nemesis %s -faults %v -loopback=%t",
		s.Seed, s.Members, s.Workload, strings.Join(s.Nemeses, ","), s.Faults, s.Loopback)
}

const (
	clientsMax      = 8
	electionTimeout = 500 * time.Millisecond
	ttlMin          = 1 // Seconds, that shorter leases are raised to with this election timeout.

	warmUp     = 500 * time.Millisecond // Before the faults, and after, at least.
	paceMean   = 7 * time.Millisecond   // Between two requests of a client.
	readyLimit = time.Minute            // For all members after everything is healed.
	reachLimit = time.Minute            // For watchers to see everything.
)

// run is one cluster under attack.
type run struct {
	s   Scenario
	env *environment
	dir string

	rec     *recorder
	shadow  *shadow
	stalls  *stalls
	mesh    *network.Mesh
	cluster *cluster.Cluster
	secure  *tls.Config
	places  []*place
	work    work

	watchers []*watcher
	admin    *client // For what the harness itself asks.

	damage chan struct{} // Held by who takes the disk of a member: one at a time.
	leads  atomic.Int64  // Place of the leader, -1 when nobody is known to lead.
	terms  atomic.Int64  // How often that changed.

	mu      sync.Mutex
	counts  map[string]int // Faults that took effect.
	backups []backup
}

// place is where a member lives, and what state it is in.
type place struct {
	*cluster.Member
	claim      chan struct{} // Held by who stops or starts the process.
	generation atomic.Int64  // Grows when another member takes the place.
	excused    atomic.Bool   // Its disk fails: it may end by itself.
	fs         *fusefs.FS    // Its disk, if that can fail.
	small      string        // Its small disk's mount point, if that can be full.
	ends       int           // How often it has ended by itself. Owned by supervise.
}

// memberAt is the number of the member at a place in the history.
func (r *run) memberAt(i int) int { return i + 100*int(r.places[i].generation.Load()) }

// count notes that a fault took effect.
func (r *run) count(kind string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[kind]++
}

func newRun(env *environment, s Scenario) *run {
	r := &run{s: s, env: env, rec: newRecorder(), counts: map[string]int{}, damage: make(chan struct{}, 1)}
	r.shadow = newShadow(r.rec)
	r.stalls = watchStalls()
	r.leads.Store(-1)
	return r
}

// needs of all its nemeses together.
func (s Scenario) needs() (all need) {
	for _, name := range s.Nemeses {
		all |= nemeses[name].needs
	}
	return all
}

// open makes the network, the disks, the members, and starts them.
func (r *run) open(ctx context.Context) (err error) {
	if r.dir, err = os.MkdirTemp(r.env.dir, "run"); err != nil {
		return err
	}
	needs, spaces := r.s.needs(), r.env.spaces
	if r.s.Loopback {
		spaces = nil
	}
	r.mesh, err = network.New(network.Config{Members: r.s.Members, Proxied: needs&needsProxies != 0, Names: spaces})
	if err != nil {
		return err
	}
	r.cluster, err = cluster.NewAt(r.dir, r.env.bin, r.mesh.Places(),
		"--heartbeat-interval=50", fmt.Sprintf("--election-timeout=%d", electionTimeout.Milliseconds()),
		"--snapshot-catchup-entries=200", "--watch-progress-notify-interval=1s")
	if err != nil {
		return err
	}
	if r.secure, err = r.cluster.ClientTLS(); err != nil {
		return err
	}
	for _, m := range r.cluster.Members {
		r.places = append(r.places, &place{Member: m, claim: make(chan struct{}, 1)})
	}
	r.mesh.Processes(func(i int) int { return r.places[i].PID() })
	if err := r.makeDisks(needs); err != nil {
		return err
	}
	if needs&needsSkew != 0 {
		program, err := r.env.skewed(ctx)
		if err != nil {
			return err
		}
		for _, p := range r.places {
			p.UseSkewed(program)
		}
	}
	if err := r.cluster.StartAll(ctx); err != nil {
		return err
	}
	r.admin, err = r.newClient(adminID)
	return err
}

// IDs of clients in the history beyond those that do the work.
const (
	adminID   = 90
	shadowID  = 100
	watcherID = 110
)

// close ends everything that open began.
func (r *run) close() error {
	if r.admin != nil {
		r.admin.close()
	}
	if r.cluster != nil {
		for _, m := range r.cluster.Members {
			m.Signal(syscall.SIGCONT) // A stopped process dies too, but its disk must not wait for it.
		}
		r.cluster.KillAll()
	}
	err := r.removeDisks()
	if r.mesh != nil {
		err = errors.Join(err, r.mesh.Close())
	}
	r.stalls.stop()
	return err
}

// claim takes a place for who is going to stop and start its process.
func (r *run) claim(i int) bool {
	select {
	case r.places[i].claim <- struct{}{}:
		return true
	default:
		return false
	}
}

func (r *run) release(i int) { <-r.places[i].claim }

// leader is the place of the leader, or any.
func (r *run) leader(rng *rand.Rand) int {
	if i := r.leads.Load(); i >= 0 {
		return int(i)
	}
	return rng.Intn(len(r.places))
}

// others are all places but one, in random order.
func (r *run) others(rng *rand.Rand, but int) []int {
	return slices.DeleteFunc(rng.Perm(len(r.places)), func(i int) bool { return i == but })
}

// seedOf gives each part of a run a stream of its own.
func seedOf(s Scenario, part string) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s", s.Seed, part)
	return rand.New(rand.NewSource(int64(h.Sum64())))
}

// attack runs the nemeses, each on its own, until ctx ends and each has healed
// what it did.
func (r *run) attack(ctx context.Context) {
	var all sync.WaitGroup
	for _, name := range r.s.Nemeses {
		all.Go(func() {
			a := &attack{run: r, name: name, rng: seedOf(r.s, name)}
			n := nemeses[name]
			sleep(ctx, time.Duration(a.rng.Intn(600))*time.Millisecond)
			for ctx.Err() == nil {
				from := r.rec.now()
				a.text = ""
				if n.round(ctx, a) {
					r.count(name)
					r.rec.span(name, a.text, from, true)
				}
				a.breathe(ctx)
			}
		})
	}
	all.Wait()
}

// breathe lets some time pass between two rounds. Mostly there are answers in
// between, for a cluster that never serves proves nothing; but not always.
func (a *attack) breathe(ctx context.Context) {
	from, before := a.rec.now(), a.rec.acked.Load()
	if a.rng.Intn(4) > 0 {
		for a.rec.acked.Load() < before+breatheAnswers && time.Duration(a.rec.now()-from) < breatheMax && ctx.Err() == nil {
			sleep(ctx, 20*time.Millisecond)
		}
	}
	a.wait(ctx, 200, 1000)
}

const (
	breatheAnswers = 15
	breatheMax     = 8 * time.Second
)

// supervise starts members again that have ended by themselves, and says so if
// they had no reason to.
func (r *run) supervise(ctx context.Context) {
	for ; ctx.Err() == nil; sleep(ctx, 100*time.Millisecond) {
		for i, p := range r.places {
			if !r.claim(i) {
				continue
			}
			if !p.Running() {
				p.ends++
				// A new member that reaches nobody says so and ends; it has nothing yet.
				if !p.excused.Load() && !p.Said("no member of the cluster answers") {
					r.rec.violate("member %s has ended by itself", p.Name)
				}
				if err := p.Start(); err != nil {
					r.rec.violate("member %s does not start: %v", p.Name, err)
				}
				sleep(ctx, time.Duration(min(p.ends, 10))*100*time.Millisecond)
			}
			r.release(i)
		}
	}
}

// observe follows who leads. While nobody does, that is said again every
// second: no lease runs out meanwhile, and the checkers know times only by what
// begins.
func (r *run) observe(ctx context.Context) {
	from, text := r.rec.now(), ""
	end := func() {
		if text != "" {
			r.rec.span("leader", text, from, false)
		}
	}
	var last uint64
	for ; ctx.Err() == nil; sleep(ctx, 100*time.Millisecond) {
		place, term := r.findLeader(ctx)
		r.leads.Store(int64(place))
		now := "nobody"
		if place >= 0 {
			now = fmt.Sprintf("%s term %d", r.places[place].Name, term)
			if last != 0 && term != last {
				r.terms.Add(1)
			}
			last = term
		}
		if now != text || place < 0 && time.Duration(r.rec.now()-from) > time.Second {
			end()
			from, text = r.rec.now(), now
		}
	}
	end()
}

// findLeader asks all members at once; the highest term that has a leader counts.
func (r *run) findLeader(ctx context.Context) (place int, term uint64) {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	var all sync.WaitGroup
	answers := make([]*pb.StatusResponse, len(r.places))
	for i := range r.places {
		all.Go(func() {
			if res, err := r.admin.wires[i].admin.Status(ctx, &pb.StatusRequest{}); err == nil {
				answers[i] = res
			}
		})
	}
	all.Wait()
	place = -1
	for i, a := range answers {
		if a != nil && a.Leader == a.Header.MemberId && a.RaftTerm > term {
			place, term = i, a.RaftTerm
		}
	}
	return place, term
}

// backup is a snapshot that was saved while there were faults.
type backup struct{ file string }

func (r *run) path(name string) string { return filepath.Join(r.dir, name) }

// stalls notices when the harness itself does not get the processor: limits on
// time mean nothing then.
type stalls struct {
	quit    chan struct{}
	longest atomic.Int64 // Since reset.
	worst   atomic.Int64 // Ever.
}

// stallMax is what makes a limit on time void.
const stallMax = 200 * time.Millisecond

func watchStalls() *stalls {
	s := &stalls{quit: make(chan struct{})}
	go func() { // Ends with stop.
		const each = 20 * time.Millisecond
		tick := time.NewTicker(each)
		defer tick.Stop()
		last := time.Now()
		for {
			select {
			case <-tick.C:
			case <-s.quit:
				return
			}
			now := time.Now()
			late := int64(now.Sub(last) - each)
			s.longest.Store(max(late, s.longest.Load()))
			s.worst.Store(max(late, s.worst.Load()))
			last = now
		}
	}()
	return s
}

// reset forgets what was, so that the next stretch is judged on its own.
func (s *stalls) reset() { s.longest.Store(0) }

// void tells whether limits on time mean nothing since reset.
func (s *stalls) void() (time.Duration, bool) {
	d := time.Duration(s.longest.Load())
	return d, d > stallMax
}

func (s *stalls) ever() time.Duration { return time.Duration(s.worst.Load()) }

func (s *stalls) stop() { close(s.quit) }
