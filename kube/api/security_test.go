package api

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// strict is a pod that every namespace takes.
func strict() *corev1.PodSpec {
	yes, no := true, false
	return &corev1.PodSpec{
		SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: &yes, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		InitContainers:  []corev1.Container{{Name: "i", Image: "i", SecurityContext: restrained(&no)}},
		Containers:      []corev1.Container{{Name: "c", Image: "i", SecurityContext: restrained(&no)}},
	}
}

func restrained(no *bool) *corev1.SecurityContext {
	return &corev1.SecurityContext{AllowPrivilegeEscalation: no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
}

// levelRow changes a container of a pod that all levels allow. What they say then is
// by the pod security standards of Kubernetes: fields, in which C is the container.
type levelRow struct {
	change               func(s *corev1.PodSpec, c *corev1.Container)
	baseline, restricted string
}

func levelRows() map[string]levelRow {
	const none = ""
	yes, no, root := true, false, int64(0)
	return map[string]levelRow{
		"nothing":      {func(*corev1.PodSpec, *corev1.Container) {}, none, none},
		"host network": {func(s *corev1.PodSpec, _ *corev1.Container) { s.HostNetwork = true }, "spec.hostNetwork", "spec.hostNetwork"},
		"host path": {func(s *corev1.PodSpec, _ *corev1.Container) {
			s.Volumes = []corev1.Volume{{Name: "e"}, {Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		}, "spec.volumes[1].hostPath", "spec.volumes[1].hostPath"},
		"host root":  {func(_ *corev1.PodSpec, c *corev1.Container) { c.Image = HostRoot }, "C.image", "C.image"},
		"privileged": {func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext.Privileged = &yes }, "C.securityContext.privileged", "C.securityContext.privileged"},
		"a usual capability": {func(_ *corev1.PodSpec, c *corev1.Container) {
			c.SecurityContext.Capabilities.Add = []corev1.Capability{"NET_BIND_SERVICE", "CHOWN"}
		}, none, "C.securityContext.capabilities.add"},
		"a great capability": {func(_ *corev1.PodSpec, c *corev1.Container) {
			c.SecurityContext.Capabilities.Add = []corev1.Capability{"SYS_ADMIN"}
		}, "C.securityContext.capabilities.add", "C.securityContext.capabilities.add C.securityContext.capabilities.add"},
		"capability to bind": {func(_ *corev1.PodSpec, c *corev1.Container) {
			c.SecurityContext.Capabilities.Add = []corev1.Capability{"NET_BIND_SERVICE"}
		}, none, none},
		"host port": {func(_ *corev1.PodSpec, c *corev1.Container) {
			c.Ports = []corev1.ContainerPort{{ContainerPort: 80}, {ContainerPort: 81, HostPort: 81}}
		}, "C.ports", "C.ports"},
		"unfiltered": {func(_ *corev1.PodSpec, c *corev1.Container) {
			c.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
		}, "C.securityContext.seccompProfile.type", "C.securityContext.seccompProfile.type"},
		"unfiltered pod": {func(s *corev1.PodSpec, _ *corev1.Container) {
			s.SecurityContext.SeccompProfile.Type = corev1.SeccompProfileTypeUnconfined
		}, "spec.securityContext.seccompProfile.type", "spec.securityContext.seccompProfile.type"},
		"no filter named": {func(s *corev1.PodSpec, c *corev1.Container) {
			s.SecurityContext.SeccompProfile = nil
			c.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
		}, none, "OTHER.securityContext.seccompProfile.type"},
		"unconfined": {func(s *corev1.PodSpec, _ *corev1.Container) {
			s.SecurityContext.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
		}, "spec.securityContext.appArmorProfile.type", "spec.securityContext.appArmorProfile.type"},
		"probe of another host": {func(_ *corev1.PodSpec, c *corev1.Container) {
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Host: "10.0.0.1"}}}
		}, "C.host of probes and hooks", "C.host of probes and hooks"},
		"hook of another host": {func(_ *corev1.PodSpec, c *corev1.Container) {
			c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Host: "x"}}}
		}, "C.host of probes and hooks", "C.host of probes and hooks"},
		"escalation":      {func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext.AllowPrivilegeEscalation = nil }, none, "C.securityContext.allowPrivilegeEscalation"},
		"root":            {func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext.RunAsUser = &root }, none, "C.securityContext.runAsUser"},
		"root pod":        {func(s *corev1.PodSpec, _ *corev1.Container) { s.SecurityContext.RunAsUser = &root }, none, "spec.securityContext.runAsUser"},
		"maybe root":      {func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext.RunAsNonRoot = &no }, none, "C.securityContext.runAsNonRoot"},
		"capabilities":    {func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext.Capabilities = nil }, none, "C.securityContext.capabilities.drop"},
		"nothing is said": {func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext = nil }, none, "C.securityContext.allowPrivilegeEscalation C.securityContext.capabilities.drop"},
	}
}

func TestPodsAreHeldToTheLevelOfTheirNamespace(t *testing.T) {
	for what, row := range levelRows() {
		for i, at := range []string{"spec.initContainers[0]", "spec.containers[0]"} {
			s := strict()
			c, other := &s.InitContainers[0], "spec.containers[0]"
			if i == 1 {
				c, other = &s.Containers[0], "spec.initContainers[0]"
			}
			row.change(s, c)
			for level, want := range map[string]string{"": "", Privileged: "", Baseline: row.baseline, Restricted: row.restricted, "unknown": row.restricted} {
				var fields []string
				for _, e := range CheckSecurity(level, s) {
					fields = append(fields, e.Field)
				}
				want = strings.NewReplacer("C.", at+".", "OTHER.", other+".").Replace(want)
				if got := strings.Join(fields, " "); got != want {
					t.Errorf("%s of %s, %q: %s, want %s", what, at, level, got, want)
				}
			}
		}
	}
}

func TestALevelOfANamespaceIsOneOfThree(t *testing.T) {
	ns := &corev1.Namespace{}
	for level, bad := range map[string]bool{"": true, "baseline": false, "restricted": false, "privileged": false, "Baseline": true} {
		ns.Labels = map[string]string{EnforceLabel: level}
		if got := len(CheckEnforce(ns)) > 0; got != bad {
			t.Error(fmt.Sprintf("%q", level), got)
		}
	}
	ns.Labels = nil
	if len(CheckEnforce(ns)) > 0 {
		t.Error("it must have one")
	}
}
