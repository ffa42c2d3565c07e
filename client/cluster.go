package client

import (
	"context"
	"fmt"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// MemberList lists the members: with linearizable as a quorum knows them, else
// as the member asked does.
func (c *Client) MemberList(ctx context.Context, linearizable bool) (*pb.MemberListResponse, error) {
	return call(ctx, c, reads, c.cluster.MemberList, &pb.MemberListRequest{Linearizable: linearizable})
}

// MemberAdd adds a member, or a learner, which receives everything and has no vote.
func (c *Client) MemberAdd(ctx context.Context, peerURLs []string, learner bool) (*pb.MemberAddResponse, error) {
	return call(ctx, c, writes, c.cluster.MemberAdd, &pb.MemberAddRequest{PeerURLs: peerURLs, IsLearner: learner})
}

// MemberRemove removes a member for ever.
func (c *Client) MemberRemove(ctx context.Context, id uint64) (*pb.MemberRemoveResponse, error) {
	return call(ctx, c, writes, c.cluster.MemberRemove, &pb.MemberRemoveRequest{ID: id})
}

// MemberUpdate changes where other members reach one.
func (c *Client) MemberUpdate(ctx context.Context, id uint64, peerURLs []string) (*pb.MemberUpdateResponse, error) {
	return call(ctx, c, writes, c.cluster.MemberUpdate, &pb.MemberUpdateRequest{ID: id, PeerURLs: peerURLs})
}

// MemberPromote makes a learner a voter.
func (c *Client) MemberPromote(ctx context.Context, id uint64) (*pb.MemberPromoteResponse, error) {
	return call(ctx, c, writes, c.cluster.MemberPromote, &pb.MemberPromoteRequest{ID: id})
}

// SyncEndpoints replaces the endpoints by those that the voting members
// publish, so that members added later are used too.
func (c *Client) SyncEndpoints(ctx context.Context) error {
	list, err := c.MemberList(ctx, true)
	if err != nil {
		return err
	}
	var endpoints []string
	for _, m := range list.Members {
		if !m.IsLearner {
			endpoints = append(endpoints, m.ClientURLs...)
		}
	}
	if len(endpoints) == 0 {
		return fmt.Errorf("of %d members none has published an address: %w", len(list.Members), ErrNoEndpoints)
	}
	return c.SetEndpoints(endpoints)
}
