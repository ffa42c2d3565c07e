// Package recovery decides, for an operator, what becomes of pods after the store was
// restored: Look compares what is recorded with what nodes have, Adopt and Prune decide
// about the difference, GiveUp about nodes that are silent.
//
// It keeps nothing: each step is one transaction of the server, and whatever was cut
// off is finished by the same call again.
//
// Always true: nothing here ends a pod that runs, but Prune, and that only once all is
// settled. What ran together is asked for together: adopting raises the size of those
// whose pods there are more of than were recorded, before anybody could scale them down.
package recovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Report is what was decided.
type Report struct {
	Adopted []*kubepb.RecoveredPod
	Pruned  []*kubepb.RecoveredPod
	Refused []Refusal
	Scaled  []Scaling
	Removed []string // Records of pods that no node has, "namespace/name".
	Warned  []string
	Settled bool
	Waits   string // What is left to be decided or told. Empty once settled.
}

// Refusal is a pod that could not be adopted or pruned.
type Refusal struct {
	Pod *kubepb.RecoveredPod
	Err error
}

// Scaling is a size that was raised.
type Scaling struct {
	Object        *kubepb.Ref
	Before, After int32
}

// Adopt records the pods that run and are not recorded, and settles the recovery if
// nothing else is left to decide. Those of which only their node says what they are, or
// tells what is not plausible, are refused unless asTold: then that is the caller's word.
func Adopt(ctx context.Context, c *objects.Client, asTold bool) (*Report, error) {
	r := &Report{}
	is, err := c.Recovery(ctx, true)
	if err != nil {
		return nil, err
	}
	if is.Hold == kubepb.Hold_HOLD_NONE {
		r.Settled = true
		return r, nil
	}
	if is.State == kubepb.RecoveryResponse_OPEN { // Else controllers have made others meanwhile.
		if r.Scaled, err = grow(ctx, c, is.Pods, asTold); err != nil {
			return r, err
		}
	}
	for _, p := range running(is) {
		answer, err := c.Recover(ctx, &kubepb.RecoverRequest{Action: kubepb.RecoverRequest_ADOPT, Node: p.Node, Uid: p.Uid, AsTold: asTold})
		switch {
		case decided(err):
			r.Refused = append(r.Refused, Refusal{p, err})
		case err != nil:
			return r, fmt.Errorf("adopt pod %s/%s of node %s: %w", p.Namespace, p.Name, p.Node, err)
		default:
			r.Adopted = append(r.Adopted, p)
			r.Warned = append(r.Warned, answer.Warnings...)
		}
	}
	return r, r.settle(ctx, c)
}

// Prune lets all pods end that run and are not recorded, and settles the recovery if
// nothing else is left to decide.
func Prune(ctx context.Context, c *objects.Client) (*Report, error) {
	r := &Report{}
	is, err := c.Recovery(ctx, true)
	if err != nil {
		return nil, err
	}
	for _, p := range running(is) {
		_, err := c.Recover(ctx, &kubepb.RecoverRequest{Action: kubepb.RecoverRequest_PRUNE, Node: p.Node, Uid: p.Uid})
		switch {
		case decided(err):
			r.Refused = append(r.Refused, Refusal{p, err})
		case err != nil:
			return r, fmt.Errorf("prune pod %s/%s of node %s: %w", p.Namespace, p.Name, p.Node, err)
		default:
			r.Pruned = append(r.Pruned, p)
		}
	}
	return r, r.settle(ctx, c)
}

// GiveUp does not wait for nodes any more: singletons that are theirs may be started
// elsewhere.
func GiveUp(ctx context.Context, c *objects.Client, nodes []string) error {
	for _, n := range nodes {
		if _, err := c.Recover(ctx, &kubepb.RecoverRequest{Action: kubepb.RecoverRequest_GIVE_UP, Node: n}); err != nil {
			return fmt.Errorf("give node %s up: %w", n, err)
		}
	}
	return nil
}

// Distrust hears no more, until the next restore, what nodes tell: their claims are
// dropped. As after GiveUp, singletons that are theirs may be started elsewhere.
func Distrust(ctx context.Context, c *objects.Client, nodes []string) error {
	for _, n := range nodes {
		if _, err := c.Recover(ctx, &kubepb.RecoverRequest{Action: kubepb.RecoverRequest_DISTRUST, Node: n}); err != nil {
			return fmt.Errorf("distrust node %s: %w", n, err)
		}
	}
	return nil
}

// decided reports whether an error says that something must not be, rather than that
// nobody could be asked.
func decided(err error) bool {
	return errors.Is(err, objects.ErrGuard) || errors.Is(err, objects.ErrNotFound) || errors.Is(err, objects.ErrInvalid) || errors.Is(err, objects.ErrConflict)
}

