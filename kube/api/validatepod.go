package api

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	valid "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (p *problems) podSpec(s *corev1.PodSpec, path *field.Path) {
	oneOf(p, path.Child("restartPolicy"), s.RestartPolicy, corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	atLeast(p, path.Child("terminationGracePeriodSeconds"), s.TerminationGracePeriodSeconds, 0)
	atLeast(p, path.Child("activeDeadlineSeconds"), s.ActiveDeadlineSeconds, 1)
	p.dns(s, path)
	if s.NodeName != "" {
		p.invalid(path.Child("nodeName"), s.NodeName, valid.IsDNS1123Subdomain(s.NodeName))
		p.absent(len(s.SchedulingGates) > 0, path.Child("nodeName"), "a pod that schedulingGates hold back has no node")
	}
	if s.PriorityClassName != "" {
		p.invalid(path.Child("priorityClassName"), s.PriorityClassName, valid.IsDNS1123Subdomain(s.PriorityClassName))
	}
	for i, secret := range s.ImagePullSecrets {
		p.required(path.Child("imagePullSecrets").Index(i).Child("name"), secret.Name, "the secret with the registry's credentials")
	}
	for name, q := range s.Overhead {
		p.quantity(path.Child("overhead").Key(string(name)), q)
	}
	p.podSecurity(s.SecurityContext, path.Child("securityContext"))
	p.placement(s, path)

	volumes := p.volumes(s.Volumes, path.Child("volumes"))
	p.containers(s, volumes, path)
}

func (p *problems) dns(s *corev1.PodSpec, path *field.Path) {
	oneOf(p, path.Child("dnsPolicy"), s.DNSPolicy, corev1.DNSClusterFirst, corev1.DNSClusterFirstWithHostNet, corev1.DNSDefault, corev1.DNSNone)
	if s.Hostname != "" {
		p.invalid(path.Child("hostname"), s.Hostname, valid.IsDNS1123Label(s.Hostname))
	}
	if s.Subdomain != "" {
		p.invalid(path.Child("subdomain"), s.Subdomain, valid.IsDNS1123Label(s.Subdomain))
	}
	if c := s.DNSConfig; c != nil {
		for i, ip := range c.Nameservers {
			p.address(path.Child("dnsConfig", "nameservers").Index(i), ip)
		}
	}
	if s.DNSPolicy == corev1.DNSNone && (s.DNSConfig == nil || len(s.DNSConfig.Nameservers) == 0) {
		p.add(field.Required(path.Child("dnsConfig", "nameservers"), "dnsPolicy None takes them from here alone"))
	}
	for i, alias := range s.HostAliases {
		at := path.Child("hostAliases").Index(i)
		p.address(at.Child("ip"), alias.IP)
		for j, host := range alias.Hostnames {
			p.invalid(at.Child("hostnames").Index(j), host, valid.IsDNS1123Subdomain(host))
		}
	}
}

func (p *problems) address(path *field.Path, text string) {
	if _, err := netip.ParseAddr(text); err != nil {
		p.add(field.Invalid(path, text, "must be an IP address"))
	}
}

// nodeAddress is one at which a node can have a port of a pod.
func (p *problems) nodeAddress(path *field.Path, text string) {
	switch a, err := netip.ParseAddr(text); {
	case err != nil:
		p.add(field.Invalid(path, text, "must be an IP address"))
	case !a.Is4() && !a.IsUnspecified():
		p.add(field.Invalid(path, text, "must be an IPv4 address: pods have no others"))
	}
}

func (p *problems) podSecurity(c *corev1.PodSecurityContext, path *field.Path) {
	if c == nil {
		return
	}
	atLeast(p, path.Child("runAsUser"), c.RunAsUser, 0)
	atLeast(p, path.Child("runAsGroup"), c.RunAsGroup, 0)
	atLeast(p, path.Child("fsGroup"), c.FSGroup, 0)
	for i := range c.SupplementalGroups {
		atLeast(p, path.Child("supplementalGroups").Index(i), &c.SupplementalGroups[i], 0)
	}
	names := unique{}
	for i, s := range c.Sysctls {
		at := path.Child("sysctls").Index(i).Child("name")
		if p.required(at, s.Name, "as in /proc/sys, with dots") {
			names.check(p, at, s.Name)
		}
	}
	p.nonRoot(path, c.RunAsNonRoot, c.RunAsUser)
}

