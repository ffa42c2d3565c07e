package server

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/mvcc/watch"
	"github.com/holdfast-db/holdfast/pki"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/transport"
	"github.com/holdfast-db/holdfast/server/keeper"
	"github.com/holdfast-db/holdfast/server/replica"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

// ProtocolVersion is the etcd whose behaviour this server was tested against:
// clients look at it to learn what they may use.
const ProtocolVersion = "3.7.3"

// storageVersion as etcd tells it beside ProtocolVersion.
const storageVersion = "3.7.0"

// systemRand is the source of IDs and nonces that must not be guessed.
var systemRand io.Reader = rand.Reader

// core is what all services stand on.
type core struct {
	cfg        Config
	log        hclog.Logger
	id         datadir.Identity
	replica    *replica.Replica
	node       *raftnode.Node
	transport  *transport.Transport
	keeper     *keeper.Keeper
	leaderless *cancels // Of streams that must end when there is no leader.
	asking     *cancels // Of questions to the leader: they end when it does not lead any more.
	calls      *calls
	metrics    *metrics
	healths    []*health.Server // What gRPC says of this member. The same.
	shown      []*pki.Reloader  // Certificates of this member. Set before anybody is served.
	hub        *watch.Hub
	fenced     atomic.Bool // This member's state is known to be wrong: it answers nothing any more.
	scrubs     scrubbing
	snapshots  atomic.Int64 // On their way to clients.
	ranges     atomic.Int64 // The same, as streams.
	archive    archiving
	epoch      *epochFence
	who        *identities // Tokens and passwords.
	onDamage   func(error) // A call met damage in the state.
}

// header is a filled-in response header.
func (c *core) header() *pb.ResponseHeader {
	h := &pb.ResponseHeader{}
	c.fill(h)
	return h
}

func (c *core) headerWithoutRevision() *pb.ResponseHeader {
	return &pb.ResponseHeader{
		ClusterId: uint64(c.id.Cluster),
		MemberId:  uint64(c.id.Member),
		RaftTerm:  uint64(c.node.Term()),
	}
}

// fill puts in what an answer of the state machine leaves open.
func (c *core) fill(h *pb.ResponseHeader) {
	h.ClusterId = uint64(c.id.Cluster)
	h.MemberId = uint64(c.id.Member)
	h.RaftTerm = uint64(c.node.Term())
	if h.Revision == 0 {
		h.Revision = int64(c.replica.Store().Head())
	}
}

// linearize waits until this member's state is at least as new as anything
// acknowledged before the call.
func (c *core) linearize(ctx context.Context) error {
	start := c.cfg.Clock.Mono()
	err := c.node.ReadIndex(ctx)
	c.metrics.readIndexed(c.cfg.Clock.Mono()-start, err)
	if err != nil {
		return err
	}
	return c.mayAcknowledge(ctx)
}

// tellServing says on gRPC's health service whether clients shall come here.
func (c *core) tellServing(serving bool) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		status = healthpb.HealthCheckResponse_SERVING
	}
	for _, h := range c.healths {
		h.SetServingStatus("", status)
	}
}

// certificateEnd is when the first of the certificates that this member shows
// ends, in seconds; 0 when it shows none.
func (c *core) certificateEnd() int64 {
	first := int64(0)
	for _, r := range c.shown {
		if pair := r.Certificate(); pair != nil && (first == 0 || pair.Leaf.NotAfter.Unix() < first) {
			first = pair.Leaf.NotAfter.Unix()
		}
	}
	return first
}

func (c *core) random() (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(c.cfg.Rand, b[:]); err != nil {
		return 0, fmt.Errorf("draw a random number: %w", err)
	}
	return binary.BigEndian.Uint64(b[:]), nil
}

// retryAtLeader tells whether a request that the leader must answer is worth
// another try: leadership may have moved, or a connection broken.
func retryAtLeader(err error) bool {
	for _, final := range []error{context.Canceled, context.DeadlineExceeded, member.ErrNotFound, member.ErrNotLearner, errLearnerNotReady, raftnode.ErrStopped} {
		if errors.Is(err, final) {
			return false
		}
	}
	if status.Code(err) == codes.Canceled { // A question that took too long.
		return true
	}
	return errors.Is(err, errNotLeader) || errors.Is(err, errNoLeader) || !isStatus(err)
}

func isStatus(err error) bool {
	_, ok := status.FromError(err)
	return ok
}
