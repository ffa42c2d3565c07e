package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine/auth"
)

// leaseService answers etcdserverpb.Lease.
type leaseService struct {
	pb.UnimplementedLeaseServer
	*core
}

func (s *leaseService) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	if err := s.permit(ctx, anybody); err != nil {
		return nil, toWire(err)
	}
	id := r.ID
	for id == 0 {
		drawn, err := s.random()
		if err != nil {
			return nil, toWire(err)
		}
		id = int64(drawn & math.MaxInt64)
	}
	v, err := s.propose(ctx, &holdfastpb.Command{Command: &holdfastpb.Command_LeaseGrant{
		LeaseGrant: &holdfastpb.LeaseGrant{Id: id, Ttl: max(r.TTL, s.leaseTTLMin())},
	}})
	if err != nil {
		return nil, toWire(err)
	}
	answer := v.(*pb.LeaseGrantResponse)
	s.fill(answer.Header)
	return answer, nil
}

// leaseTTLMin in seconds: a lease must outlive an election.
func (c *core) leaseTTLMin() int64 {
	return int64(math.Ceil((c.cfg.ElectionTimeout * 3 / 2).Seconds()))
}

func (s *leaseService) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	if err := s.permit(ctx, anybody); err != nil {
		return nil, toWire(err)
	}
	v, err := s.propose(ctx, &holdfastpb.Command{Command: &holdfastpb.Command_LeaseRevoke{
		LeaseRevoke: &holdfastpb.LeaseRevoke{Id: r.ID},
	}})
	if err != nil {
		return nil, toWire(err)
	}
	answer := v.(*pb.LeaseRevokeResponse)
	s.fill(answer.Header)
	return answer, nil
}

// LeaseKeepAlive renews what the client asks for. It does not wait for the next
// request when the member stops, or the stream has to end for want of a leader.
func (s *leaseService) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	ctx := stream.Context()
	asked, ended := make(chan int64), make(chan error, 1)
	// Nobody waits for the group: Recv returns only after this handler has.
	group := task.New(ctx)
	defer group.Stop()
	group.Go("lease requests", func(ctx context.Context) error {
		for {
			r, err := stream.Recv()
			if err != nil {
				ended <- err
				return nil
			}
			select {
			case asked <- r.ID:
			case <-ctx.Done():
				return nil
			}
		}
	})
	for {
		select {
		case id := <-asked:
			if err := s.renewFor(stream, id); err != nil {
				return toWire(err)
			}
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-s.hub.Done():
			return errStopped
		case <-ctx.Done():
			return toWire(ctx.Err())
		}
	}
}

// renewFor answers one request of a stream.
func (s *leaseService) renewFor(stream pb.Lease_LeaseKeepAliveServer, id int64) (err error) {
	// The header is of before the renewal: a client must not see a renewal at a
	// revision at which the lease was gone already.
	answer := &pb.LeaseKeepAliveResponse{Header: s.header(), ID: id}
	if err := s.permitLease(stream.Context(), id, auth.Write); err != nil {
		return err
	}
	if answer.TTL, err = s.renew(stream.Context(), ident.LeaseID(id)); err != nil {
		return err
	}
	return stream.Send(answer)
}

// renew asks the leader, and asks again until the request times out: leaders
// come and go, and a lease must not be lost for that.
func (s *leaseService) renew(ctx context.Context, id ident.LeaseID) (ttlSeconds int64, err error) {
	err = s.atLeader(ctx, func(ctx context.Context) error {
		ttlSeconds, err = s.renewHere(ctx, id)
		return err
	}, func(ctx context.Context, leader ident.MemberID) error {
		reply, err := s.transport.Ask(ctx, leader, askLeaseRenew, binary.BigEndian.AppendUint64(nil, uint64(id)))
		if err == nil && len(reply) != 8 {
			err = fmt.Errorf("lease renewal answered with %d bytes", len(reply))
		}
		if err == nil {
			ttlSeconds = int64(binary.BigEndian.Uint64(reply))
		}
		return err
	})
	return ttlSeconds, err
}