func (p *problems) nonRoot(path *field.Path, nonRoot *bool, user *int64) {
	if nonRoot != nil && *nonRoot && user != nil && *user == 0 {
		p.add(field.Invalid(path.Child("runAsUser"), *user, "is root, which runAsNonRoot forbids"))
	}
}

func (p *problems) containers(s *corev1.PodSpec, volumes map[string]bool, path *field.Path) {
	if len(s.Containers) == 0 {
		p.add(field.Required(path.Child("containers"), "a pod has at least one"))
	}
	names, ports := unique{}, unique{}
	for i := range s.InitContainers {
		c, at := &s.InitContainers[i], path.Child("initContainers").Index(i)
		p.container(c, volumes, names, at)
		if !Sidecar(c) {
			p.runsToItsEnd(c, at)
			continue
		}
		p.hostPorts(c, s.HostNetwork, ports, at)
	}
	for i := range s.Containers {
		c, at := &s.Containers[i], path.Child("containers").Index(i)
		p.absent(c.RestartPolicy != nil, at.Child("restartPolicy"), "is for init containers; the others have the pod's")
		p.container(c, volumes, names, at)
		p.hostPorts(c, s.HostNetwork, ports, at)
	}
}

const onlySidecars = "an init container runs to its end; with restartPolicy Always it is a sidecar and may have it"

// runsToItsEnd checks that nothing asks an init container how it is.
func (p *problems) runsToItsEnd(c *corev1.Container, path *field.Path) {
	p.absent(c.LivenessProbe != nil, path.Child("livenessProbe"), onlySidecars)
	p.absent(c.ReadinessProbe != nil, path.Child("readinessProbe"), onlySidecars)
	p.absent(c.StartupProbe != nil, path.Child("startupProbe"), onlySidecars)
	p.absent(c.Lifecycle != nil, path.Child("lifecycle"), onlySidecars)
}

