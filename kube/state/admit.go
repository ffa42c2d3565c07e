package state

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
)

// admit fills in what a new object gets from others, before it is checked. The lease
// is the store's that the object ends with; 0: it stays.
func (a *attempt) admit(ctx context.Context, o api.Object) (lease int64, err error) {
	switch o := o.(type) {
	case *corev1.Pod:
		o.Status.Phase = corev1.PodPending
		if err := a.secure(o); err != nil {
			return 0, err
		}
		return 0, a.prioritize(o)
	case *corev1.Namespace:
		if err := allInvalid(api.CheckEnforce(o)); err != nil {
			return 0, err
		}
		o.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
		o.Status.Phase = corev1.NamespaceActive
	case *corev1.Secret:
		takeStrings(o)
	case *corev1.Service:
		return 0, a.address(nil, o)
	case *corev1.Node:
		a.stampTaints(nil, o)
		return 0, a.subnet(nil, o)
	case *corev1.Event:
		return a.admitEvent(ctx, o)
	case *certificatesv1.CertificateSigningRequest:
		// What is signed in the end is for who asked. What he says of himself is not heard.
		o.Spec.Username, o.Spec.Groups = a.identity.Name, slices.Clone(a.identity.Groups)
		o.Spec.UID, o.Spec.Extra = "", nil
	}
	return 0, nil
}

// admitChange does the same for a change. That of a status leaves the rest as it was.
func (a *attempt) admitChange(ctx context.Context, old, o api.Object, verb auth.Verb) (lease int64, err error) {
	switch o := o.(type) {
	case *corev1.Pod:
		if verb != auth.Status && !samePart(o, old, "Spec") {
			return 0, a.secure(o)
		}
	case *corev1.Namespace:
		if o.Labels[api.EnforceLabel] != old.GetLabels()[api.EnforceLabel] {
			return 0, allInvalid(api.CheckEnforce(o))
		}
	case *corev1.Secret:
		takeStrings(o)
	case *corev1.Service:
		return 0, a.address(old.(*corev1.Service), o)
	case *corev1.Node:
		a.stampTaints(old.(*corev1.Node).Spec.Taints, o)
		return 0, a.subnet(old.(*corev1.Node), o)
	case *corev1.Event:
		return a.admitEvent(ctx, o)
	}
	return 0, nil
}

// stampTaints says of taints that drive pods out since when they are there, where who put
// them did not: pods that bear one for a while bear it from then on.
func (a *attempt) stampTaints(before []corev1.Taint, n *corev1.Node) {
	for i := range n.Spec.Taints {
		t := &n.Spec.Taints[i]
		if t.Effect != corev1.TaintEffectNoExecute || t.TimeAdded != nil {
			continue
		}
		now := metav1.NewTime(a.now.UTC().Truncate(time.Second))
		t.TimeAdded = &now
		for _, b := range before {
			if b.Key == t.Key && b.Value == t.Value && b.Effect == t.Effect && b.TimeAdded != nil {
				t.TimeAdded = b.TimeAdded
			}
		}
	}
}

// secure holds a pod to what its namespace allows. That of a static pod is its node's
// affair: it runs there already.
func (a *attempt) secure(p *corev1.Pod) error {
	if _, node := a.identity.NodeName(); node && api.IsMirror(p) {
		return nil
	}
	ns, _, err := a.shared(api.Namespace, "", p.Namespace)
	if err != nil || ns == nil {
		return err // That there is none is said by whoever looks for it.
	}
	return allInvalid(api.CheckSecurity(ns.GetLabels()[api.EnforceLabel], &p.Spec))
}

// takeStrings makes data of what a person wrote as text.
func takeStrings(s *corev1.Secret) {
	if len(s.StringData) == 0 {
		return
	}
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	for _, k := range slices.Sorted(maps.Keys(s.StringData)) {
		s.Data[k] = []byte(s.StringData[k])
	}
	s.StringData = nil
}

// Priorities that exist without an object.
var builtinPriorities = map[string]int32{"system-cluster-critical": 2000000000, "system-node-critical": 2000001000}

// prioritize gives a pod the number of its priority class.
func (a *attempt) prioritize(p *corev1.Pod) error {
	var value int32
	var policy *corev1.PreemptionPolicy
	switch name := p.Spec.PriorityClassName; {
	case name == "":
		class := a.service.cache.defaultPriority()
		if class != nil {
			p.Spec.PriorityClassName, value, policy = class.Name, class.Value, class.PreemptionPolicy
		}
	case builtinPriorities[name] != 0:
		value = builtinPriorities[name]
	default:
		if !plainName(name) {
			return invalid("spec.priorityClassName: %q is no name", shorten(name))
		}
		o, _, err := a.object(api.Priority, "", name)
		if err != nil {
			return err
		}
		if o == nil {
			return invalid("spec.priorityClassName: there is no PriorityClass %q", name)
		}
		class := o.(*schedulingv1.PriorityClass)
		value, policy = class.Value, class.PreemptionPolicy
	}
	if p.Spec.Priority != nil && *p.Spec.Priority != value {
		return invalid("spec.priority: it is %d, and the priority class gives %d; leave it out", *p.Spec.Priority, value)
	}
	p.Spec.Priority = &value
	if p.Spec.PreemptionPolicy == nil && policy != nil {
		p.Spec.PreemptionPolicy = policy
	}
	return nil
}

// defaultPriority is the class of pods that name none. Nil: there is none.
func (c *cache) defaultPriority() *schedulingv1.PriorityClass {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var best *schedulingv1.PriorityClass
	for _, e := range c.mu.shelves[api.Priority].sorted {
		class, ok := e.object.(*schedulingv1.PriorityClass)
		if ok && class.GlobalDefault && (best == nil || class.Value < best.Value) {
			best = class
		}
	}
	return best
}

// CheckRanges says what is wrong with ranges that somebody chose, before there is a
// service that has them.
func CheckRanges(services, pods netip.Prefix) error {
	c := Config{ServiceRange: services, PodRange: pods, SubnetBits: defaultSubnetBits}
	return checkRanges(&c)
}

// checkRanges says what is wrong with the ranges of addresses.
func checkRanges(c *Config) error {
	if !c.ServiceRange.Addr().Is4() || c.ServiceRange.Bits() > 28 {
		return fmt.Errorf("service range %v: it is an IPv4 range of at least 16 addresses", c.ServiceRange)
	}
	if !c.PodRange.Addr().Is4() || c.SubnetBits <= c.PodRange.Bits() || c.SubnetBits > 30 {
		return fmt.Errorf("pod range %v: it is an IPv4 range, and subnets of /%d are parts of it", c.PodRange, c.SubnetBits)
	}
	if c.ServiceRange.Overlaps(c.PodRange) {
		return fmt.Errorf("services in %v and pods in %v would have the same addresses: choose ranges that do not overlap", c.ServiceRange, c.PodRange)
	}
	return nil
}
