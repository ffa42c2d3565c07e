package state

import (
	"context"
	"slices"
	"sync"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// samples are what nodes measured last. They are nowhere else: after a start they are
// there again once each node has spoken.
type samples struct {
	mu struct {
		sync.Mutex
		byNode map[string]*kubepb.SampleRequest
	}
}

// Sample implements kubepb.ClusterStateServer.
func (s *Service) Sample(ctx context.Context, r *kubepb.SampleRequest) (*kubepb.SampleResponse, error) {
	if err := s.sample(ctx, r); err != nil {
		return nil, toWire(err)
	}
	return &kubepb.SampleResponse{}, nil
}

func (s *Service) sample(ctx context.Context, r *kubepb.SampleRequest) error {
	id, err := auth.Of(ctx)
	if err != nil {
		return err
	}
	if err := checkName("node", r.GetNode()); err != nil {
		return err
	}
	if err := s.authorize(&auth.Request{Identity: id, Verb: auth.Sample, NodeName: r.Node}); err != nil {
		return err
	}
	if len(r.Pods) > samplePodsMax {
		return invalid("pods: %d in one sample; %d are the most", len(r.Pods), samplePodsMax)
	}
	kept := &kubepb.SampleRequest{Node: r.Node, Time: r.Time, Use: r.Use}
	for _, p := range r.Pods {
		if len(p.GetContainers()) > sampleContainersMax {
			return invalid("containers: %d of one pod; %d are the most", len(p.GetContainers()), sampleContainersMax)
		}
		// Of pods that are elsewhere, or were, a node has nothing to say.
		if plainName(p.GetNamespace()) && plainName(p.GetName()) && (facts{s.cache}).PodNode(p.Namespace, p.Name) == r.Node {
			kept.Pods = append(kept.Pods, p)
		}
	}
	if s.cache.entry(api.Node.Key("", r.Node)) == nil {
		return missing(api.Node, "", r.Node)
	}
	s.samples.mu.Lock()
	defer s.samples.mu.Unlock()
	if s.samples.mu.byNode == nil {
		s.samples.mu.byNode = map[string]*kubepb.SampleRequest{}
	}
	s.samples.mu.byNode[r.Node] = kept
	return nil
}

// Usage implements kubepb.ClusterStateServer.
func (s *Service) Usage(ctx context.Context, r *kubepb.UsageRequest) (*kubepb.UsageResponse, error) {
	answer, err := s.usage(ctx, r)
	return answer, toWire(err)
}

func (s *Service) usage(ctx context.Context, r *kubepb.UsageRequest) (*kubepb.UsageResponse, error) {
	id, err := auth.Of(ctx)
	if err != nil {
		return nil, err
	}
	err = s.authorize(&auth.Request{Identity: id, Verb: auth.Usage, Namespace: r.GetNamespace(), NodeName: r.GetNode()})
	if err != nil {
		return nil, err
	}
	answer := &kubepb.UsageResponse{}
	for _, sample := range s.samples.all() {
		if s.cache.entry(api.Node.Key("", sample.Node)) == nil {
			s.samples.forget(sample.Node)
			continue
		}
		if r.Node != "" && r.Node != sample.Node {
			continue
		}
		answer.Nodes = append(answer.Nodes, &kubepb.NodeUse{Node: sample.Node, Time: sample.Time, Use: sample.Use})
		for _, p := range sample.Pods {
			if r.Namespace == "" || r.Namespace == p.Namespace {
				answer.Pods = append(answer.Pods, p)
			}
		}
	}
	return answer, nil
}

// all samples, by node.
func (m *samples) all() []*kubepb.SampleRequest {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := make([]string, 0, len(m.mu.byNode))
	for name := range m.mu.byNode {
		names = append(names, name)
	}
	slices.Sort(names)
	all := make([]*kubepb.SampleRequest, 0, len(names))
	for _, name := range names {
		all = append(all, m.mu.byNode[name])
	}
	return all
}

func (m *samples) forget(node string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.mu.byNode, node)
}
