package server

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/holdfast-db/holdfast/internal/ident"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/transport"
	"github.com/holdfast-db/holdfast/statemachine"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

// clusterService answers etcdserverpb.Cluster. Its headers have no revision.
type clusterService struct {
	pb.UnimplementedClusterServer
	*core
}

func (s *clusterService) MemberAdd(ctx context.Context, r *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	urls, err := memberURLs(r.PeerURLs)
	if err != nil {
		return nil, err
	}
	if err := s.permit(ctx, onlyRoot); err != nil {
		return nil, toWire(err)
	}
	if err := s.mayAdd(r.IsLearner); err != nil {
		return nil, err
	}
	id := member.AddedID(urls, s.cfg.Clock.Wall().Unix())
	v, err := s.changeMembers(ctx, &holdfastpb.Command{Command: &holdfastpb.Command_MemberAdd{MemberAdd: &holdfastpb.MemberAdd{
		Member:      &holdfastpb.Member{Id: uint64(id), PeerUrls: urls, IsLearner: r.IsLearner},
		LearnersMax: uint32(s.cfg.LearnersMax),
	}}})
	if err != nil {
		return nil, err
	}
	return &pb.MemberAddResponse{Header: s.headerWithoutRevision(), Member: v.(*pb.Member), Members: s.members()}, nil
}

func (s *clusterService) MemberRemove(ctx context.Context, r *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	if err := s.permit(ctx, onlyRoot); err != nil {
		return nil, toWire(err)
	}
	if err := s.mayRemove(ident.MemberID(r.ID)); err != nil {
		return nil, err
	}
	_, err := s.changeMembers(ctx, &holdfastpb.Command{Command: &holdfastpb.Command_MemberRemove{
		MemberRemove: &holdfastpb.MemberRemove{Id: r.ID},
	}})
	if err != nil {
		return nil, err
	}
	return &pb.MemberRemoveResponse{Header: s.headerWithoutRevision(), Members: s.members()}, nil
}

func (s *clusterService) MemberUpdate(ctx context.Context, r *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	if err := checkMemberURLs(r.PeerURLs); err != nil {
		return nil, err
	}
	if err := s.permit(ctx, onlyRoot); err != nil {
		return nil, toWire(err)
	}
	_, err := s.changeMembers(ctx, &holdfastpb.Command{Command: &holdfastpb.Command_MemberUpdate{
		MemberUpdate: &holdfastpb.MemberUpdate{Id: r.ID, PeerUrls: r.PeerURLs},
	}})
	if err != nil {
		return nil, err
	}
	return &pb.MemberUpdateResponse{Header: s.headerWithoutRevision(), Members: s.members()}, nil
}

func (s *clusterService) MemberList(ctx context.Context, r *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	if r.Linearizable {
		if err := s.linearize(ctx); err != nil {
			return nil, toWire(err)
		}
	}
	if err := s.permit(ctx, anybody); err != nil {
		return nil, toWire(err)
	}
	return &pb.MemberListResponse{Header: s.headerWithoutRevision(), Members: s.members()}, nil
}

// MemberPromote is decided by the leader, which alone knows how far a learner is.
func (s *clusterService) MemberPromote(ctx context.Context, r *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	// The leader carries it out as its own: whether the caller may is decided here,
	// by users and roles that are not older than the call.
	allowed := func(ctx context.Context) error {
		if err := s.linearize(ctx); err != nil {
			return err
		}
		return toWire(s.permit(ctx, onlyRoot)) // A refusal is final: as a status it is not tried again.
	}
	id := ident.MemberID(r.ID)
	err := s.atLeader(ctx, func(ctx context.Context) error {
		if err := allowed(ctx); err != nil {
			return err
		}
		err := s.promoteHere(ctx, id)
		if !errors.Is(err, errNotLeader) { // Then another decides, and counts.
			s.promoted(err)
		}
		return err
	}, func(ctx context.Context, leader ident.MemberID) error {
		if err := allowed(ctx); err != nil {
			return err
		}
		reply, err := s.transport.Ask(ctx, leader, askPromote, binary.BigEndian.AppendUint64(nil, r.ID))
		if err != nil {
			return err
		}
		return promoteRefusal(reply)
	})
	if err != nil {
		return nil, toWire(err)
	}
	return &pb.MemberPromoteResponse{Header: s.headerWithoutRevision(), Members: s.members()}, nil
}

// refusals of a promotion, as one byte of the answer to the member that asked.
var refusals = []error{nil, member.ErrNotFound, member.ErrNotLearner, errLearnerNotReady, errNotLeader}

func promoteRefusal(reply []byte) error {
	if len(reply) != 1 || int(reply[0]) >= len(refusals) {
		return errTimeout
	}
	return refusals[reply[0]]
}

func (c *core) promoteForPeer(ctx context.Context, id ident.MemberID) ([]byte, error) {
	err := c.promoteHere(ctx, id)
	for i, refusal := range refusals {
		if errors.Is(err, refusal) {
			return []byte{byte(i)}, nil
		}
	}
	return nil, err
}

