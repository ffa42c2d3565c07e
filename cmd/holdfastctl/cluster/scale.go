package cluster

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

type scaleFlags struct {
	selection
	replicas, current int32
}

func (s *session) scaleCommand() *cobra.Command {
	var f scaleFlags
	cmd := &cobra.Command{
		Use:   "scale --replicas=N KIND/NAME... | KIND -l SELECTOR",
		Short: "Sets how many pods deployments and replica sets have",
	}
	cmd.RunE = s.connected(func(ctx context.Context, args []string) error {
		if !cmd.Flags().Changed("replicas") {
			return usage("--replicas is required: how many pods there shall be")
		}
		return s.scale(ctx, &f, args)
	})
	f.selection.declare(cmd)
	fs := cmd.Flags()
	fs.Int32Var(&f.replicas, "replicas", 0, "how many")
	fs.Int32Var(&f.current, "current-replicas", -1, "only if there are so many now")
	fs.BoolVar(&f.everything, "all", false, "all of the kind, in the namespace")
	return cmd
}

func (s *session) scale(ctx context.Context, f *scaleFlags, args []string) error {
	if f.replicas < 0 {
		return usage("--replicas=%d: there cannot be fewer than none", f.replicas)
	}
	list, err := s.chosen(ctx, args, f.selection, api.Deployment, api.ReplicaSet)
	if err != nil {
		return err
	}
	for _, o := range list {
		k := api.KindOf(o)
		r := &kubepb.ScaleRequest{Object: &kubepb.Ref{Kind: k.Name, Namespace: o.GetNamespace(), Name: o.GetName()}, Replicas: f.replicas}
		if f.current >= 0 {
			if now := replicasOf(o); now != f.current {
				return fmt.Errorf("%s has %d replicas, not --current-replicas=%d: nothing was changed", titled(o), now, f.current)
			}
			version, err := api.ParseVersion(o.GetResourceVersion())
			if err != nil {
				return err
			}
			r.Preconditions = &kubepb.Preconditions{Uid: string(o.GetUID()), ResourceVersion: version}
		}
		if _, err := ask(ctx, s, func(ctx context.Context) (*kubepb.ScaleResponse, error) { return s.client.Scale(ctx, r) }); err != nil {
			return err
		}
		s.printf("%s scaled\n", titled(o))
	}
	return nil
}

func replicasOf(o api.Object) int32 {
	switch o := o.(type) {
	case *appsv1.Deployment:
		return deref(o.Spec.Replicas, 1)
	case *appsv1.ReplicaSet:
		return deref(o.Spec.Replicas, 1)
	}
	return 0
}

// chosen are the objects that arguments and flags name, of some kinds: at least one.
func (s *session) chosen(ctx context.Context, args []string, sel selection, kinds ...*api.Kind) ([]api.Object, error) {
	found, err := targets(args)
	if err != nil {
		return nil, err
	}
	for _, t := range found {
		if err := only(t.kind, kinds); err != nil {
			return nil, err
		}
		if t.name == "" && sel.labels == "" && sel.fields == "" && !sel.everything {
			return nil, usage("%s: name the objects, or select them with -l, --field-selector or --all", t.kind.Resource)
		}
	}
	list, err := s.find(ctx, found, sel)
	if err == nil && len(list) == 0 {
		return nil, errors.New("no objects match: nothing was changed")
	}
	return list, err
}
