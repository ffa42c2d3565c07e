package state

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Scale implements kubepb.ClusterStateServer.
func (s *Service) Scale(ctx context.Context, r *kubepb.ScaleRequest) (*kubepb.ScaleResponse, error) {
	answer, err := s.scale(ctx, r)
	return answer, toWire(err)
}

func (s *Service) scale(ctx context.Context, r *kubepb.ScaleRequest) (*kubepb.ScaleResponse, error) {
	k, err := checkRef(r.GetObject())
	if err != nil {
		return nil, err
	}
	if k != api.Deployment && k != api.ReplicaSet {
		return nil, invalid("object: a %s has no number of copies", k.Name)
	}
	if r.Replicas < 0 {
		return nil, invalid("replicas: %d is less than none", r.Replicas)
	}
	var before int32
	c := &changing{kind: k, namespace: r.Object.Namespace, name: r.Object.Name, verb: auth.Scale, preconditions: r.Preconditions}
	c.change = func(old api.Object) (api.Object, error) {
		scaled := old.DeepCopyObject().(api.Object)
		var replicas **int32
		switch o := scaled.(type) {
		case *appsv1.Deployment:
			replicas = &o.Spec.Replicas
		case *appsv1.ReplicaSet:
			replicas = &o.Spec.Replicas
		}
		before = 1 // What none means.
		if *replicas != nil {
			before = **replicas
		}
		*replicas = &r.Replicas
		return scaled, nil
	}
	answer, err := s.change(ctx, c, false, kubepb.Encoding_PROTOBUF)
	if err != nil {
		return nil, err
	}
	return &kubepb.ScaleResponse{Object: answer.Object, Before: before}, nil
}
