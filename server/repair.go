package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/ident"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/raftnode/transport"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/server/replica"
	"github.com/holdfast-db/holdfast/statemachine/alarm"
)

// ErrDamaged means that a member stopped because its state is damaged, or not to
// be trusted. Started again it gets another from its peers.
var ErrDamaged = errors.New("state of this member is damaged")

var errNoRepair = errors.New("the state could not be replaced, nothing was changed; docs/operations/damage.md says what to do")

// openReplica opens the state, or replaces it when it is damaged: by one of
// another member, or where none gives one and the files can all be read, by a
// copy of itself (I-10).
//
// All of that happens before this member takes part in Raft, so it neither votes
// nor acknowledges on the ground of a state that it does not have. Log, hard
// state and identity stay.
func (s *Server) openReplica(ctx context.Context, b *boot, state replica.Config, recovered *wal.Recovered) (*replica.Replica, error) {
	damage := replica.Trusted(s.dir)
	if damage == nil {
		r, err := replica.Open(state, recovered.Notes)
		if !replica.IsDamage(err) && !errors.Is(err, fs.ErrNotExist) {
			return r, err
		}
		damage = err
	}
	s.log.Error("the state of this member can not be used", "error", damage)
	err := s.replaceFromPeers(ctx, b, state, recovered)
	if err != nil && ctx.Err() == nil {
		err = s.replaceByCopy(state, recovered, damage, err)
	}
	if err != nil {
		return nil, errors.Join(damage, err, errNoRepair)
	}
	r, err := replica.Open(state, recovered.Notes)
	if err != nil {
		return nil, fmt.Errorf("open the state that replaces a damaged one: %w", err)
	}
	if err := replica.Settle(s.dir); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	s.log.Info("the damaged state is replaced and set aside", "index", uint64(r.Store().Applied().Position.Index))
	return r, nil
}

// repairPeers finds the other members: those noted last, and those of the
// configuration, tell who is in the cluster now.
func (s *Server) repairPeers(ctx context.Context, b *boot) ([]transport.Peer, error) {
	var urls []string
	for _, p := range s.dir.Peers() {
		urls = append(urls, p.URLs...)
	}
	initial, err := parseInitialCluster(s.cfg.InitialCluster)
	if err != nil {
		return nil, err
	}
	for _, name := range names(initial) {
		for _, u := range initial[name] {
			if !slices.Contains(urls, u) && !slices.Contains(s.cfg.AdvertisePeerURLs, u) {
				urls = append(urls, u)
			}
		}
	}
	if len(urls) == 0 {
		return nil, errAlone
	}
	var peers []transport.Peer
	err = s.repeat(ctx, func() error {
		var failed []error
		for _, u := range urls {
			r, err := b.roster(ctx, u)
			if err == nil {
				if peers, err = s.peersIn(r); err == nil {
					return nil
				}
			}
			failed = append(failed, fmt.Errorf("%s: %w", u, err))
		}
		return fmt.Errorf("%w: %w", errNoPeer, errors.Join(failed...))
	})
	return peers, err
}

// peersIn are the others in a roster, if it is of this cluster.
func (s *Server) peersIn(r *transport.Roster) (peers []transport.Peer, err error) {
	if r.Cluster != s.id.Cluster || r.Timeline != s.id.Timeline {
		return nil, fmt.Errorf("it is of cluster %s on timeline %d: %w", r.Cluster, r.Timeline, transport.ErrCluster)
	}
	for _, m := range r.Members {
		if m.ID != s.id.Member {
			peers = append(peers, transport.Peer{ID: m.ID, URLs: m.PeerURLs, Incarnation: m.Incarnation})
		}
	}
	if len(peers) == 0 || slices.Contains(r.Removed, s.id.Member) {
		return nil, fmt.Errorf("it knows %d others, and this member as removed: %w", len(peers), transport.ErrRemoved)
	}
	return peers, nil
}

// repeat tries something until it succeeds or has taken too long: peers may be
// starting as this member is.
func (s *Server) repeat(ctx context.Context, try func() error) error {
	give := s.cfg.Clock.Mono() + s.cfg.RepairTimeout
	for warned := ""; ; {
		err := try()
		if err == nil || ctx.Err() != nil || s.cfg.Clock.Mono() > give {
			return errors.Join(err, ctx.Err())
		}
		if text := err.Error(); text != warned {
			warned = text
			s.log.Warn("no state from a peer yet, trying again", "error", err)
		}
		select {
		case <-s.cfg.Clock.After(repairPause):
		case <-ctx.Done():
		}
	}
}

