package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/kubelet"
)

// columns are those of one kind. Wide ones stand behind the others and are for -o wide.
type columns struct {
	names, wide []string
	cells       func(o api.Object, now time.Time) []string // Of names and wide.
	order       []int                                      // Of -o wide. Nil: as they are.
}

// columnsOf are kubectl's, kind by kind.
func columnsOf(k *api.Kind) columns {
	workload := []string{"CONTAINERS", "IMAGES", "SELECTOR"}
	return map[*api.Kind]columns{
		api.Pod: {[]string{"NAME", "READY", "STATUS", "RESTARTS", "AGE"}, []string{"IP", "NODE", "NOMINATED NODE", "READINESS GATES"}, podCells, nil},
		api.Node: {[]string{"NAME", "STATUS", "ROLES", "AGE", "VERSION"},
			[]string{"INTERNAL-IP", "EXTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION", "CONTAINER-RUNTIME"}, nodeCells, nil},
		api.Deployment: {[]string{"NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"}, workload, deploymentCells, nil},
		api.ReplicaSet: {[]string{"NAME", "DESIRED", "CURRENT", "READY", "AGE"}, workload, replicaSetCells, nil},
		api.Service:    {[]string{"NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"}, []string{"SELECTOR"}, serviceCells, nil},
		api.Namespace:  {[]string{"NAME", "STATUS", "AGE"}, nil, namespaceCells, nil},
		api.ConfigMap:  {[]string{"NAME", "DATA", "AGE"}, nil, configMapCells, nil},
		api.Secret:     {[]string{"NAME", "TYPE", "DATA", "AGE"}, nil, secretCells, nil},
		api.Endpoints:  {[]string{"NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"}, nil, endpointCells, nil},
		api.Event: {[]string{"LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"},
			[]string{"SUBOBJECT", "SOURCE", "FIRST SEEN", "COUNT", "NAME"}, eventCells, []int{0, 1, 2, 3, 5, 6, 4, 7, 8, 9}},
		api.Lease:       {[]string{"NAME", "HOLDER", "AGE"}, nil, leaseCells, nil},
		api.Autoscaler:  {[]string{"NAME", "REFERENCE", "TARGETS", "MINPODS", "MAXPODS", "REPLICAS", "AGE"}, nil, autoscalerCells, nil},
		api.Budget:      {[]string{"NAME", "MIN AVAILABLE", "MAX UNAVAILABLE", "ALLOWED DISRUPTIONS", "AGE"}, nil, budgetCells, nil},
		api.Priority:    {[]string{"NAME", "VALUE", "GLOBAL-DEFAULT", "AGE", "PREEMPTIONPOLICY"}, nil, priorityCells, nil},
		api.CertRequest: {[]string{"NAME", "AGE", "SIGNERNAME", "REQUESTOR", "REQUESTEDDURATION", "CONDITION"}, nil, requestCells, nil},
	}[k]
}

func podCells(o api.Object, now time.Time) []string {
	p := o.(*corev1.Pod)
	ready, total, restarts, last := 0, len(p.Spec.Containers), int32(0), metav1.Time{}
	for i := range p.Spec.InitContainers {
		if api.Sidecar(&p.Spec.InitContainers[i]) {
			total++
		}
	}
	count := func(s *corev1.ContainerStatus) {
		restarts += s.RestartCount
		if t := s.LastTerminationState.Terminated; t != nil && last.Before(&t.FinishedAt) {
			last = t.FinishedAt
		}
	}
	for i := range p.Status.InitContainerStatuses {
		s := &p.Status.InitContainerStatuses[i]
		if sidecar(p, s.Name) {
			count(s)
			if s.Ready {
				ready++
			}
		}
	}
	for i := range p.Status.ContainerStatuses {
		s := &p.Status.ContainerStatuses[i]
		count(s)
		if s.Ready && s.State.Running != nil {
			ready++
		}
	}
	restarted := fmt.Sprint(restarts)
	if restarts > 0 && !last.IsZero() {
		restarted += fmt.Sprintf(" (%s ago)", since(now, last))
	}
	return []string{
		p.Name, fmt.Sprintf("%d/%d", ready, total), podStatus(p), restarted, since(now, p.CreationTimestamp),
		orNone(p.Status.PodIP), orNone(p.Spec.NodeName), orNone(p.Status.NominatedNodeName), gates(p),
	}
}

func sidecar(p *corev1.Pod, name string) bool {
	return slices.ContainsFunc(p.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name && api.Sidecar(&c) })
}

func gates(p *corev1.Pod) string {
	if len(p.Spec.ReadinessGates) == 0 {
		return "<none>"
	}
	met := 0
	for _, g := range p.Spec.ReadinessGates {
		for _, c := range p.Status.Conditions {
			if c.Type == g.ConditionType && c.Status == corev1.ConditionTrue {
				met++
			}
		}
	}
	return fmt.Sprintf("%d/%d", met, len(p.Spec.ReadinessGates))
}