// running are the pods to be decided about.
func running(is *kubepb.RecoveryResponse) []*kubepb.RecoveredPod {
	return slices.DeleteFunc(slices.Clone(is.Pods), func(p *kubepb.RecoveredPod) bool {
		return p.List != kubepb.RecoveredPod_RUNNING || p.Pruned
	})
}

// settle ends the recovery, or says what keeps it from ending.
func (r *Report) settle(ctx context.Context, c *objects.Client) error {
	answer, err := c.Recover(ctx, &kubepb.RecoverRequest{Action: kubepb.RecoverRequest_SETTLE})
	if err == nil {
		r.Removed, r.Settled = answer.Removed, true
		return nil
	}
	if is, e := c.Recovery(ctx, false); e == nil && is.State == kubepb.RecoveryResponse_SETTLED {
		r.Settled = true // The controllers were faster.
		return nil
	}
	if errors.Is(err, objects.ErrGuard) {
		r.Waits = err.Error()
		return nil
	}
	return fmt.Errorf("settle: %w", err)
}

// grow raises the sizes of ReplicaSets and Deployments of which more pods run than
// they were recorded to have.
func grow(ctx context.Context, c *objects.Client, pods []*kubepb.RecoveredPod, asTold bool) ([]Scaling, error) {
	run, adopts := sizes(pods, asTold)
	sets, _, err := objects.List[*appsv1.ReplicaSet](ctx, c, objects.ListOptions{})
	if err != nil {
		return nil, err
	}
	wants := map[owner]int32{}
	touched := map[owner]bool{}
	for _, s := range sets {
		k := key{s.Namespace, s.Name}
		o := owner{api.ReplicaSet.Name, k}
		wants[o], touched[o] = run[k], adopts[k]
		if up := metav1.GetControllerOf(s); up != nil && up.Kind == api.Deployment.Name {
			o = owner{api.Deployment.Name, key{s.Namespace, up.Name}}
			wants[o] += run[k]
			touched[o] = touched[o] || adopts[k]
		}
	}
	// A Deployment and its sets: whoever looks first when the hold ends finds it right.
	var done []Scaling
	for _, o := range sorted(touched) {
		scaled, err := raise(ctx, c, o, wants[o])
		if err != nil {
			return done, err
		}
		if scaled != nil {
			done = append(done, *scaled)
		}
	}
	return done, nil
}

// sizes are how many pods of each ReplicaSet run, and whether some are to be adopted.
func sizes(pods []*kubepb.RecoveredPod, asTold bool) (run map[key]int32, adopts map[key]bool) {
	run, adopts = map[key]int32{}, map[key]bool{}
	for _, p := range pods {
		name, ok := strings.CutPrefix(p.Controller, api.ReplicaSet.Name+"/")
		if !ok || p.Singleton && !p.Running || p.List == kubepb.RecoveredPod_RECORDED || p.Pruned || p.Doubt != "" && !asTold {
			continue
		}
		k := key{p.Namespace, name}
		run[k]++
		adopts[k] = adopts[k] || p.List == kubepb.RecoveredPod_RUNNING
	}
	return run, adopts
}

type key struct{ namespace, name string }

type owner struct {
	kind string
	key
}

func sorted(set map[owner]bool) []owner {
	var all []owner
	for o, in := range set {
		if in {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b owner) int {
		return strings.Compare(a.kind+"/"+a.namespace+"/"+a.name, b.kind+"/"+b.namespace+"/"+b.name)
	})
	return all
}

// raise makes something as large as what runs of it. It never makes it smaller.
func raise(ctx context.Context, c *objects.Client, o owner, to int32) (*Scaling, error) {
	is := int32(1)
	var replicas *int32
	if o.kind == api.Deployment.Name {
		d, err := objects.Get[*appsv1.Deployment](ctx, c, o.namespace, o.name)
		if errors.Is(err, objects.ErrNotFound) {
			return nil, nil // Its pods are recorded without it.
		}
		if err != nil {
			return nil, err
		}
		replicas = d.Spec.Replicas
	} else {
		s, err := objects.Get[*appsv1.ReplicaSet](ctx, c, o.namespace, o.name)
		if err != nil {
			return nil, err
		}
		replicas = s.Spec.Replicas
	}
	if replicas != nil {
		is = *replicas
	}
	if is >= to {
		return nil, nil
	}
	ref := &kubepb.Ref{Kind: o.kind, Namespace: o.namespace, Name: o.name}
	if _, err := c.Scale(ctx, &kubepb.ScaleRequest{Object: ref, Replicas: to}); err != nil {
		return nil, fmt.Errorf("size of %s %s/%s: %w", o.kind, o.namespace, o.name, err)
	}
	return &Scaling{ref, is, to}, nil
}
