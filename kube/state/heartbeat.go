package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// HeartbeatPrefix is that of the keys that nodes keep alive: each is on a lease of
// the store, and vanishes with it. The value is the instance of the kubelet.
const HeartbeatPrefix = "/holdfast/heartbeat/"

// turns are the streams of heartbeats, one a node.
type turns struct {
	mu struct {
		sync.Mutex
		byNode map[string]*turn
	}
}

// turn is one stream.
type turn struct {
	instance string
	cancel   context.CancelFunc
}

// begin ends the stream that the same kubelet had before, which it has given up.
func (t *turns) begin(node string, mine *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.byNode == nil {
		t.mu.byNode = map[string]*turn{}
	}
	if before := t.mu.byNode[node]; before != nil && before.instance == mine.instance {
		before.cancel()
	}
	t.mu.byNode[node] = mine
}

func (t *turns) end(node string, mine *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.byNode[node] == mine {
		delete(t.mu.byNode, node)
	}
}

// Heartbeat implements kubepb.ClusterStateServer.
func (s *Service) Heartbeat(stream kubepb.ClusterState_HeartbeatServer) error {
	return toWire(s.heartbeat(stream))
}

func (s *Service) heartbeat(stream kubepb.ClusterState_HeartbeatServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	id, err := auth.Of(ctx)
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := s.checkHeartbeat(id, first); err != nil {
		return err
	}
	if _, err := s.fresh(ctx); err != nil {
		return err
	}
	lease, err := s.claim(ctx, first)
	if err != nil {
		return err
	}
	mine := &turn{first.Instance, cancel}
	s.turns.begin(first.Node, mine)
	defer s.turns.end(first.Node, mine)
	var told []byte // Of the authorities.
	for r := first; ; {
		if told, err = s.beat(ctx, stream, r.Node, lease, told); err != nil {
			return err
		}
		if r, err = stream.Recv(); errors.Is(err, io.EOF) {
			return nil
		}
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("heartbeats of node %s go on over another stream: %w", first.Node, errConflict)
		case r.GetNode() != first.Node || r.GetInstance() != first.Instance:
			return invalid("a stream of heartbeats is of one instance of one node")
		}
	}
}

func (s *Service) checkHeartbeat(id auth.Identity, r *kubepb.HeartbeatRequest) error {
	if err := checkName("node", r.GetNode()); err != nil {
		return err
	}
	if err := s.authorize(&auth.Request{Identity: id, Verb: auth.Heartbeat, NodeName: r.Node}); err != nil {
		return err
	}
	if r.Instance == "" || len(r.Instance) > nameBytesMax {
		return invalid("instance: it tells two kubelets of one name apart, in at most %d bytes", nameBytesMax)
	}
	if r.TtlSeconds < 0 || r.TtlSeconds > heartbeatTTLMax {
		return invalid("ttl_seconds: %d is not between 0 and %d", r.TtlSeconds, heartbeatTTLMax)
	}
	return nil
}

// claim makes the node's key on a lease, or finds the one that this kubelet made.
func (s *Service) claim(ctx context.Context, r *kubepb.HeartbeatRequest) (int64, error) {
	key := HeartbeatPrefix + r.Node
	for range writeTriesMax {
		if s.cache.entry(api.Node.Key("", r.Node)) == nil {
			return 0, missing(api.Node, "", r.Node)
		}
		is, err := s.store.Get(ctx, client.Get{Range: client.One(key)})
		if err != nil {
			return 0, err
		}
		if len(is.Kvs) > 0 {
			kv := is.Kvs[0]
			if string(kv.Value) != r.Instance {
				return 0, fmt.Errorf("node %s: another kubelet of this name lives; that it has ended %w", r.Node, errGuard)
			}
			_, err := s.renewer.Renew(ctx, kv.Lease)
			if errors.Is(err, client.ErrLeaseNotFound) {
				continue
			}
			return kv.Lease, err
		}
		lease, err := s.grant(ctx, key, r)
		if err != nil || lease != 0 {
			return lease, err
		}
	}
	return 0, fmt.Errorf("node %s: its heartbeat key %w", r.Node, errConflict)
}

// grant makes a lease and the key on it. 0: somebody else was faster.
func (s *Service) grant(ctx context.Context, key string, r *kubepb.HeartbeatRequest) (int64, error) {
	ttl := r.TtlSeconds
	if ttl == 0 {
		ttl = s.cfg.HeartbeatTTL
	}
	granted, err := s.store.Grant(ctx, ttl, 0)
	if err != nil {
		return 0, err
	}
	node := api.Node.Key("", r.Node)
	done, err := s.store.Txn(ctx, client.Txn{
		If:   []client.Compare{client.IfCreated(key, client.Equal, 0), client.IfCreated(node, client.Greater, 0)},
		Then: []client.Op{client.Put{Key: key, Value: []byte(r.Instance), Lease: granted.ID}},
	})
	if err == nil && done.Succeeded {
		return granted.ID, nil
	}
	if !errors.Is(err, client.ErrUnknownOutcome) { // It may stand: then it is found.
		if _, e := s.store.Revoke(ctx, granted.ID); e != nil {
			s.log.Debug("lease is left to run out", "error", e)
		}
	}
	if err != nil {
		return 0, err
	}
	_, err = s.fresh(ctx) // The node's object may be gone.
	return 0, err
}

// beat renews the lease once, and tells the authorities unless they were told.
func (s *Service) beat(ctx context.Context, stream kubepb.ClusterState_HeartbeatServer, node string, lease int64, told []byte) ([]byte, error) {
	if s.cache.entry(api.Node.Key("", node)) == nil {
		if _, err := s.store.Revoke(ctx, lease); err != nil && !errors.Is(err, client.ErrLeaseNotFound) {
			s.log.Debug("lease is left to run out", "error", err)
		}
		return nil, missing(api.Node, "", node)
	}
	var renewed *pb.LeaseKeepAliveResponse
	renewed, err := s.renewer.Renew(ctx, lease)
	if errors.Is(err, client.ErrLeaseNotFound) {
		return nil, fmt.Errorf("node %s: its lease has ended: %w", node, errConflict)
	}
	if err != nil {
		return nil, err
	}
	answer := &kubepb.HeartbeatResponse{Lease: lease, TtlMilliseconds: renewed.TTL * 1000, ClusterId: renewed.Header.GetClusterId()}
	is, err := s.standsBy(stream.Context())
	if err != nil {
		return nil, err
	}
	answer.Timeline, answer.History, answer.Hold, answer.HoldRevision = s.storeTimeline(), is.history(), s.holdOf(is, node), is.revision
	if roots := s.trusted(); !bytes.Equal(roots, told) {
		answer.Authority, told = roots, roots
	}
	return told, stream.Send(answer)
}
