package endpoint

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/kube/controller/replica"
)

// story is a Service and its pods, changed by a script; what is planned is done.
type story struct {
	t *testing.T
	f Facts
}

func (s *story) run(c golden.Command) string {
	switch c.Name {
	case "service":
		s.f.Service = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "svc"}}
		s.f.Service.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.Parse(c.Arg("target"))}}
		if !c.Has("without-selector") {
			s.f.Service.Spec.Selector = map[string]string{"app": "web"}
		}
		s.f.Service.Spec.PublishNotReadyAddresses = c.Has("publish-not-ready")
		for _, family := range strings.Fields(strings.ReplaceAll(c.Arg("families"), "+", " ")) {
			s.f.Service.Spec.IPFamilies = append(s.f.Service.Spec.IPFamilies, corev1.IPFamily(family))
		}
	case "node":
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: c.Args[0].Key, Labels: map[string]string{corev1.LabelTopologyZone: c.Arg("zone")}}}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		if c.Has("silent") {
			n.Status.Conditions[0].Status = corev1.ConditionUnknown
		}
		s.f.Nodes[n.Name] = n
	case "pod":
		s.pod(c)
	case "gone":
		s.f.Pods = slices.DeleteFunc(s.f.Pods, func(p *corev1.Pod) bool { return p.Name == c.Args[0].Key })
	case "many":
		for i := range 250 {
			s.pod(golden.Command{Args: []golden.Arg{{Key: fmt.Sprintf("p%03d", i)}, {Key: "ip", Value: fmt.Sprintf("10.0.1.%d", i)}, {Key: "ready"}, {Key: "on", Value: "n1"}}})
		}
	default:
		s.t.Fatalf("unknown command %q", c.Name)
	}
	return s.plan(c.Has("short") || c.Name == "many")
}

func (s *story) pod(c golden.Command) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: c.Args[0].Key, UID: types.UID(c.Args[0].Key), Labels: map[string]string{"app": "web"}}}
	p.Spec.NodeName, p.Status.PodIP, p.Status.Phase = c.Arg("on"), c.Arg("ip"), corev1.PodRunning
	p.Spec.Containers = []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}}}}
	if app := c.Arg("app"); app != "" {
		p.Labels["app"] = app
	}
	if ip := c.Arg("ip6"); ip != "" {
		p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}, {IP: ip}}
	}
	if port := c.Arg("port"); port != "" {
		p.Spec.Containers[0].Ports[0].ContainerPort = intstr.Parse(port).IntVal
	}
	if c.Has("failed") {
		p.Status.Phase = corev1.PodFailed
	}
	replica.SetReady(&p.Status, c.Has("ready"), "", metav1.Now().Time)
	if c.Has("terminating") {
		now := metav1.Now()
		p.DeletionTimestamp = &now
	}
	s.f.Pods = slices.DeleteFunc(s.f.Pods, func(other *corev1.Pod) bool { return other.Name == p.Name })
	s.f.Pods = append(s.f.Pods, p)
}

func (s *story) plan(short bool) string {
	if s.f.Service == nil {
		return ""
	}
	p := Make(s.f)
	var b strings.Builder
	for _, e := range p.Delete {
		fmt.Fprintf(&b, "delete %s\n", e.Name)
		s.f.Slices = slices.DeleteFunc(s.f.Slices, func(other *discoveryv1.EndpointSlice) bool { return other.Name == e.Name })
	}
	for _, e := range p.Update {
		i := slices.IndexFunc(s.f.Slices, func(other *discoveryv1.EndpointSlice) bool { return other.Name == e.Name })
		s.f.Slices[i] = e
		b.WriteString("update " + text(e, short))
	}
	for _, e := range p.Create {
		s.f.Slices = append(s.f.Slices, e)
		b.WriteString("create " + text(e, short))
	}
	return b.String()
}

func text(e *discoveryv1.EndpointSlice, short bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s%s %d addresses\n", e.Name, e.AddressType, keyOf(e.Ports), len(e.Endpoints))
	for _, p := range e.Endpoints {
		if short {
			break
		}
		fmt.Fprintf(&b, "  %s ready=%v serving=%v terminating=%v", p.Addresses[0], *p.Conditions.Ready, *p.Conditions.Serving, *p.Conditions.Terminating)
		if p.NodeName != nil {
			fmt.Fprintf(&b, " node=%s", *p.NodeName)
		}
		if p.Zone != nil {
			fmt.Fprintf(&b, " zone=%s", *p.Zone)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestStories(t *testing.T) {
	for _, name := range []string{"life", "many", "kinds"} {
		t.Run(name, func(t *testing.T) {
			s := &story{t, Facts{Nodes: map[string]*corev1.Node{}}}
			golden.Script(t, "testdata/"+name, s.run)
		})
	}
}