func (c *core) promoteHere(ctx context.Context, id ident.MemberID) error {
	row := c.replica.Machine.Members.Get(id)
	switch {
	case row == nil:
		return member.ErrNotFound
	case !row.IsLearner:
		return member.ErrNotLearner
	}
	st := c.node.Status()
	if st.Leader != c.id.Member {
		return errNotLeader
	}
	if !learnerReady(st, id) {
		return errLearnerNotReady
	}
	_, err := c.changeMembers(asMember(ctx), &holdfastpb.Command{Command: &holdfastpb.Command_MemberPromote{
		MemberPromote: &holdfastpb.MemberPromote{Id: uint64(id)},
	}})
	return err
}

func learnerReady(st raftnode.Status, id ident.MemberID) bool {
	i := slices.IndexFunc(st.Progress, func(p raftnode.Progress) bool { return p.ID == id })
	return i >= 0 && uint64(st.Progress[i].Match)*100 >= uint64(st.Last)*learnerReadyPercent
}

// changeMembers proposes a change of the members, with Raft's own change where
// there is one.
func (c *core) changeMembers(ctx context.Context, cmd *holdfastpb.Command) (any, error) {
	if c.epoch.over.Load() { // Where the archive only does not tell, a cluster can still be mended.
		return nil, errSuperseded
	}
	if err := c.sign(ctx, cmd); err != nil {
		return nil, toWire(err)
	}
	data, err := cmd.MarshalVT()
	if err != nil {
		return nil, toWire(err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout())
	defer cancel()
	var v any
	if change := statemachine.ConfChange(cmd); change != nil {
		v, err = c.node.ProposeConf(ctx, change, data)
	} else {
		v, err = c.node.Propose(ctx, data)
	}
	return v, toWire(err)
}

func (c *core) members() []*pb.Member {
	var list []*pb.Member
	for _, row := range c.replica.Machine.Members.List() {
		list = append(list, statemachine.WireMember(row))
	}
	return list
}

func checkMemberURLs(raw []string) error {
	_, err := memberURLs(raw)
	return err
}

// memberURLs are peer URLs in their plain form and in order, if other members
// can dial all of them.
func memberURLs(raw []string) ([]string, error) {
	if len(raw) == 0 {
		return nil, errMemberURLs
	}
	urls := make([]string, len(raw))
	for i := range raw {
		u, err := url.Parse(strings.TrimSpace(raw[i]))
		if err != nil || u.Path != "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, errMemberURLs
		}
		if _, _, err := net.SplitHostPort(u.Host); err != nil {
			return nil, errMemberURLs
		}
		urls[i] = u.String()
	}
	slices.Sort(urls)
	return urls, nil
}

// mayAdd keeps a cluster from being changed into one that has lost its quorum.
// Afterwards there must be a quorum of started members, the newcomer counted as
// down, and this member must have seen such a quorum for a while.
func (c *core) mayAdd(learner bool) error {
	if !c.cfg.StrictReconfigCheck {
		return nil
	}
	voters, started := c.voters(0)
	return mayAddTo(voters, started, c.connected(), learner)
}

func mayAddTo(voters, started, connected int, learner bool) error {
	quorum := (voters+1)/2 + 1
	switch {
	case voters <= 1:
		return nil
	case !learner && started < quorum:
		return errNotEnoughStarted
	case connected < quorum:
		return errUnhealthy
	}
	return nil
}

// mayRemove lets a member that is down go, and one that is up only if what is
// left has a quorum. The last voter stays, whatever is set: nobody could do
// anything with what is left.
func (c *core) mayRemove(id ident.MemberID) error {
	row := c.replica.Machine.Members.Get(id)
	if row == nil || row.IsLearner {
		return nil
	}
	voters, started := c.voters(id)
	if !c.cfg.StrictReconfigCheck && voters > 0 {
		return nil
	}
	return mayLeave(voters, started, c.connected(), c.isConnected(id))
}

// mayLeave is asked with the voters that would be left, and those connected now.
func mayLeave(voters, started, connected int, up bool) error {
	quorum := voters/2 + 1
	switch {
	case started < quorum:
		return errNotEnoughStarted
	case up && connected-1 < quorum:
		return errUnhealthy
	}
	return nil
}

// voters counts the voting members but one, and those of them that have ever
// made themselves known.
func (c *core) voters(but ident.MemberID) (all, started int) {
	for _, row := range c.replica.Machine.Members.List() {
		if row.IsLearner || ident.MemberID(row.Id) == but {
			continue
		}
		all++
		if row.Name != "" {
			started++
		}
	}
	return all, started
}

// connected counts the voters that have been reachable for a while, this one
// included.
func (c *core) connected() int {
	n := 0
	for _, row := range c.replica.Machine.Members.List() {
		if !row.IsLearner && c.connectedFor(ident.MemberID(row.Id)) {
			n++
		}
	}
	return n
}

func (c *core) connectedFor(id ident.MemberID) bool {
	if id == c.id.Member {
		return true
	}
	p, ok := c.peer(id)
	return ok && p.Connected && c.cfg.Clock.Mono()-p.Since >= strictConnected
}

func (c *core) isConnected(id ident.MemberID) bool {
	p, ok := c.peer(id)
	return id == c.id.Member || ok && p.Connected
}

func (c *core) peer(id ident.MemberID) (transport.PeerStats, bool) {
	for _, p := range c.transport.Stats() {
		if p.ID == id {
			return p, true
		}
	}
	return transport.PeerStats{}, false
}
