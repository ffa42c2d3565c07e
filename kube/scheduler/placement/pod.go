package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/api"
)

// Key names a pod.
type Key struct{ Namespace, Name string }

func (k Key) String() string { return k.Namespace + "/" + k.Name }

// Pod is a pod, read once so that decisions need not. It never changes.
//
// It has more fields than most types: one for each thing that a rule looks at.
type Pod struct {
	Key
	UID      types.UID
	Priority int32

	labels      labels.Set
	owner       types.UID // Of the controller.
	terminating bool

	requests    resources
	weighs      [2]int64 // CPU and memory for scores: a pod that asks for nothing still weighs.
	ports       []api.HostPort
	images      []string
	tolerations []corev1.Toleration

	nodes     *nodeMatch // nil: any.
	preferred []preferredNodes
	spread    []constraint
	affinity  []*term
	anti      []*term
	soft      []softTerm

	refusedBy map[string]bool // Nodes that it is not tried on.
}

// RefusedBy is the pod as one that some nodes had no room for, though they seem to: their
// ledgers know of more than of the pods that are told.
func (p *Pod) RefusedBy(nodes map[string]bool) *Pod {
	again := *p
	again.refusedBy = nodes
	return &again
}

// preferredNodes are worth weight.
type preferredNodes struct {
	match  nodeTerm
	weight int64
}

// softTerm is a preference for, or with a negative weight against, being in a domain
// with some pods.
type softTerm struct {
	*term
	weight int64
}

// constraint is a rule of topology spread.
type constraint struct {
	*term
	hard          bool
	skew          int64
	domainsMin    int
	self          int64 // 1 if the pod is one of those that it spreads.
	anyNode       bool  // Count also nodes that the pod does not select.
	withoutTaints bool  // Do not count nodes with taints that it does not tolerate.
}

// What a pod that asks for nothing weighs when nodes are compared, as in Kubernetes.
const (
	weighsMilliCPU = 100
	weighsMemory   = 200 << 20
)

// NewPod reads a pod. With an error, what it takes from a node is right still, and
// whom it wants to be near is not known.
func NewPod(o *corev1.Pod) (*Pod, error) {
	spec := &o.Spec
	asks := api.PodRequests(spec)
	requests := resourcesFrom(asks)
	p := &Pod{
		Key: Key{Namespace: o.Namespace, Name: o.Name}, UID: o.UID, labels: o.Labels, terminating: o.DeletionTimestamp != nil,
		requests: requests, ports: asks.HostPorts, tolerations: spec.Tolerations,
		weighs: [2]int64{cmp.Or(requests.milliCPU, weighsMilliCPU), cmp.Or(requests.memory, weighsMemory)},
	}
	if spec.Priority != nil {
		p.Priority = *spec.Priority
	}
	if owner := metav1.GetControllerOfNoCopy(o); owner != nil {
		p.owner = owner.UID
	}
	for i := range spec.Containers {
		p.images = append(p.images, imageName(spec.Containers[i].Image))
	}
	var err error
	if p.nodes, err = compileNodeMatch(spec); err != nil {
		return p, err
	}
	if err = p.readAffinity(spec.Affinity); err != nil {
		return p, fmt.Errorf("affinity: %w", err)
	}
	if err = p.readSpread(spec.TopologySpreadConstraints); err != nil {
		return p, fmt.Errorf("topologySpreadConstraints: %w", err)
	}
	return p, nil
}

func (p *Pod) readAffinity(a *corev1.Affinity) error {
	if a == nil {
		return nil
	}
	if a.NodeAffinity != nil {
		for _, t := range a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
			match, err := compileNodeTerm(&t.Preference)
			if err != nil {
				return err
			}
			p.preferred = append(p.preferred, preferredNodes{match, int64(t.Weight)})
		}
	}
	if near := a.PodAffinity; near != nil {
		if err := p.readTerms(&p.affinity, near.RequiredDuringSchedulingIgnoredDuringExecution, near.PreferredDuringSchedulingIgnoredDuringExecution, 1); err != nil {
			return err
		}
	}
	if far := a.PodAntiAffinity; far != nil {
		return p.readTerms(&p.anti, far.RequiredDuringSchedulingIgnoredDuringExecution, far.PreferredDuringSchedulingIgnoredDuringExecution, -1)
	}
	return nil
}

func (p *Pod) readTerms(required *[]*term, hard []corev1.PodAffinityTerm, soft []corev1.WeightedPodAffinityTerm, sign int64) error {
	for i := range hard {
		t, err := compileTerm(&hard[i], p.Namespace, p.labels)
		if err != nil {
			return err
		}
		*required = append(*required, t)
	}
	for i := range soft {
		t, err := compileTerm(&soft[i].PodAffinityTerm, p.Namespace, p.labels)
		if err != nil {
			return err
		}
		p.soft = append(p.soft, softTerm{t, sign * int64(soft[i].Weight)})
	}
	return nil
}

func (p *Pod) readSpread(of []corev1.TopologySpreadConstraint) error {
	for i := range of {
		c := &of[i]
		selector, err := withOwn(c.LabelSelector, c.MatchLabelKeys, nil, p.labels)
		if err != nil {
			return err
		}
		t := newTerm(c.TopologyKey, []string{p.Namespace}, selector, true)
		out := constraint{
			term: t, hard: c.WhenUnsatisfiable != corev1.ScheduleAnyway, skew: max(1, int64(c.MaxSkew)),
			anyNode:       c.NodeAffinityPolicy != nil && *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyIgnore,
			withoutTaints: c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor,
		}
		if c.MinDomains != nil {
			out.domainsMin = int(*c.MinDomains)
		}
		if selector.Matches(p.labels) {
			out.self = 1
		}
		p.spread = append(p.spread, out)
	}
	return nil
}

// matchesAll reports whether the pod is one that all of the terms select.
func (p *Pod) matchesAll(terms []*term) bool {
	return !slices.ContainsFunc(terms, func(t *term) bool { return !t.matches(p) })
}

// imageName is an image's name with its tag, as nodes list it.
func imageName(s string) string {
	if s == "" || strings.LastIndexByte(s, ':') > strings.LastIndexByte(s, '/') {
		return s
	}
	return s + ":latest"
}
