package client

import (
	"context"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Grant makes a lease of ttl seconds, which the server may raise. With id zero
// the server picks one.
func (c *Client) Grant(ctx context.Context, ttl, id int64) (*pb.LeaseGrantResponse, error) {
	return call(requireLeader(ctx), c, writes, c.lease.LeaseGrant, &pb.LeaseGrantRequest{TTL: ttl, ID: id})
}

// Revoke ends a lease and deletes its keys.
func (c *Client) Revoke(ctx context.Context, id int64) (*pb.LeaseRevokeResponse, error) {
	return call(requireLeader(ctx), c, writes, c.lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: id})
}

// TimeToLive tells how many seconds a lease has left, -1 if there is no such
// lease; with keys also what is attached to it.
func (c *Client) TimeToLive(ctx context.Context, id int64, keys bool) (*pb.LeaseTimeToLiveResponse, error) {
	return call(requireLeader(ctx), c, reads, c.lease.LeaseTimeToLive, &pb.LeaseTimeToLiveRequest{ID: id, Keys: keys})
}

// Leases lists the leases that the member asked knows of.
func (c *Client) Leases(ctx context.Context) (*pb.LeaseLeasesResponse, error) {
	return call(ctx, c, reads, c.lease.LeaseLeases, &pb.LeaseLeasesRequest{})
}
