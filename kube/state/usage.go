package state

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// samples are what nodes measured last, on the server where the controllers lead. They
// are nowhere else: after a start, or when others lead, they are there again once each
// node has spoken.
type samples struct {
	mu struct {
		sync.Mutex
		byNode map[string]sample
	}
}

type sample struct {
	*kubepb.SampleRequest
	until time.Duration // It tells nothing after.
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
	elsewhere, err := s.leading(id, controllersPart)
	if err != nil {
		return err
	}
	if elsewhere != nil {
		_, err = passOn(ctx, kept, elsewhere.Sample)
		return err
	}
	s.samples.keep(kept, s.clock.Mono()+sampleLife)
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
	elsewhere, err := s.leading(id, controllersPart)
	if err != nil {
		return nil, err
	}
	if elsewhere != nil {
		return passOn(ctx, r, elsewhere.Usage)
	}
	answer := &kubepb.UsageResponse{}
	now := s.clock.Mono()
	for _, sample := range s.samples.all() {
		if sample.until < now || s.cache.entry(api.Node.Key("", sample.Node)) == nil {
			s.samples.forget(sample)
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

func (m *samples) keep(r *kubepb.SampleRequest, until time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.byNode == nil {
		m.mu.byNode = map[string]sample{}
	}
	m.mu.byNode[r.Node] = sample{r, until}
}

// all samples, by node.
func (m *samples) all() []sample {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := make([]string, 0, len(m.mu.byNode))
	for name := range m.mu.byNode {
		names = append(names, name)
	}
	slices.Sort(names)
	all := make([]sample, 0, len(names))
	for _, name := range names {
		all = append(all, m.mu.byNode[name])
	}
	return all
}

// forget drops a sample, unless there is a newer one.
func (m *samples) forget(s sample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.byNode[s.Node].until == s.until {
		delete(m.mu.byNode, s.Node)
	}
}