// renewHere renews on the leader, once a quorum has confirmed that it is that.
func (c *core) renewHere(ctx context.Context, id ident.LeaseID) (int64, error) {
	for {
		asked := c.cfg.Clock.Mono()
		if err := c.linearize(ctx); err != nil {
			return 0, err
		}
		if c.cfg.Clock.Mono()-asked > c.cfg.ElectionTimeout {
			// That a quorum followed when it was asked says nothing of now: while this
			// process stood still another leader may have begun to count.
			continue
		}
		// Another may have confirmed the read, and the keeper not know yet that it leads.
		changed := c.node.StatusChanged()
		if st := c.node.Status(); st.Leader != c.id.Member {
			return 0, errNotLeader
		}
		ttl, gone, leading := c.keeper.Renew(id)
		if !leading {
			return 0, errNotLeader
		}
		if gone == nil {
			c.metrics.renewed.Add(1)
			return ttl, nil
		}
		select { // It has run out: wait until it is taken away, then it is not there.
		case <-gone:
		case <-changed: // Another leader gives it its full time again.
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (s *leaseService) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	if err := s.permit(ctx, anybody); err != nil {
		return nil, toWire(err)
	}
	answer := &pb.LeaseTimeToLiveResponse{ID: r.ID, TTL: -1}
	id := ident.LeaseID(r.ID)
	err := s.atLeader(ctx, func(ctx context.Context) (err error) {
		answer.TTL, answer.GrantedTTL, err = s.timeToLiveHere(ctx, id)
		return err
	}, func(ctx context.Context, leader ident.MemberID) error {
		reply, err := s.transport.Ask(ctx, leader, askLeaseTimeToLive, binary.BigEndian.AppendUint64(nil, uint64(id)))
		if err != nil {
			return err
		}
		if len(reply) != 16 {
			return fmt.Errorf("time to live answered with %d bytes", len(reply))
		}
		answer.TTL = int64(binary.BigEndian.Uint64(reply))
		answer.GrantedTTL = int64(binary.BigEndian.Uint64(reply[8:]))
		return nil
	})
	if err != nil {
		return nil, toWire(err)
	}
	if r.Keys && answer.TTL >= 0 {
		if answer.Keys, err = s.leaseKeys(ctx, id); err != nil {
			return nil, toWire(err)
		}
		if err := s.permitKeys(ctx, answer.Keys); err != nil {
			return nil, toWire(err)
		}
	}
	answer.Header = s.header()
	return answer, nil
}

func (c *core) timeToLiveHere(ctx context.Context, id ident.LeaseID) (remaining, granted int64, err error) {
	if err := c.linearize(ctx); err != nil {
		return 0, 0, err
	}
	remaining, granted, ok, leading := c.keeper.Remaining(id)
	switch {
	case !leading:
		return 0, 0, errNotLeader
	case !ok:
		return -1, 0, nil
	}
	return remaining, granted, nil
}

func (c *core) leaseKeys(ctx context.Context, id ident.LeaseID) ([][]byte, error) {
	if err := c.linearize(ctx); err != nil {
		return nil, err
	}
	store, err := c.replica.Use()
	if err != nil {
		return nil, err
	}
	defer store.Release()
	v := store.View()
	defer v.Release()
	return v.LeaseKeys(id)
}

func (s *leaseService) LeaseLeases(ctx context.Context, _ *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	answer := &pb.LeaseLeasesResponse{Header: s.header()}
	for _, id := range s.keeper.List() {
		answer.Leases = append(answer.Leases, &pb.LeaseStatus{ID: int64(id)})
	}
	err := s.permit(ctx, func(a *auth.Asker) error {
		err := anybody(a) // Also without leases.
		for i := 0; i < len(answer.Leases) && err == nil; i++ {
			err = a.Lease(answer.Leases[i].ID, auth.Read)
		}
		return err
	})
	if err != nil {
		return nil, toWire(err)
	}
	return answer, nil
}

// Questions of members, drawn in docs/format/peer.md. The first three are for
// the leader.
const (
	askLeaseRenew      uint8 = 1
	askLeaseTimeToLive uint8 = 2
	askPromote         uint8 = 3
	askClock           uint8 = 4
	askDigests         uint8 = 5
	askClaim           uint8 = 6
	askHash            uint8 = 7
)

// answerPeer answers what another member asks.
func (c *core) answerPeer(ctx context.Context, _ ident.MemberID, kind uint8, data []byte) ([]byte, error) {
	if kind == askClock {
		return binary.BigEndian.AppendUint64(nil, uint64(c.cfg.Clock.Wall().UnixNano())), nil
	}
	if len(data) != 8 {
		return nil, fmt.Errorf("question %d has %d bytes, want 8", kind, len(data))
	}
	id := binary.BigEndian.Uint64(data)
	switch kind {
	case askLeaseRenew:
		ttl, err := c.renewHere(ctx, ident.LeaseID(id))
		return binary.BigEndian.AppendUint64(nil, uint64(ttl)), err
	case askLeaseTimeToLive:
		remaining, granted, err := c.timeToLiveHere(ctx, ident.LeaseID(id))
		reply := binary.BigEndian.AppendUint64(nil, uint64(remaining))
		return binary.BigEndian.AppendUint64(reply, uint64(granted)), err
	case askDigests:
		return c.answerDigests(ident.Index(id)), nil
	case askClaim:
		return c.answerClaim(ident.Index(id))
	case askHash:
		return c.answerHash(ctx, ident.Revision(id))
	case askPromote:
		return c.promoteForPeer(ctx, ident.MemberID(id))
	}
	return nil, fmt.Errorf("question of kind %d is not known to this version", kind)
}

// atLeader runs here if this member leads, else there, and tries again when
// leadership moves, until the request times out.
func (c *core) atLeader(ctx context.Context, here func(context.Context) error, there func(context.Context, ident.MemberID) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout())
	defer cancel()
	for {
		st := c.node.Status()
		err := error(errNoLeader)
		switch {
		case st.Leader == c.id.Member:
			err = here(ctx)
		case st.Leader != 0:
			err = c.askLeader(ctx, st.Leader, there)
		}
		if err == nil || !retryAtLeader(err) {
			return err
		}
		select {
		case <-c.cfg.Clock.After(leaderRetryInterval):
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			if err == errNoLeader {
				return err
			}
			return errTimeout
		}
	}
}

const leaderRetryInterval = 50 * time.Millisecond

// askLeader asks for as long as that member leads. One that stands still answers
// only when its connection is given up, long after another has taken its place.
func (c *core) askLeader(ctx context.Context, leader ident.MemberID, there func(context.Context, ident.MemberID) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer c.asking.add(cancel)()
	if c.node.Status().Leader != leader {
		return errNotLeader // Whoever tells of it may have done so before there was a question.
	}
	err := there(ctx, leader)
	if err != nil && context.Cause(ctx) == errNotLeader {
		return errNotLeader
	}
	return err
}