// podStatus is the word for how a pod is: that of its phase, or what keeps it.
func podStatus(p *corev1.Pod) string {
	status := string(p.Status.Phase)
	if p.Status.Reason != "" {
		status = p.Status.Reason
	}
	if waits := initStatus(p); waits != "" {
		status = waits
	} else {
		status = containersStatus(p, status)
	}
	if p.DeletionTimestamp != nil {
		if p.Status.Reason == "NodeLost" {
			return "Unknown"
		}
		return "Terminating"
	}
	return status
}

// initStatus is what the containers that go before the others are at; empty: done.
func initStatus(p *corev1.Pod) string {
	for i, s := range p.Status.InitContainerStatuses {
		t, w := s.State.Terminated, s.State.Waiting
		switch {
		case t != nil && t.ExitCode == 0, sidecar(p, s.Name) && s.Started != nil && *s.Started:
			continue
		case t != nil && t.Reason != "":
			return "Init:" + t.Reason
		case t != nil && t.Signal != 0:
			return fmt.Sprintf("Init:Signal:%d", t.Signal)
		case t != nil:
			return fmt.Sprintf("Init:ExitCode:%d", t.ExitCode)
		case w != nil && w.Reason != "" && w.Reason != "PodInitializing":
			return "Init:" + w.Reason
		}
		return fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
	}
	return ""
}

func containersStatus(p *corev1.Pod, status string) string {
	running := false
	for _, s := range slices.Backward(p.Status.ContainerStatuses) {
		t, w := s.State.Terminated, s.State.Waiting
		switch {
		case w != nil && w.Reason != "":
			status = w.Reason
		case t != nil && t.Reason != "":
			status = t.Reason
		case t != nil && t.Signal != 0:
			status = fmt.Sprintf("Signal:%d", t.Signal)
		case t != nil:
			status = fmt.Sprintf("ExitCode:%d", t.ExitCode)
		case s.Ready && s.State.Running != nil:
			running = true
		}
	}
	if status == "Completed" && running {
		if api.IsReady(p) {
			return "Running"
		}
		return "NotReady"
	}
	return status
}

func nodeCells(o api.Object, now time.Time) []string {
	n := o.(*corev1.Node)
	address := func(t corev1.NodeAddressType) string {
		for _, a := range n.Status.Addresses {
			if a.Type == t {
				return a.Address
			}
		}
		return "<none>"
	}
	info := &n.Status.NodeInfo
	return []string{
		n.Name, nodeStatus(n), nodeRoles(n), since(now, n.CreationTimestamp), info.KubeletVersion,
		address(corev1.NodeInternalIP), address(corev1.NodeExternalIP), orUnknown(info.OSImage), orUnknown(info.KernelVersion), orUnknown(info.ContainerRuntimeVersion),
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "<unknown>"
	}
	return s
}

func nodeStatus(n *corev1.Node) string {
	status := "Unknown"
	if c := api.NodeReady(n); c != nil {
		status = "NotReady"
		if c.Status == corev1.ConditionTrue {
			status = "Ready"
		}
	}
	for _, c := range n.Status.Conditions {
		switch {
		case c.Type == corev1.NodeDiskPressure && c.Status == corev1.ConditionTrue:
			status += ",DiskPressure"
		case c.Type == kubelet.Isolated && c.Status == corev1.ConditionFalse: // What runs there can reach all of the machine.
			status += ",NotIsolated"
		}
	}
	if n.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	return status
}

const roleLabel = "node-role.kubernetes.io/"

func nodeRoles(n *corev1.Node) string {
	var roles []string
	for name, value := range n.Labels { //tidy:ordered sorted below
		if role, ok := strings.CutPrefix(name, roleLabel); ok && role != "" {
			roles = append(roles, role)
		} else if name == "kubernetes.io/role" && value != "" {
			roles = append(roles, value)
		}
	}
	slices.Sort(roles)
	return orNone(strings.Join(roles, ","))
}

func namespaceCells(o api.Object, now time.Time) []string {
	n := o.(*corev1.Namespace)
	return []string{n.Name, string(n.Status.Phase), since(now, n.CreationTimestamp)}
}

func configMapCells(o api.Object, now time.Time) []string {
	c := o.(*corev1.ConfigMap)
	return []string{c.Name, fmt.Sprint(len(c.Data) + len(c.BinaryData)), since(now, c.CreationTimestamp)}
}

func secretCells(o api.Object, now time.Time) []string {
	s := o.(*corev1.Secret)
	return []string{s.Name, string(s.Type), fmt.Sprint(len(s.Data)), since(now, s.CreationTimestamp)}
}

// labelText is labels as they are written in selectors, sorted.
func labelText(l map[string]string) string { return orNone(labels.Set(l).String()) }

func selectorText(l *metav1.LabelSelector) string { return orNone(metav1.FormatLabelSelector(l)) }
