package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/leader"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Connect implements kubepb.ClusterStateServer.
func (s *Service) Connect(stream kubepb.ClusterState_ConnectServer) error {
	return toWire(s.connect(stream))
}

func (s *Service) connect(stream kubepb.ClusterState_ConnectServer) error {
	ctx := stream.Context()
	id, err := auth.Of(ctx)
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	passedOn := id.Name == auth.APIServerUser
	g, err := s.aim(ctx, id, first.GetAsk(), passedOn)
	if err != nil {
		return err
	}
	s.logSession(id, g)
	user := id.Name
	if passedOn { // Who asked is counted where he asked.
		user = ""
	}
	session, err := s.tunnels.Open(ctx, g.opened.Node, user, g.ask)
	if err == nil {
		return session.Relay(stream, g.opened)
	}
	if passedOn || !errors.Is(err, tunnel.ErrAway) {
		return err
	}
	g.ask.Node, g.ask.User = g.opened.Node, id.Name
	for _, address := range s.cache.servers(s.cfg.Address) {
		if s.cfg.Peer == nil {
			break
		}
		passed, err := s.connectThrough(stream, address, g)
		if passed {
			return err
		}
		s.log.Debug("a server has no tunnel", "server", address, "node", g.opened.Node, "error", err)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.away(g.opened.Node)
}

// logSession tells who reaches into the cluster, but not with what: commands may hold
// secrets.
func (s *Service) logSession(id auth.Identity, g *goal) {
	level := hclog.Info
	switch g.verb {
	case auth.Logs, auth.Forward: // One reads, and the other comes once for each connection.
		level = hclog.Debug
	}
	user := id.Name
	if g.ask.User != "" {
		user = g.ask.User
	}
	s.log.Log(level, "session", "identity", user, "verb", g.verb, "object", g.object, "container", g.opened.Container, "node", g.opened.Node)
}

// servers are the addresses of the others: each campaigns for what one does at a time.
func (c *cache) servers(own string) []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var all []string
	for key, kv := range c.mu.claims { //tidy:ordered sorted below
		address := leader.ParseClaim(string(kv.Value)).Address
		if strings.HasPrefix(key, leader.Prefix) && address != "" && address != own && !slices.Contains(all, address) {
			all = append(all, address)
		}
	}
	slices.Sort(all)
	return all
}

// connectThrough passes a session on to another server. It tells whether that one has
// taken it; else the next is asked.
func (s *Service) connectThrough(stream kubepb.ClusterState_ConnectServer, address string, g *goal) (passed bool, err error) {
	conn, err := s.peer(address)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	late := s.clock.AfterFunc(passOnMax+connectMax, cancel)
	defer late.Stop()
	there, err := kubepb.NewClusterStateClient(conn).Connect(ctx)
	if err != nil {
		return false, err
	}
	if err := there.Send(&kubepb.Frame{What: &kubepb.Frame_Ask{Ask: g.ask}}); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	answer, err := there.Recv()
	switch code := status.Code(err); {
	case err == nil && late.Stop():
	case err == nil, code == codes.Unavailable, code == codes.Canceled, code == codes.Unimplemented:
		return false, fmt.Errorf("server %s: %w", address, errors.Join(err, ctx.Err()))
	default:
		return true, err
	}
	if !s.tasks.Go("session passed on", func(context.Context) error { return passInput(stream, there) }) {
		return true, context.Canceled
	}
	for err == nil {
		if err = stream.Send(answer); err == nil {
			answer, err = there.Recv()
		}
	}
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return true, err
}

// passInput sends what a user sends to another server. It ends with either stream.
func passInput(user kubepb.ClusterState_ConnectServer, there grpc.BidiStreamingClient[kubepb.Frame, kubepb.Frame]) error {
	for {
		f, err := user.Recv()
		if errors.Is(err, io.EOF) {
			return there.CloseSend()
		}
		if err != nil || there.Send(f) != nil {
			return nil // Who reads the other stream learns why.
		}
	}
}
