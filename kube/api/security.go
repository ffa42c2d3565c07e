package api

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// EnforceLabel of a namespace says what its pods may ask of their nodes, by the pod
// security standards of Kubernetes. Without it they may ask for everything.
const EnforceLabel = "pod-security.kubernetes.io/enforce"

// Levels of EnforceLabel.
const (
	Privileged = "privileged" // Everything.
	Baseline   = "baseline"   // Nothing that gives a pod more of its node than containers have as such.
	Restricted = "restricted" // And no more of that than programs need that are no root.
)

var levels = []string{Privileged, Baseline, Restricted}

// HostRoot is the image that shows a container the root of its node.
const HostRoot = "host/root"

// asked is a container with its pod, or the pod alone.
type asked struct {
	pod *corev1.PodSpec
	c   *corev1.Container
	sec *corev1.SecurityContext // Of the container. Never nil.
	all *corev1.PodSecurityContext
}

// rule is something that a pod or a container must not ask for.
type rule struct {
	level string // From which on.
	field string
	wrong func(a *asked) bool
	why   string
}

// podRules are about pods; what else the standards forbid is refused by this layer in any
// namespace: other namespaces of the node, sysctls, labels of SELinux, and so on.
var podRules = []rule{
	{Baseline, "hostNetwork", func(a *asked) bool { return a.pod.HostNetwork }, "the network of the node"},
	{Baseline, "securityContext.seccompProfile.type", func(a *asked) bool { return unfiltered(a.all.SeccompProfile) }, "system calls that nobody filters"},
	{Baseline, "securityContext.appArmorProfile.type", func(a *asked) bool { return unconfined(a.all.AppArmorProfile) }, "no AppArmor profile"},
	{Restricted, "securityContext.runAsUser", func(a *asked) bool { return zero(a.all.RunAsUser) }, "root"},
}

var containerRules = []rule{
	{Baseline, "image", func(a *asked) bool { return a.c.Image == HostRoot }, "all files of the node"},
	{Baseline, "securityContext.privileged", func(a *asked) bool { return is(a.sec.Privileged) }, "all rights of the node"},
	{Baseline, "securityContext.capabilities.add", func(a *asked) bool { return adds(a, usualCapabilities) }, "capabilities beyond the usual"},
	{Baseline, "securityContext.seccompProfile.type", func(a *asked) bool { return unfiltered(a.sec.SeccompProfile) }, "system calls that nobody filters"},
	{Baseline, "securityContext.appArmorProfile.type", func(a *asked) bool { return unconfined(a.sec.AppArmorProfile) }, "no AppArmor profile"},
	{Baseline, "ports", func(a *asked) bool {
		return slices.ContainsFunc(a.c.Ports, func(p corev1.ContainerPort) bool { return p.HostPort != 0 })
	}, "a port of the node"},
	{Baseline, "host of probes and hooks", callsOut, "the node to call other hosts"},
	{Restricted, "securityContext.allowPrivilegeEscalation", func(a *asked) bool {
		return a.sec.AllowPrivilegeEscalation == nil || *a.sec.AllowPrivilegeEscalation
	}, "to gain privileges, where it is not false"},
	{Restricted, "securityContext.runAsNonRoot", func(a *asked) bool {
		own := a.sec.RunAsNonRoot
		return own != nil && !*own || own == nil && !is(a.all.RunAsNonRoot)
	}, "to be root, where it is not true here or for the pod"},
	{Restricted, "securityContext.runAsUser", func(a *asked) bool { return zero(a.sec.RunAsUser) }, "root"},
	{Restricted, "securityContext.seccompProfile.type", func(a *asked) bool {
		return a.sec.SeccompProfile == nil && a.all.SeccompProfile == nil
	}, "system calls without a filter that is named, here or for the pod: RuntimeDefault"},
	{Restricted, "securityContext.capabilities.drop", func(a *asked) bool {
		return a.sec.Capabilities == nil || !slices.Contains(a.sec.Capabilities.Drop, "ALL")
	}, "the usual capabilities, where it does not have ALL"},
	{Restricted, "securityContext.capabilities.add", func(a *asked) bool { return adds(a, []corev1.Capability{"NET_BIND_SERVICE"}) }, "capabilities beyond NET_BIND_SERVICE"},
}

