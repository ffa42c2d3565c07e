// Package server is a member of the cluster as clients see it: the gRPC
// services of the etcd v3 protocol, plain HTTP beside them, and the assembly of
// everything below into something that starts and stops.
//
// A request goes down only: service (one file each) checks it, guard.go says
// whether it may be made, propose.go puts a write into the log, read.go waits
// until a read may look; the answer comes back in the words of errors.go.
//
// Programs embed a member with Start and Close; cmd/holdfast does the same.
// What a crash leaves is said by the packages below; boot.go joins it.
package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/frontdoor"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/watch"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/transport"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/server/keeper"
	"github.com/holdfast-db/holdfast/server/replica"
)

// Server is a running member.
//
// It has a field for each thing that Close must end.
type Server struct {
	*core
	group *task.Group
	ends  *task.Group // Of goroutines that end the member: they wait for the others.

	dir       *datadir.Dir
	wal       *wal.Log
	logOf     atomic.Pointer[raftnode.Node] // Hears of checkpoints, once it runs.
	swapped   chan struct{}                 // Holds a token after a snapshot brought another store.
	replaced  chan struct{}                 // The same, for who cleans up after it.
	regrouped chan struct{}                 // Holds one after the members changed.
	door      *frontdoor.Door
	grpc      *grpc.Server
	inside    *inside
	direct    direct
	gateway   *jsonGateway // Nil when it is turned off.
	http      *http.Server
	clients   []frontdoor.Port // Taken, but not served before there is a quorum.

	metricsServer *http.Server
	admin         *http.Server          // Nil: there is no socket for it.
	tracer        *trace.TracerProvider // Nil where tracing is off.

	stopping atomic.Bool
	ready    chan struct{} // Closed once clients are served.
	stopped  chan struct{} // Closed once everything has ended.
	end      struct {
		sync.Once
		err error
	}
}

// Start brings a member up. It returns once everything that can be wrong with
// configuration and data directory is known and the listeners are open; Ready
// tells when clients are served, which takes a quorum.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &Server{
		core: &core{
			cfg: cfg, log: cfg.Logger, leaderless: newCancels(), asking: newCancels(), calls: newCalls(cfg.ExtensiveMetrics), archive: archiving{begun: make(chan struct{})},
			metrics: newMetrics(), epoch: newEpochFence(cfg.Clock, cfg.EpochStrict()),
		},
		group:     task.New(context.Background()),
		ends:      task.New(context.Background()),
		ready:     make(chan struct{}),
		stopped:   make(chan struct{}),
		swapped:   make(chan struct{}, 1),
		replaced:  make(chan struct{}, 1),
		regrouped: make(chan struct{}, 1),
	}
	s.regrouped <- struct{}{}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.closeParts())
	}
	s.group.Go("server", s.supervise)
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	var err error
	if s.dir, err = datadir.Open(s.cfg.FS, s.cfg.DataDir); err != nil {
		return err
	}
	if err := s.dir.MayStart(); err != nil {
		return err
	}
	if s.who, err = newIdentities(&s.cfg); err != nil {
		return err
	}
	clientTLS, err := s.certificates(s.cfg.ClientTLS, "client", s.cfg.clientURLs())
	if err != nil {
		return fmt.Errorf("TLS for clients: %w", err)
	}
	peerTLS, err := s.certificates(s.cfg.PeerTLS, "peer", s.cfg.peerURLs())
	if err != nil {
		return fmt.Errorf("TLS for peers: %w", err)
	}
	b := &boot{cfg: s.cfg, dir: s.dir, peerDialTLS: peerTLS.dialing(), random: s.random}
	recovered, err := s.openState(ctx, b)
	if err != nil {
		return err
	}
	if err := s.defragmentAtStart(ctx); err != nil {
		return err
	}
	if err := s.startRaft(b, recovered, peerTLS); err != nil {
		return err
	}
	s.metrics.watchMember(s.core)
	s.openAdmin()
	if err := s.openArchive(ctx); err != nil {
		return err
	}
	if err := s.startTracing(ctx); err != nil {
		return err
	}
	return s.openClients(clientTLS)
}

