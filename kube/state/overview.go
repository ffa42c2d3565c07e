package state

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Overview is how the cluster stands, as far as the cache of one control plane knows.
type Overview struct {
	Nodes map[corev1.ConditionStatus]int // By what they are ready; one that never said so is unknown.
	Hold  kubepb.Hold                    // After a restore.
}

// Overview asks the store nothing: whoever watches the control plane asks for it all the
// time. It fails until the cache is filled.
func (s *Service) Overview() (Overview, error) {
	is, err := s.stands()
	if err != nil {
		return Overview{}, err
	}
	if s.cache.at.Load().revision == 0 {
		return Overview{}, errBehind
	}
	o := Overview{Hold: is.hold, Nodes: map[corev1.ConditionStatus]int{}}
	c := s.cache
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, e := range c.mu.shelves[api.Node].sorted {
		o.Nodes[readyStatus(e.object)]++
	}
	return o, nil
}

func readyStatus(o api.Object) corev1.ConditionStatus {
	if n, ok := o.(*corev1.Node); ok {
		if c := api.NodeReady(n); c != nil {
			return c.Status
		}
	}
	return corev1.ConditionUnknown
}