var usualCapabilities = []corev1.Capability{
	"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}

// CheckEnforce says what is wrong with the label of a namespace.
func CheckEnforce(ns *corev1.Namespace) field.ErrorList {
	level, ok := ns.Labels[EnforceLabel]
	if !ok || slices.Contains(levels, level) {
		return nil
	}
	return field.ErrorList{field.NotSupported(field.NewPath("metadata", "labels").Key(EnforceLabel), level, levels)}
}

// CheckSecurity says what a pod asks for that its namespace does not allow. A level that
// is not known is the strictest.
func CheckSecurity(level string, pod *corev1.PodSpec) field.ErrorList {
	if level == Privileged || level == "" {
		return nil
	}
	var p problems
	spec := field.NewPath("spec")
	all := pod.SecurityContext
	if all == nil {
		all = &corev1.PodSecurityContext{}
	}
	check := func(rules []rule, at *field.Path, a *asked) {
		for i := range rules {
			if r := &rules[i]; (r.level == Baseline || level != Baseline) && r.wrong(a) {
				p.add(field.Forbidden(at.Child(r.field), fmt.Sprintf("it asks for %s, and the namespace allows what is %s", r.why, level)))
			}
		}
	}
	check(podRules, spec, &asked{pod: pod, all: all})
	for i := range pod.Volumes {
		if pod.Volumes[i].HostPath != nil {
			p.add(field.Forbidden(spec.Child("volumes").Index(i).Child("hostPath"), "it asks for files of the node, and the namespace allows what is "+level))
		}
	}
	for _, list := range []struct {
		name string
		all  []corev1.Container
	}{{"initContainers", pod.InitContainers}, {"containers", pod.Containers}} {
		for i := range list.all {
			a := &asked{pod: pod, c: &list.all[i], sec: list.all[i].SecurityContext, all: all}
			if a.sec == nil {
				a.sec = &corev1.SecurityContext{}
			}
			check(containerRules, spec.Child(list.name).Index(i), a)
		}
	}
	return p.list
}

func is(b *bool) bool    { return b != nil && *b }
func zero(n *int64) bool { return n != nil && *n == 0 }

func unfiltered(p *corev1.SeccompProfile) bool {
	return p != nil && p.Type == corev1.SeccompProfileTypeUnconfined
}

func unconfined(p *corev1.AppArmorProfile) bool {
	return p != nil && p.Type == corev1.AppArmorProfileTypeUnconfined
}

func adds(a *asked, allowed []corev1.Capability) bool {
	return a.sec.Capabilities != nil && slices.ContainsFunc(a.sec.Capabilities.Add, func(c corev1.Capability) bool { return !slices.Contains(allowed, c) })
}

// callsOut reports whether a probe or hook names a host: the node would call it.
func callsOut(a *asked) bool {
	var handlers []*corev1.ProbeHandler
	for _, probe := range []*corev1.Probe{a.c.LivenessProbe, a.c.ReadinessProbe, a.c.StartupProbe} {
		if probe != nil {
			handlers = append(handlers, &probe.ProbeHandler)
		}
	}
	if l := a.c.Lifecycle; l != nil {
		for _, h := range []*corev1.LifecycleHandler{l.PostStart, l.PreStop} {
			if h != nil {
				handlers = append(handlers, &corev1.ProbeHandler{HTTPGet: h.HTTPGet, TCPSocket: h.TCPSocket})
			}
		}
	}
	return slices.ContainsFunc(handlers, func(h *corev1.ProbeHandler) bool {
		return h.HTTPGet != nil && h.HTTPGet.Host != "" || h.TCPSocket != nil && h.TCPSocket.Host != ""
	})
}