// openState opens, or makes, what the member keeps on disk.
func (s *Server) openState(ctx context.Context, b *boot) (*wal.Recovered, error) {
	state := replica.Config{
		FS: s.cfg.FS, Dir: s.dir, Clock: s.cfg.Clock, Logger: s.cfg.Logger,
		WALDir: s.cfg.WALDir, WALBytes: s.cfg.WALSegmentBytes, QuotaBytes: s.cfg.QuotaBytes, OnCheckpoint: s.checkpointed,
		HeldBytesMax: s.cfg.ArchiveLimitBytes + s.cfg.ArchiveLimitBytes/4, // It lets go in whole segments, and not at once.
	}
	id, p, err := b.identify(ctx)
	if err != nil {
		return nil, err
	}
	if p != nil {
		if err := replica.Create(state, p.id, p.members); err != nil {
			return nil, err
		}
	} else if err := s.dir.MendIdentity(id); err != nil {
		return nil, err
	}
	s.id = id
	s.keeper = keeper.New(s.cfg.Clock, s.cfg.ElectionTimeout)
	var recovered *wal.Recovered
	switch s.wal, recovered, err = wal.Open(state.WAL()); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: where this member's log lies, if not there, is said by --wal-dir", err)
	case err != nil:
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	if err := replica.OwnLog(s.wal, recovered, id, state.WAL().Dir); err != nil {
		return nil, err
	}
	if s.replica, err = s.openReplica(ctx, b, state, recovered); err != nil {
		return nil, err
	}
	s.onDamage = func(err error) { s.damaged(err, false) }
	s.replica.OnDamage = s.onDamage
	s.replica.Machine.Leases.Watch(leaseCounts{s.keeper, s.metrics})
	s.metrics.granted.Store(0) // What was there is not granted now.
	s.replica.Machine.Auth.Watch(s.who.simple)
	s.hub = watch.NewHub(watch.Config{Bytes: int(s.cfg.ClientBufferBytes / 2), Clock: s.cfg.Clock, Logger: s.log}, s.replica.Store())
	s.replica.OnStore = func(store *mvcc.Store) {
		s.hub.Swap(store)
		select {
		case s.swapped <- struct{}{}:
		default:
		}
		select {
		case s.replaced <- struct{}{}:
		default:
		}
	}
	s.replica.OnMembers = func() {
		s.tellTransport()
		select {
		case s.regrouped <- struct{}{}:
		default:
		}
	}
	return recovered, nil
}

func (s *Server) startRaft(b *boot, recovered *wal.Recovered, tls *certificates) error {
	var err error
	s.transport, err = transport.New(transport.Config{
		Identity:    s.transportIdentity(),
		URLs:        s.cfg.AdvertisePeerURLs,
		TLS:         b.peerDialTLS,
		Clock:       s.cfg.Clock,
		Logger:      s.log,
		Roster:      s.roster,
		Answer:      s.answerStarted,
		State:       s.giveState,
		HTTP:        s.peerHTTP(),
		OnRefused:   s.refused,
		OnRoundTrip: s.metrics.roundTripOf,
	})
	if err != nil {
		return err
	}
	for _, u := range s.cfg.ListenPeerURLs {
		l, secure, err := s.listen(u, tls)
		if err != nil {
			return fmt.Errorf("listen for peers on %s: %w", u, err)
		}
		s.transport.Listen(l, secure)
	}
	applied, err := s.replica.Applied()
	if err != nil {
		return err
	}
	s.node, err = raftnode.Start(raftnode.Config{
		ID:                s.id.Member,
		StateMachine:      &timedMachine{s.replica, s},
		Applied:           applied,
		Log:               &timedLog{s.wal, s.cfg.Clock, s.metrics, &s.archive.syncTakes},
		Recovered:         recovered,
		Network:           s.transport,
		Clock:             s.cfg.Clock,
		Random:            s.cfg.Rand,
		Confirm:           s.confirm,
		Logger:            s.log,
		HeartbeatInterval: s.cfg.HeartbeatInterval,
		ElectionTimeout:   s.cfg.ElectionTimeout,
		CatchUpEntries:    s.cfg.SnapshotCatchUpEntries,
		RequestBytesMax:   s.cfg.RequestBytesMax,
		RequestTimeout:    s.timeout(),
	})
	if err != nil {
		return err
	}
	s.logOf.Store(s.node)
	s.tellTransport()
	s.transport.Start(s.node)
	return nil
}

