package cluster

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/holdfast-db/holdfast/kube/api"
)

func (p *page) node(o *corev1.Node, pods []*corev1.Pod) {
	p.field("Roles", nodeRoles(o))
	p.list("Taints", taints(o.Spec.Taints))
	p.field("Unschedulable", o.Spec.Unschedulable)
	if len(o.Status.Conditions) > 0 {
		p.under("Conditions:", func() {
			p.line("Type", "Status", "Reason", "Message")
			for _, c := range o.Status.Conditions {
				p.line(string(c.Type), string(c.Status), c.Reason, c.Message)
			}
		})
	}
	if len(o.Status.Addresses) > 0 {
		p.under("Addresses:", func() {
			for _, a := range o.Status.Addresses {
				p.field(string(a.Type), a.Address)
			}
		})
	}
	p.quantities("Capacity", o.Status.Capacity)
	p.quantities("Allocatable", o.Status.Allocatable)
	i := &o.Status.NodeInfo
	p.under("System Info:", func() {
		p.field("Kernel Version", i.KernelVersion)
		p.field("OS Image", i.OSImage)
		p.field("Operating System", i.OperatingSystem)
		p.field("Architecture", i.Architecture)
		p.field("Container Runtime Version", i.ContainerRuntimeVersion)
		p.field("Kubelet Version", i.KubeletVersion)
	})
	if o.Spec.PodCIDR != "" {
		p.field("PodCIDR", o.Spec.PodCIDR)
	}
	p.allocated(o, pods)
}

func taints(list []corev1.Taint) []string {
	var lines []string
	for _, t := range list {
		lines = append(lines, taintText(t))
	}
	return lines
}

func taintText(t corev1.Taint) string {
	text := t.Key
	if t.Value != "" {
		text += "=" + t.Value
	}
	if t.Effect != "" {
		text += ":" + string(t.Effect)
	}
	return text
}

// allocated are the pods of a node, and what they were promised.
func (p *page) allocated(o *corev1.Node, pods []*corev1.Pod) {
	pods = slices.DeleteFunc(slices.Clone(pods), finished)
	p.under(fmt.Sprintf("Non-terminated Pods: (%d in total)", len(pods)), func() {
		if len(pods) == 0 {
			return
		}
		p.line("Namespace", "Name", "CPU Requests", "Memory Requests", "Age")
		p.line("---------", "----", "------------", "---------------", "---")
		for _, pod := range pods {
			r := api.PodRequests(&pod.Spec)
			p.line(pod.Namespace, pod.Name, cpu(r.MilliCPU), memory(r.Memory), since(p.now, pod.CreationTimestamp))
		}
	})
	var sum api.Resources
	for _, pod := range pods {
		sum.Add(api.PodRequests(&pod.Spec))
	}
	has := api.NodeResources(o)
	p.under("Allocated resources:", func() {
		p.line("Resource", "Requests")
		p.line("--------", "--------")
		p.line("cpu", cpu(sum.MilliCPU)+share(sum.MilliCPU, has.MilliCPU))
		p.line("memory", memory(sum.Memory)+share(sum.Memory, has.Memory))
		p.line("pods", fmt.Sprint(sum.Pods)+share(sum.Pods, has.Pods))
	})
}

func finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func cpu(milli int64) string { return resource.NewMilliQuantity(milli, resource.DecimalSI).String() }

func memory(bytes int64) string { return resource.NewQuantity(bytes, resource.BinarySI).String() }

func share(n, of int64) string {
	if of <= 0 {
		return ""
	}
	return fmt.Sprintf(" (%.0f%%)", 100*float64(n)/float64(of))
}
