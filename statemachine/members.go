package statemachine

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

// ConfChange is the change of Raft's configuration that a command stands for,
// nil when it stands for none. The proposer makes it and apply checks it, so
// that the log's idea of the members can never differ from the table's.
func ConfChange(cmd *holdfastpb.Command) *raftpb.ConfChangeV2 {
	kind, id := raftpb.ConfChangeAddNode, uint64(0)
	switch c := cmd.Command.(type) {
	case *holdfastpb.Command_MemberAdd:
		id = c.MemberAdd.GetMember().GetId()
		if c.MemberAdd.GetMember().GetIsLearner() {
			kind = raftpb.ConfChangeAddLearnerNode
		}
	case *holdfastpb.Command_MemberPromote:
		id = c.MemberPromote.GetId()
	case *holdfastpb.Command_MemberRemove:
		kind, id = raftpb.ConfChangeRemoveNode, c.MemberRemove.GetId()
	default:
		return nil
	}
	return &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: &kind, NodeId: &id}}}
}

func sameChange(a, b *raftpb.ConfChangeV2) bool {
	if a == nil || b == nil || len(a.Changes) != len(b.Changes) {
		return false
	}
	for i := range a.Changes {
		if a.Changes[i].GetType() != b.Changes[i].GetType() || a.Changes[i].GetNodeId() != b.Changes[i].GetNodeId() {
			return false
		}
	}
	return true
}

func (r *request) memberAdd(c *holdfastpb.MemberAdd) (any, error) {
	row, err := r.m.Members.Add(ident.MemberID(c.GetMember().GetId()), c.GetMember().GetPeerUrls(), c.GetMember().GetIsLearner(), int(c.LearnersMax))
	if err != nil {
		return nil, err
	}
	return r.writeMember(row)
}

func (r *request) memberRemove(c *holdfastpb.MemberRemove) (any, error) {
	row, err := r.m.Members.Remove(ident.MemberID(c.Id))
	if err != nil {
		return nil, err
	}
	return r.writeMember(row)
}

func (r *request) memberUpdate(c *holdfastpb.MemberUpdate) (any, error) {
	row, err := r.m.Members.Update(ident.MemberID(c.Id), c.PeerUrls)
	if err != nil {
		return nil, err
	}
	return r.writeMember(row)
}

func (r *request) memberPromote(c *holdfastpb.MemberPromote) (any, error) {
	row, err := r.m.Members.Promote(ident.MemberID(c.Id))
	if err != nil {
		return nil, err
	}
	return r.writeMember(row)
}

func (r *request) memberPublish(c *holdfastpb.MemberPublish) (any, error) {
	row, err := r.m.Members.Publish(ident.MemberID(c.Id), c.Name, c.ClientUrls, c.Incarnation)
	if err != nil {
		return nil, err
	}
	return r.writeMember(row)
}

// writeMember stores a row. The answer is the row in the words of the wire.
func (r *request) writeMember(row *member.Row) (any, error) {
	value, err := row.MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("encode member row: %w", err)
	}
	r.setRow(mvcc.TableMember, member.Key(ident.MemberID(row.Id)), value)
	return WireMember(row), nil
}

// WireMember is a member in the words of the wire.
func WireMember(row *member.Row) *pb.Member {
	return &pb.Member{ID: row.Id, Name: row.Name, PeerURLs: row.PeerUrls, ClientURLs: row.ClientUrls, IsLearner: row.IsLearner}
}