func (s *Server) transportIdentity() transport.Identity {
	return transport.Identity{Cluster: s.id.Cluster, Timeline: s.id.Timeline, Member: s.id.Member, Incarnation: s.id.Incarnation}
}

// giveState freezes the state for a member whose own is damaged.
func (s *Server) giveState() (transport.StateSource, error) {
	if s.fenced.Load() {
		return nil, errDiverged
	}
	f, err := s.replica.Freeze()
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Ready is closed once clients are served.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Done is closed once the member has ended, for whatever reason.
func (s *Server) Done() <-chan struct{} { return s.stopped }

// Err tells why the member ended by itself; nil after Close.
func (s *Server) Err() error {
	select {
	case <-s.stopped:
		return s.end.err
	default:
		return nil
	}
}

// MemberID of this member.
func (s *Server) MemberID() ident.MemberID { return s.id.Member }

// ClientAddrs are the addresses that clients are served on, useful with port 0.
func (s *Server) ClientAddrs() []string {
	addrs := make([]string, len(s.clients))
	for i, l := range s.clients {
		addrs[i] = l.Addr().String()
	}
	return addrs
}

// supervise ends the member when one of its parts does.
func (s *Server) supervise(ctx context.Context) error {
	s.group.Go("publish", s.publish)
	s.group.Go("tokens", s.who.simple.sweep)
	s.group.Go("leadership", s.watchLeadership)
	s.group.Go("lease expiry", s.expireLeases)
	s.group.Go("clocks", s.compareClocks)
	s.group.Go("digests", s.compareDigests)
	s.group.Go("applied", s.compareApplied)
	if s.cfg.LearnerAutoPromote {
		s.group.Go("promote learners", s.promoteLearners)
	}
	if s.cfg.CorruptCheckTime > 0 {
		s.group.Go("compare hashes", s.checkHashes)
	}
	if s.cfg.CompactHashCheck {
		s.group.Go("compare hashes of compactions", s.checkCompactions)
	}
	s.group.Go("note peers", s.keepPeers)
	s.group.Go("scrub", s.scrub)
	s.group.Go("clean up", s.cleanUp)
	if s.archive.store != nil {
		s.group.Go("archive", s.archiveAll)
		if s.epoch.on {
			s.group.Go("epoch", func(ctx context.Context) error { return s.watchEpoch(ctx, s.archive.store) })
		}
	}
	if keep, _ := parseRetention(s.cfg.AutoCompactionMode, s.cfg.AutoCompactionRetention); keep != (retention{}) { // Validate has seen the error.
		s.group.Go("auto compaction", (&compactor{core: s.core, keep: keep}).run)
	}
	err := s.failure(ctx)
	if err == nil {
		return nil
	}
	reason := s.replica.Store().Err()
	if reason == nil && replica.IsUnreadable(err) {
		reason = err
	}
	if reason == nil || !s.damaged(reason, false) { // Marked before anything else.
		s.fail(err)
	}
	return nil
}

// fail ends the member because of an error.
func (s *Server) fail(err error) {
	s.log.Error("member stops", "error", err)
	s.ends.Go("stop", func(context.Context) error { s.stop(err); return nil })
}

// failure waits until a part fails; nil when the member is stopping anyway.
func (s *Server) failure(ctx context.Context) error {
	for {
		store := s.replica.Store()
		select {
		case <-ctx.Done():
			if s.stopping.Load() {
				return nil
			}
			return context.Cause(ctx) // One of our own goroutines failed, and so ended the others.
		case <-s.node.Done():
			return s.node.Err()
		case <-s.hub.Done():
			if s.stopping.Load() {
				return nil
			}
			return fmt.Errorf("watch: %w", s.hub.Close())
		case <-store.Failed():
			if s.replica.Store() == store { // What becomes of one that was replaced is no matter.
				return store.Err()
			}
		case <-s.swapped:
		}
	}
}

// Close stops the member: clients are told, leadership is handed over, and
// what is in memory is made durable. It waits, and may be called often.
func (s *Server) Close() error {
	s.stop(nil)
	<-s.stopped
	return nil
}

func (s *Server) stop(why error) {
	s.end.Do(func() {
		s.end.err = why
		s.end.err = errors.Join(why, s.closeParts())
		close(s.stopped)
	})
}

// closeParts ends everything in reverse order of its start. A member that did
// not get far has only some of the parts.
func (s *Server) closeParts() error {
	var errs []error
	s.stopping.Store(true)
	began := s.cfg.Clock.Mono()
	if s.node != nil {
		s.node.HandOver() // While clients are served: they wait for no election, and what they asked goes on to the next.
	}
	s.group.Stop()
	s.direct.close()
	s.closeClients(max(stopTimeout-(s.cfg.Clock.Mono()-began), stopTimeoutMin))
	s.stopTracing()
	if s.node != nil {
		errs = append(errs, s.node.Close())
	}
	s.direct.under.Wait() // Whatever waited for the node has its answer.
	if s.hub != nil {
		errs = append(errs, s.hub.Close())
	}
	// Nobody may still write into the directory when its lock is given back. What
	// failed in the group is the reason of this end, if anything did.
	_ = s.group.Wait()
	if s.transport != nil {
		errs = append(errs, s.transport.Close())
	}
	if s.replica != nil {
		errs = append(errs, s.replica.Close())
	}
	if s.wal != nil {
		errs = append(errs, s.wal.Close())
	}
	if s.archive.store != nil {
		errs = append(errs, s.archive.store.Close())
	}
	if s.dir != nil {
		errs = append(errs, s.dir.Close())
	}
	return errors.Join(errs...)
}

// checkpointed tells the log what no longer needs it. A store that is being
// received, or was replaced, makes checkpoints too: the log is not theirs.
func (s *Server) checkpointed(generation int, c mvcc.Checkpoint) {
	node := s.logOf.Load()
	if node == nil {
		return
	}
	if note, inForce := s.replica.Note(generation, c); inForce {
		node.Checkpointed(c.Index, note)
	}
}

// tellTransport says who is in the cluster.
func (s *Server) tellTransport() {
	var peers []transport.Peer
	for _, m := range s.replica.Machine.Members.List() {
		peers = append(peers, transport.Peer{ID: ident.MemberID(m.Id), URLs: m.PeerUrls, Incarnation: m.Incarnation})
	}
	s.transport.SetPeers(peers)
	s.transport.SetRemoved(s.replica.Machine.Members.RemovedIDs())
}

// answerStarted answers what another member asks, once there is a log to ask.
func (s *Server) answerStarted(ctx context.Context, from ident.MemberID, kind uint8, data []byte) ([]byte, error) {
	if s.logOf.Load() == nil {
		return nil, errNotLeader
	}
	answer, err := s.answerPeer(ctx, from, kind, data)
	if err != nil && !isStatus(err) { // Its text would be all that arrives, and end what another try can do.
		s.log.Debug("question of a member has no answer now", "from", from, "kind", kind, "error", err)
		err = errNoLeader
	}
	return answer, err
}

func (s *Server) roster() *transport.Roster {
	r := &transport.Roster{Cluster: s.id.Cluster, Timeline: s.id.Timeline, Answerer: s.id.Member, Removed: s.replica.Machine.Members.RemovedIDs()}
	for _, m := range s.replica.Machine.Members.List() {
		r.Members = append(r.Members, transport.RosterMember{
			ID: ident.MemberID(m.Id), Name: m.Name, PeerURLs: m.PeerUrls, ClientURLs: m.ClientUrls,
			Learner: m.IsLearner, Incarnation: m.Incarnation,
		})
	}
	return r
}

// refused hears that a peer would not talk to this member. Some reasons are
// final: then going on would only confuse.
func (s *Server) refused(by ident.MemberID, err error) {
	switch {
	case errors.Is(err, transport.ErrRemoved):
		s.node.ReportRemoved()
	case errors.Is(err, transport.ErrIncarnation):
		s.ends.Go("stop", func(context.Context) error { s.stop(fmt.Errorf("refused by member %s: %w", by, err)); return nil })
	}
}

// Timeline of the cluster's history: each restore and recovery begins another.
func (s *Server) Timeline() ident.Timeline { return s.id.Timeline }

// Collect has /metrics tell of the program that embeds the member, too.
func (s *Server) Collect(c prometheus.Collector) error { return s.metrics.registry.Register(c) }

// IsLeader tells whether this member leads, as far as it knows.
func (s *Server) IsLeader() bool { return s.node.Status().Leader == s.id.Member }