func (p *problems) container(c *corev1.Container, volumes map[string]bool, names unique, path *field.Path) {
	at := path.Child("name")
	if p.required(at, c.Name, "") {
		p.invalid(at, c.Name, valid.IsDNS1123Label(c.Name))
		names.check(p, at, c.Name)
	}
	p.required(path.Child("image"), c.Image, "")
	optional(p, path.Child("imagePullPolicy"), c.ImagePullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	optional(p, path.Child("terminationMessagePolicy"), c.TerminationMessagePolicy, corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)
	p.ports(c.Ports, path.Child("ports"))
	p.env(c, path)
	p.resources(&c.Resources, path.Child("resources"))
	p.mounts(c.VolumeMounts, volumes, path.Child("volumeMounts"))
	p.probe(c.LivenessProbe, false, path.Child("livenessProbe"))
	p.probe(c.StartupProbe, false, path.Child("startupProbe"))
	p.probe(c.ReadinessProbe, true, path.Child("readinessProbe"))
	if c.Lifecycle != nil {
		p.hook(c.Lifecycle.PostStart, path.Child("lifecycle", "postStart"))
		p.hook(c.Lifecycle.PreStop, path.Child("lifecycle", "preStop"))
	}
	if s := c.SecurityContext; s != nil {
		atLeast(p, path.Child("securityContext", "runAsUser"), s.RunAsUser, 0)
		atLeast(p, path.Child("securityContext", "runAsGroup"), s.RunAsGroup, 0)
		p.nonRoot(path.Child("securityContext"), s.RunAsNonRoot, s.RunAsUser)
	}
}

func (p *problems) ports(ports []corev1.ContainerPort, path *field.Path) {
	names := unique{}
	for i, port := range ports {
		at := path.Index(i)
		p.port(at.Child("containerPort"), port.ContainerPort)
		if port.HostPort != 0 {
			p.port(at.Child("hostPort"), port.HostPort)
		}
		if port.HostIP != "" {
			p.nodeAddress(at.Child("hostIP"), port.HostIP)
		}
		optional(p, at.Child("protocol"), port.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP)
		if port.Name != "" {
			p.invalid(at.Child("name"), port.Name, valid.IsValidPortName(port.Name))
			names.check(p, at.Child("name"), port.Name)
		}
	}
}

func (p *problems) hostPorts(c *corev1.Container, hostNetwork bool, held unique, path *field.Path) {
	for i, port := range c.Ports {
		at := path.Child("ports").Index(i).Child("hostPort")
		if port.HostPort == 0 {
			continue
		}
		if hostNetwork && port.HostPort != port.ContainerPort {
			p.add(field.Invalid(at, port.HostPort, "must be the containerPort, as hostNetwork is set"))
		}
		held.check(p, at, fmt.Sprintf("%s/%s/%d", port.Protocol, port.HostIP, port.HostPort))
	}
}

func (p *problems) mounts(mounts []corev1.VolumeMount, volumes map[string]bool, path *field.Path) {
	places := unique{}
	for i, m := range mounts {
		at := path.Index(i)
		if p.required(at.Child("name"), m.Name, "the volume that is mounted") && !volumes[m.Name] {
			p.add(field.NotFound(at.Child("name"), m.Name))
		}
		if p.required(at.Child("mountPath"), m.MountPath, "") {
			places.check(p, at.Child("mountPath"), m.MountPath)
		}
		if m.SubPath != "" {
			p.relative(at.Child("subPath"), m.SubPath)
		}
		if m.SubPathExpr != "" {
			p.absent(m.SubPath != "", at.Child("subPathExpr"), "is instead of subPath")
			p.relative(at.Child("subPathExpr"), m.SubPathExpr)
		}
	}
}

func (p *problems) probe(probe *corev1.Probe, ready bool, path *field.Path) {
	if probe == nil {
		return
	}
	p.one(path, "exec, httpGet, tcpSocket, grpc", probe.Exec != nil, probe.HTTPGet != nil, probe.TCPSocket != nil, probe.GRPC != nil)
	p.exec(probe.Exec, path)
	p.httpGet(probe.HTTPGet, path.Child("httpGet"))
	if probe.TCPSocket != nil {
		p.portOrName(path.Child("tcpSocket", "port"), probe.TCPSocket.Port)
	}
	if probe.GRPC != nil {
		p.port(path.Child("grpc", "port"), probe.GRPC.Port)
	}
	atLeast(p, path.Child("initialDelaySeconds"), &probe.InitialDelaySeconds, 0)
	atLeast(p, path.Child("timeoutSeconds"), &probe.TimeoutSeconds, 1)
	atLeast(p, path.Child("periodSeconds"), &probe.PeriodSeconds, 1)
	atLeast(p, path.Child("successThreshold"), &probe.SuccessThreshold, 1)
	atLeast(p, path.Child("failureThreshold"), &probe.FailureThreshold, 1)
	grace := probe.TerminationGracePeriodSeconds
	atLeast(p, path.Child("terminationGracePeriodSeconds"), grace, 1)
	if ready && grace != nil {
		p.add(field.Forbidden(path.Child("terminationGracePeriodSeconds"), "a readiness probe ends nothing"))
	}
	if !ready && probe.SuccessThreshold > 1 {
		p.add(field.Invalid(path.Child("successThreshold"), probe.SuccessThreshold, "must be 1 but for readiness"))
	}
}

func (p *problems) hook(h *corev1.LifecycleHandler, path *field.Path) {
	if h == nil {
		return
	}
	if h.TCPSocket == nil { // It is refused by its row.
		p.one(path, "exec, httpGet, sleep", h.Exec != nil, h.HTTPGet != nil, h.Sleep != nil)
	}
	p.exec(h.Exec, path)
	p.httpGet(h.HTTPGet, path.Child("httpGet"))
	if h.Sleep != nil {
		atLeast(p, path.Child("sleep", "seconds"), &h.Sleep.Seconds, 0)
	}
}

func (p *problems) exec(exec *corev1.ExecAction, path *field.Path) {
	if exec != nil && len(exec.Command) == 0 {
		p.add(field.Required(path.Child("exec", "command"), ""))
	}
}

func (p *problems) httpGet(get *corev1.HTTPGetAction, path *field.Path) {
	if get == nil {
		return
	}
	p.portOrName(path.Child("port"), get.Port)
	optional(p, path.Child("scheme"), get.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
	for i, h := range get.HTTPHeaders {
		p.invalid(path.Child("httpHeaders").Index(i).Child("name"), h.Name, valid.IsHTTPHeaderName(h.Name))
	}
}
