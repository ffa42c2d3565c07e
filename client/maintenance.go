package client

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Status, Defragment, HashKV and Snapshot are about one member: the one that
// the call happens to reach, unless the client has a single endpoint (see At).

// Status describes a member.
func (c *Client) Status(ctx context.Context) (*pb.StatusResponse, error) {
	return call(ctx, c, reads, c.maintenance.Status, &pb.StatusRequest{})
}

// Defragment gives a member's free pages back to its file system. It may take long.
func (c *Client) Defragment(ctx context.Context) (*pb.DefragmentResponse, error) {
	return slowCall(ctx, c, reads, c.maintenance.Defragment, &pb.DefragmentRequest{})
}

// HashKV hashes all that a member keeps up to a revision, or now if it is zero.
// Members that agree on revision and compact revision must agree on the hash.
func (c *Client) HashKV(ctx context.Context, revision int64) (*pb.HashKVResponse, error) {
	return slowCall(ctx, c, reads, c.maintenance.HashKV, &pb.HashKVRequest{Revision: revision})
}

// MoveLeader makes another voter the leader. Only the leader takes this call.
func (c *Client) MoveLeader(ctx context.Context, to uint64) (*pb.MoveLeaderResponse, error) {
	return call(ctx, c, writes, c.maintenance.MoveLeader, &pb.MoveLeaderRequest{TargetID: to})
}

// Downgrade asks what it would take to go back to a version of the protocol,
// begins that or gives it up.
func (c *Client) Downgrade(ctx context.Context, action pb.DowngradeRequest_DowngradeAction, version string) (*pb.DowngradeResponse, error) {
	kind := writes
	if action == pb.DowngradeRequest_VALIDATE {
		kind = reads
	}
	return call(ctx, c, kind, c.maintenance.Downgrade, &pb.DowngradeRequest{Action: action, Version: version})
}

// Alarms lists the alarms that are on.
func (c *Client) Alarms(ctx context.Context) (*pb.AlarmResponse, error) {
	return call(ctx, c, reads, c.maintenance.Alarm, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
}

// DisarmAlarm turns one alarm off, and answers with it if it was on. Repeating
// it does no harm.
func (c *Client) DisarmAlarm(ctx context.Context, member uint64, alarm pb.AlarmType) (*pb.AlarmResponse, error) {
	return call(ctx, c, reads, c.maintenance.Alarm, &pb.AlarmRequest{
		Action: pb.AlarmRequest_DEACTIVATE, MemberID: member, Alarm: alarm,
	})
}

// Snapshot is the stream of a member's snapshot. It is a Reader of all bytes
// that the server sends: the last 32 are the SHA-256 of those before. Whether
// that is so is for the reader of the file to check.
type Snapshot struct {
	stream grpc.ServerStreamingClient[pb.SnapshotResponse]
	cancel context.CancelFunc
	chunk  []byte

	Version   string // Of the format, as the server names it. May be empty.
	Remaining uint64 // Bytes still to come, without the sum. For showing progress.
}

// Snapshot begins to read a member's snapshot. It is not resumed when the
// member dies: begin again.
func (c *Client) Snapshot(ctx context.Context) (*Snapshot, error) {
	attemptCtx, made := c.attempt(ctx)
	s, err := c.snapshot(attemptCtx)
	if err != nil && c.tokenRefused(err, made) {
		return c.snapshot(ctx)
	}
	if err != nil && c.config.FailFast && refused(err) {
		err = unreachable{err}
	}
	return s, err
}

func (c *Client) snapshot(ctx context.Context) (*Snapshot, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.maintenance.Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		cancel()
		return nil, fromWire(err)
	}
	s := &Snapshot{stream: stream, cancel: cancel}
	if err := s.next(); err != nil {
		cancel()
		return nil, err
	}
	return s, nil
}

func (s *Snapshot) next() error {
	m, err := s.stream.Recv()
	if err == io.EOF {
		return err
	}
	if err != nil {
		return fmt.Errorf("snapshot: %w", fromWire(err))
	}
	if m.Version != "" {
		s.Version = m.Version
	}
	s.chunk, s.Remaining = m.Blob, m.RemainingBytes
	return nil
}

// Read implements io.Reader.
func (s *Snapshot) Read(p []byte) (int, error) {
	for len(s.chunk) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.chunk)
	s.chunk = s.chunk[n:]
	return n, nil
}

// Close gives the stream up.
func (s *Snapshot) Close() error {
	s.cancel()
	return nil
}