// replaceFromPeers fetches the state of one of the peers and compares it with
// another.
func (s *Server) replaceFromPeers(ctx context.Context, b *boot, state replica.Config, recovered *wal.Recovered) error {
	peers, err := s.repairPeers(ctx, b)
	if err != nil {
		return err
	}
	t, err := transport.New(transport.Config{
		Identity: s.transportIdentity(), URLs: s.cfg.AdvertisePeerURLs, TLS: b.peerDialTLS,
		Clock: s.cfg.Clock, Logger: s.log,
		Roster: func() *transport.Roster {
			return &transport.Roster{Cluster: s.id.Cluster, Timeline: s.id.Timeline, Answerer: s.id.Member}
		},
	})
	if err != nil {
		return err
	}
	defer t.Close()
	t.SetPeers(peers)
	return s.repeat(ctx, func() error {
		var failed []error
		for _, p := range peers {
			err := s.replaceFrom(ctx, t, state, recovered, p.ID, peers)
			if err == nil {
				return nil
			}
			failed = append(failed, err)
		}
		return errors.Join(failed...)
	})
}

func (s *Server) replaceFrom(ctx context.Context, t *transport.Transport, state replica.Config, recovered *wal.Recovered, from ident.MemberID, peers []transport.Peer) error {
	var staged *replica.Staged
	err := t.FetchState(ctx, from, func(rd io.Reader) (err error) {
		staged, err = replica.Fetch(state, s.id, recovered.Notes, rd)
		return err
	})
	if err == nil {
		var others []ident.MemberID
		for _, p := range peers {
			if p.ID != from {
				others = append(others, p.ID)
			}
		}
		err = confirmWith(ctx, s.core, others, staged.State(), t.Ask)
	}
	if err == nil {
		// When this fails CURRENT may name the new generation already. The next
		// start sees which of them is in force, and tidies up.
		return staged.Replace(recovered, s.wal)
	}
	if staged != nil {
		err = errors.Join(err, staged.Discard())
	}
	return err
}

// replaceByCopy is the way out where no peer gives a state: this member is alone,
// or the same happened to all. What could not be written or synced is gone for
// good or can still be read: then every byte of it is verified, and written anew.
// A state that is damaged, or differed from others, stays where it is.
func (s *Server) replaceByCopy(state replica.Config, recovered *wal.Recovered, damage, noPeer error) error {
	if m, found, err := s.dir.Mark(); err != nil || !found || m.Diverged || !errors.Is(damage, replica.ErrUntrusted) {
		return errors.Join(noPeer, err)
	}
	staged, err := replica.Copy(state, s.id, recovered.Notes)
	if err != nil {
		return errors.Join(noPeer, fmt.Errorf("copy of the state that is here: %w", err))
	}
	s.log.Warn("no peer gives a state, the one that is here was read without a fault and is written anew", "reason", noPeer)
	return staged.Replace(recovered, s.wal)
}

var errAlone = errors.New("this member is the only one, there is nobody to get a state from")

// damaged stops this member because of what was found in its state, and has it
// replaced at the next start. A member that is alone goes on when it can: what
// is intact is all that there is. It tells whether the member stops.
func (s *Server) damaged(err error, diverged bool) (stops bool) {
	if !replica.IsDamage(err) && !diverged {
		return false
	}
	if len(s.replica.Machine.Members.List()) < 2 && !replica.IsFailedWrite(err) {
		s.log.Error("the state of this member is damaged, and it is the only one: save a snapshot of what can be read", "error", err)
		return false
	}
	s.fenced.Store(true)
	if markErr := s.replica.Distrust(err, diverged); markErr != nil {
		s.log.Error("the state of this member could not be marked as damaged", "error", markErr)
	}
	s.fail(fmt.Errorf("%w, another is fetched at the next start: %w", ErrDamaged, err))
	return true
}

// disarm takes back the alarm that was raised because this member differed from
// a quorum, now that it has a state that does not.
func (s *Server) disarm(ctx context.Context) error {
	m, found, err := s.dir.Mark()
	if err != nil || !found || !m.Diverged || replica.Trusted(s.dir) != nil {
		return err
	}
	if s.replica.Machine.Alarms.Has(alarm.Alarm{Member: s.id.Member, Kind: alarm.Corrupt}) {
		ctx, cancel := context.WithTimeout(ctx, s.timeout())
		defer cancel()
		_, err := s.setAlarm(asMember(ctx), &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: uint64(s.id.Member), Alarm: pb.AlarmType_CORRUPT})
		if err != nil {
			return err
		}
		s.log.Info("this member has another state now, disarmed the alarm CORRUPT that was raised for it")
	}
	return s.dir.Unmark()
}

// keepPeers notes the other members after each change.
func (s *Server) keepPeers(ctx context.Context) error {
	for {
		select {
		case <-s.regrouped:
			s.notePeers()
		case <-ctx.Done():
			return nil
		}
	}
}

// notePeers keeps where the others listen, for the day on which the state that
// says so can not be read.
func (s *Server) notePeers() {
	var list []datadir.Peer
	for _, m := range s.replica.Machine.Members.List() {
		if id := ident.MemberID(m.Id); id != s.id.Member {
			list = append(list, datadir.Peer{ID: id, URLs: m.PeerUrls})
		}
	}
	if slices.EqualFunc(list, s.dir.Peers(), func(a, b datadir.Peer) bool { return a.ID == b.ID && slices.Equal(a.URLs, b.URLs) }) {
		return
	}
	if err := s.dir.SetPeers(list); err != nil {
		s.log.Warn("the other members could not be noted", "error", err)
	}
}
