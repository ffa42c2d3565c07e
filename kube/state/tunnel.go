package state

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Tunnel implements kubepb.ClusterStateServer.
func (s *Service) Tunnel(stream kubepb.ClusterState_TunnelServer) error {
	return toWire(s.tunnel(stream))
}

func (s *Service) tunnel(stream kubepb.ClusterState_TunnelServer) error {
	ctx := stream.Context()
	id, err := auth.Of(ctx)
	if err != nil {
		return err
	}
	hello, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := s.checkTunnel(id, hello.GetNode()); err != nil {
		return err
	}
	if len(hello.Instance) > nameBytesMax {
		return invalid("instance: it has at most %d bytes", nameBytesMax)
	}
	if s.cache.entry(api.Node.Key("", hello.Node)) == nil {
		if _, err := s.fresh(ctx); err != nil { // It may have registered elsewhere just now.
			return err
		}
		if s.cache.entry(api.Node.Key("", hello.Node)) == nil {
			return missing(api.Node, "", hello.Node)
		}
	}
	return s.tunnels.Tunnel(stream, hello)
}

func (s *Service) checkTunnel(id auth.Identity, node string) error {
	if err := checkName("node", node); err != nil {
		return err
	}
	return s.authorize(&auth.Request{Identity: id, Verb: auth.Tunnel, NodeName: node})
}

// Session implements kubepb.ClusterStateServer.
func (s *Service) Session(stream kubepb.ClusterState_SessionServer) error {
	return toWire(s.session(stream))
}

func (s *Service) session(stream kubepb.ClusterState_SessionServer) error {
	id, err := auth.Of(stream.Context())
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	c := first.GetCredential()
	if c == nil {
		return invalid("credential: a session begins with it")
	}
	if err := s.checkTunnel(id, c.Node); err != nil {
		return err
	}
	return s.tunnels.Serve(stream, c)
}

// away says what is known of a node that no server has a tunnel of.
func (s *Service) away(name string) error {
	e := s.cache.entry(api.Node.Key("", name))
	if e == nil {
		return missing(api.Node, "", name)
	}
	node, _ := e.object.(*corev1.Node) // Nodes stay decoded.
	c := api.NodeReady(node)
	switch {
	case c == nil:
		return fmt.Errorf("node %s %w: its kubelet has never told how the node is: see whether it runs there", name, errNoTunnel)
	case c.Status == corev1.ConditionTrue:
		return fmt.Errorf("node %s %w, though it is ready: its kubelet has just started, or runs simulated nodes of a fleet: try again in some seconds, then see its log", name, errNoTunnel)
	}
	since := c.LastTransitionTime.UTC().Format(time.RFC3339)
	return fmt.Errorf("node %s %w: its kubelet does not answer since %s: see 'holdfastctl describe node %s', and whether the machine and its kubelet run", name, errNoTunnel, since, name)
}
