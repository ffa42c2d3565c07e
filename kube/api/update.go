package api

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateUpdate checks what of an object may not change, beside Validate of the
// new one.
func ValidateUpdate(updated, old Object) field.ErrorList {
	if KindOf(updated) != KindOf(old) {
		return field.ErrorList{field.Invalid(field.NewPath("kind"), KindOf(updated).Name, "must stay as it is")}
	}
	p := problems{list: validation.ValidateObjectMetaAccessorUpdate(updated, old, field.NewPath("metadata"))}
	spec := field.NewPath("spec")
	switch o := updated.(type) {
	case *corev1.Pod:
		p.podUpdate(&o.Spec, &old.(*corev1.Pod).Spec, spec)
	case *appsv1.ReplicaSet:
		p.same(spec.Child("selector"), o.Spec.Selector, old.(*appsv1.ReplicaSet).Spec.Selector)
	case *appsv1.Deployment:
		p.same(spec.Child("selector"), o.Spec.Selector, old.(*appsv1.Deployment).Spec.Selector)
	case *corev1.Service:
		p.serviceUpdate(&o.Spec, &old.(*corev1.Service).Spec, spec)
	case *discoveryv1.EndpointSlice:
		p.same(field.NewPath("addressType"), o.AddressType, old.(*discoveryv1.EndpointSlice).AddressType)
	case *corev1.ConfigMap:
		p.configMapUpdate(o, old.(*corev1.ConfigMap))
	case *corev1.Secret:
		p.secretUpdate(o, old.(*corev1.Secret))
	case *corev1.Node:
		p.nodeUpdate(&o.Spec, &old.(*corev1.Node).Spec, spec)
	case *schedulingv1.PriorityClass:
		p.same(field.NewPath("value"), o.Value, old.(*schedulingv1.PriorityClass).Value)
		p.same(field.NewPath("preemptionPolicy"), o.PreemptionPolicy, old.(*schedulingv1.PriorityClass).PreemptionPolicy)
	case *certificatesv1.CertificateSigningRequest:
		p.same(spec, o.Spec, old.(*certificatesv1.CertificateSigningRequest).Spec)
	}
	return p.list
}

// same checks a field that may not change.
func (p *problems) same(path *field.Path, updated, old any) {
	if !equality.Semantic.DeepEqual(updated, old) {
		p.add(field.Forbidden(path, "must stay as it is; delete the object and create it anew"))
	}
}

// once checks a field that may be set, but not changed then.
func (p *problems) once(path *field.Path, updated, old string) {
	if old != "" {
		p.same(path, updated, old)
	}
}

const podUpdates = "of a pod's spec only images, activeDeadlineSeconds (less), tolerations (more) and schedulingGates (fewer) may change; change its Deployment, or delete the pod and create it anew"

func (p *problems) podUpdate(updated, old *corev1.PodSpec, path *field.Path) {
	if updated.NodeName != old.NodeName {
		p.add(field.Forbidden(path.Child("nodeName"), "only binding sets it, once"))
	}
	for i, t := range old.Tolerations {
		if !slices.ContainsFunc(updated.Tolerations, func(u corev1.Toleration) bool { return equality.Semantic.DeepEqual(u, t) }) {
			p.add(field.Forbidden(path.Child("tolerations").Index(i), "a toleration cannot be taken away"))
		}
	}
	if was := old.ActiveDeadlineSeconds; was != nil {
		if now := updated.ActiveDeadlineSeconds; now == nil || *now > *was {
			p.add(field.Forbidden(path.Child("activeDeadlineSeconds"), "can only become less"))
		}
	}
	for i, gate := range updated.SchedulingGates {
		if !slices.Contains(old.SchedulingGates, gate) {
			p.add(field.Forbidden(path.Child("schedulingGates").Index(i), "a gate can only be taken away"))
		}
	}
	rest := updated.DeepCopy()
	rest.SchedulingGates = old.SchedulingGates
	rest.NodeName = old.NodeName
	rest.Tolerations = old.Tolerations
	rest.ActiveDeadlineSeconds = old.ActiveDeadlineSeconds
	keepImages(rest.Containers, old.Containers)
	keepImages(rest.InitContainers, old.InitContainers)
	if !equality.Semantic.DeepEqual(rest, old) {
		p.add(field.Forbidden(path, podUpdates))
	}
}

func keepImages(updated, old []corev1.Container) {
	for i := range min(len(updated), len(old)) {
		updated[i].Image = old[i].Image
	}
}

func (p *problems) serviceUpdate(updated, old *corev1.ServiceSpec, path *field.Path) {
	// A service that becomes a mere name gives its address back.
	if updated.Type != corev1.ServiceTypeExternalName && old.Type != corev1.ServiceTypeExternalName {
		p.once(path.Child("clusterIP"), updated.ClusterIP, old.ClusterIP)
	}
}

func (p *problems) configMapUpdate(updated, old *corev1.ConfigMap) {
	if old.Immutable == nil || !*old.Immutable {
		return
	}
	p.same(field.NewPath("immutable"), updated.Immutable, old.Immutable)
	p.same(field.NewPath("data"), updated.Data, old.Data)
	p.same(field.NewPath("binaryData"), updated.BinaryData, old.BinaryData)
}

func (p *problems) secretUpdate(updated, old *corev1.Secret) {
	p.same(field.NewPath("type"), updated.Type, old.Type)
	if old.Immutable == nil || !*old.Immutable {
		return
	}
	p.same(field.NewPath("immutable"), updated.Immutable, old.Immutable)
	p.same(field.NewPath("data"), updated.Data, old.Data)
}

func (p *problems) nodeUpdate(updated, old *corev1.NodeSpec, path *field.Path) {
	p.once(path.Child("podCIDR"), updated.PodCIDR, old.PodCIDR)
	if len(old.PodCIDRs) > 0 {
		p.same(path.Child("podCIDRs"), updated.PodCIDRs, old.PodCIDRs)
	}
	p.once(path.Child("providerID"), updated.ProviderID, old.ProviderID)
}
