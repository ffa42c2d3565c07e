package cluster

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/holdfast-db/holdfast/kube/api"
)

// containersOf are the names and images of a pod's containers.
func containersOf(spec *corev1.PodSpec) (names, images string) {
	var n, i []string
	for _, c := range spec.Containers {
		n, i = append(n, c.Name), append(i, c.Image)
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}

func deploymentCells(o api.Object, now time.Time) []string {
	d := o.(*appsv1.Deployment)
	names, images := containersOf(&d.Spec.Template.Spec)
	return []string{
		d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, deref(d.Spec.Replicas, 1)), count(d.Status.UpdatedReplicas),
		count(d.Status.AvailableReplicas), since(now, d.CreationTimestamp), names, images, selectorText(d.Spec.Selector),
	}
}

func replicaSetCells(o api.Object, now time.Time) []string {
	r := o.(*appsv1.ReplicaSet)
	names, images := containersOf(&r.Spec.Template.Spec)
	return []string{
		r.Name, count(deref(r.Spec.Replicas, 1)), count(r.Status.Replicas), count(r.Status.ReadyReplicas), since(now, r.CreationTimestamp),
		names, images, selectorText(r.Spec.Selector),
	}
}

func serviceCells(o api.Object, now time.Time) []string {
	s := o.(*corev1.Service)
	ip := s.Spec.ClusterIP
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		ip = ""
	}
	external := strings.Join(s.Spec.ExternalIPs, ",")
	switch s.Spec.Type {
	case corev1.ServiceTypeExternalName:
		external = s.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		for _, i := range s.Status.LoadBalancer.Ingress {
			external = strings.Trim(external+","+i.IP+i.Hostname, ",")
		}
		if external == "" {
			external = "<pending>"
		}
	}
	return []string{
		s.Name, string(s.Spec.Type), orNone(ip), orNone(external), servicePorts(s), since(now, s.CreationTimestamp), labelText(s.Spec.Selector),
	}
}

func servicePorts(s *corev1.Service) string {
	var ports []string
	for _, p := range s.Spec.Ports {
		text := count(p.Port)
		if p.NodePort != 0 {
			text += ":" + count(p.NodePort)
		}
		ports = append(ports, text+"/"+string(p.Protocol))
	}
	return orNone(strings.Join(ports, ","))
}

// shownMax is how many of a list a cell has.
const shownMax = 3

func some(words []string) string {
	if len(words) > shownMax {
		return fmt.Sprintf("%s + %d more...", strings.Join(words[:shownMax], ","), len(words)-shownMax)
	}
	return strings.Join(words, ",")
}

func endpointCells(o api.Object, now time.Time) []string {
	e := o.(*discoveryv1.EndpointSlice)
	var ports, addresses []string
	for _, p := range e.Ports {
		if p.Port != nil {
			ports = append(ports, count(*p.Port))
		}
	}
	for _, p := range e.Endpoints {
		addresses = append(addresses, p.Addresses...)
	}
	unset := func(s string) string {
		if s == "" {
			return "<unset>"
		}
		return s
	}
	return []string{e.Name, string(e.AddressType), unset(some(ports)), unset(some(addresses)), since(now, e.CreationTimestamp)}
}

func eventCells(o api.Object, now time.Time) []string {
	e := o.(*corev1.Event)
	first, last, times := e.FirstTimestamp, e.LastTimestamp, e.Count
	if first.IsZero() {
		first = metav1.Time(e.EventTime)
	}
	if last.IsZero() {
		last = first
	}
	if e.Series != nil {
		last, times = metav1.Time(e.Series.LastObservedTime), e.Series.Count
	}
	source := e.Source.Component
	if source == "" {
		source = e.ReportingController
	}
	if e.Source.Host != "" {
		source += ", " + e.Source.Host
	}
	return []string{
		since(now, last), e.Type, e.Reason, strings.ToLower(e.InvolvedObject.Kind) + "/" + e.InvolvedObject.Name, printable(strings.TrimSpace(e.Message)),
		e.InvolvedObject.FieldPath, source, since(now, first), count(max(times, 1)), e.Name,
	}
}

func leaseCells(o api.Object, now time.Time) []string {
	l := o.(*coordinationv1.Lease)
	return []string{l.Name, deref(l.Spec.HolderIdentity, ""), since(now, l.CreationTimestamp)}
}

func autoscalerCells(o api.Object, now time.Time) []string {
	h := o.(*autoscalingv2.HorizontalPodAutoscaler)
	return []string{
		h.Name, h.Spec.ScaleTargetRef.Kind + "/" + h.Spec.ScaleTargetRef.Name, metrics(h), count(deref(h.Spec.MinReplicas, 1)), count(h.Spec.MaxReplicas),
		count(h.Status.CurrentReplicas), since(now, h.CreationTimestamp),
	}
}

func metrics(h *autoscalingv2.HorizontalPodAutoscaler) string {
	var all []string
	for _, m := range h.Spec.Metrics {
		if m.Resource == nil {
			all = append(all, string(m.Type)+": <unknown>")
			continue
		}
		now := "<unknown>"
		for _, c := range h.Status.CurrentMetrics {
			if c.Resource == nil || c.Resource.Name != m.Resource.Name {
				continue
			}
			if u := c.Resource.Current.AverageUtilization; u != nil {
				now = count(*u) + "%"
			} else if v := c.Resource.Current.AverageValue; v != nil {
				now = v.String()
			}
		}
		want := "<unknown>"
		if u := m.Resource.Target.AverageUtilization; u != nil {
			want = count(*u) + "%"
		} else if v := m.Resource.Target.AverageValue; v != nil {
			want = v.String()
		}
		all = append(all, fmt.Sprintf("%s: %s/%s", m.Resource.Name, now, want))
	}
	return orNone(strings.Join(all, ", "))
}

func budgetCells(o api.Object, now time.Time) []string {
	b := o.(*policyv1.PodDisruptionBudget)
	orNA := func(v *intstr.IntOrString) string {
		if v == nil {
			return "N/A"
		}
		return v.String()
	}
	return []string{b.Name, orNA(b.Spec.MinAvailable), orNA(b.Spec.MaxUnavailable), count(b.Status.DisruptionsAllowed), since(now, b.CreationTimestamp)}
}

func priorityCells(o api.Object, now time.Time) []string {
	p := o.(*schedulingv1.PriorityClass)
	return []string{
		p.Name, count(p.Value), strconv.FormatBool(p.GlobalDefault), since(now, p.CreationTimestamp),
		string(deref(p.PreemptionPolicy, corev1.PreemptLowerPriority)),
	}
}

func requestCells(o api.Object, now time.Time) []string {
	r := o.(*certificatesv1.CertificateSigningRequest)
	asked := ""
	if s := r.Spec.ExpirationSeconds; s != nil {
		asked = duration.HumanDuration(time.Duration(*s) * time.Second)
	}
	return []string{r.Name, since(now, r.CreationTimestamp), r.Spec.SignerName, r.Spec.Username, orNone(asked), requestStatus(r)}
}

func requestStatus(r *certificatesv1.CertificateSigningRequest) string {
	var words []string
	for _, c := range r.Status.Conditions {
		words = append(words, string(c.Type))
	}
	if len(words) == 0 {
		words = []string{"Pending"}
	}
	if len(r.Status.Certificate) > 0 {
		words = append(words, "Issued")
	}
	return strings.Join(words, ",")
}
