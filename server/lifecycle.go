package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/internal/build"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode"
)

// publish makes this member known to the cluster, then serves clients.
func (s *Server) publish(ctx context.Context) error {
	select {
	case <-s.node.Ready():
	case <-ctx.Done():
		return nil
	}
	for {
		err := s.publishOnce(ctx)
		if err == nil {
			err = s.disarm(ctx)
		}
		if err == nil {
			break
		}
		if ctx.Err() != nil || errors.Is(err, raftnode.ErrStopped) {
			return nil
		}
		s.log.Warn("could not publish this member, trying again", "error", err)
		select {
		case <-s.cfg.Clock.After(publishPause):
		case <-ctx.Done():
			return nil
		}
	}
	if s.cfg.InitialCorruptCheck {
		if err := s.checkAtBoot(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
	s.serveClients()
	s.log.Info("ready to serve client requests", "cluster-id", s.id.Cluster, "member-id", s.id.Member, "name", s.cfg.Name, "urls", s.cfg.AdvertiseClientURLs, "version", build.Version())
	close(s.ready)
	return nil
}

// publishPause keeps a member that is refused at once from asking all the time.
const publishPause = time.Second

func (s *Server) publishOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	if s.replica.Machine.Cluster() == nil {
		if err := s.initCluster(ctx); err != nil {
			return err
		}
	}
	if m := s.replica.Machine.Members.Get(s.id.Member); m != nil && m.Incarnation == s.id.Incarnation && m.Name == s.cfg.Name && sameURLs(m.ClientUrls, s.cfg.AdvertiseClientURLs) {
		return nil
	}
	_, err := s.proposeCommand(ctx, &holdfastpb.Command{Command: &holdfastpb.Command_MemberPublish{MemberPublish: &holdfastpb.MemberPublish{
		Id: uint64(s.id.Member), Name: s.cfg.Name, ClientUrls: s.cfg.AdvertiseClientURLs, Incarnation: s.id.Incarnation,
	}}})
	return err
}

// initCluster proposes the first command of the cluster. Each member may; the
// first one to be committed counts.
func (s *Server) initCluster(ctx context.Context) error {
	uuid := make([]byte, 16)
	if _, err := s.cfg.Rand.Read(uuid); err != nil {
		return err
	}
	_, err := s.proposeCommand(ctx, &holdfastpb.Command{Command: &holdfastpb.Command_ClusterInit{ClusterInit: &holdfastpb.ClusterInit{
		Uuid: uuid, ClusterId: uint64(s.id.Cluster), Version: majorMinor(s.cfg.ProtocolVersion),
	}}})
	return err
}

func (c *core) proposeCommand(ctx context.Context, cmd *holdfastpb.Command) (any, error) {
	data, err := cmd.MarshalVT()
	if err != nil {
		return nil, err
	}
	return c.node.Propose(ctx, data)
}

// watchLeadership follows who leads: the keeper of leases counts only while
// this member does, questions to one who does not lead any more end, and streams
// that need a leader end when there is none.
func (s *Server) watchLeadership(ctx context.Context) error {
	var last, asked ident.MemberID
	var vacant vacancy
	tick := s.cfg.Clock.NewTicker(s.cfg.HeartbeatInterval)
	defer tick.Stop()
	for {
		changed := s.node.StatusChanged()
		st := s.node.Status()
		if st.Leader != last && st.Leader != 0 {
			s.metrics.leaderChanges.Add(1)
			s.log.Info("leader changed", "leader", st.Leader, "term", uint64(st.Term))
			last = st.Leader
		}
		if st.Leader != asked {
			s.asking.all(errNotLeader)
			asked = st.Leader
		}
		if st.Leader == s.id.Member && st.Role == raftnode.Leader {
			s.keeper.Lead(st.Term)
		} else {
			s.keeper.Follow()
		}
		if vacant.lasts(st.Leader, s.cfg.Clock.Mono(), leaderlessElections*s.cfg.ElectionTimeout) {
			s.leaderless.all(errNoLeader)
		}
		select {
		case <-changed:
		case <-tick.C():
		case <-ctx.Done():
			return nil
		}
	}
}

// vacancy is the time since when nobody leads.
type vacancy struct {
	began bool
	since time.Duration
}

// lasts tells whether it goes on for longer than that.
func (v *vacancy) lasts(leader ident.MemberID, now, bound time.Duration) bool {
	switch {
	case leader != 0:
		v.began = false
	case !v.began:
		v.began, v.since = true, now
	}
	return v.began && now-v.since > bound
}

// expireLeases proposes the end of leases that have run out. The entry names
// the term in which this member found so, and is nothing in another.
func (s *Server) expireLeases(ctx context.Context) error {
	return every(ctx, s.cfg.Clock, expiryInterval, func() {
		ids, term := s.keeper.Due()
		if len(ids) == 0 {
			return
		}
		c := &holdfastpb.LeaseExpire{Term: uint64(term)}
		for _, id := range ids {
			c.Ids = append(c.Ids, int64(id))
		}
		s.group.Go("expire leases", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, s.timeout())
			defer cancel()
			_, err := s.proposeCommand(ctx, &holdfastpb.Command{Command: &holdfastpb.Command_LeaseExpire{LeaseExpire: c}})
			if err == nil {
				s.metrics.expired.Add(int64(len(ids)))
			} else {
				s.keeper.Retry(ids)
				s.log.Warn("could not expire leases, trying again", "count", len(ids), "error", err)
			}
			return nil
		})
	})
}

// cancels knows what must end when leadership changes.
type cancels struct {
	mu    sync.Mutex
	next  int
	known map[int]context.CancelCauseFunc
}

func newCancels() *cancels { return &cancels{known: map[int]context.CancelCauseFunc{}} }

func (c *cancels) add(cancel context.CancelCauseFunc) (remove func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	id := c.next
	c.known[id] = cancel
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.known, id)
	}
}

func (c *cancels) all(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cancel := range c.known { //tidy:ordered all are canceled
		cancel(cause)
	}
}

// cleanUp gives back the space of generations that were replaced: at start, and
// when a snapshot was installed.
func (s *Server) cleanUp(ctx context.Context) error {
	for {
		if err := s.replica.Clean(); err != nil {
			s.log.Warn("could not delete generations that are not in use, trying again after the next snapshot", "error", err)
		}
		select {
		case <-s.replaced:
		case <-ctx.Done():
			return nil
		}
	}
}
