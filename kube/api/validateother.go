package api

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	valid "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (p *problems) service(s *corev1.ServiceSpec, path *field.Path) {
	oneOf(p, path.Child("type"), s.Type, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName)
	headless := s.ClusterIP == corev1.ClusterIPNone
	external := s.Type == corev1.ServiceTypeExternalName
	switch {
	case external:
		if p.required(path.Child("externalName"), s.ExternalName, "as type is ExternalName") {
			p.invalid(path.Child("externalName"), s.ExternalName, valid.IsDNS1123Subdomain(s.ExternalName))
		}
		p.absent(s.ClusterIP != "", path.Child("clusterIP"), "a service of type ExternalName is a name only")
	case headless:
		p.absent(s.Type != corev1.ServiceTypeClusterIP, path.Child("clusterIP"), "None is for type ClusterIP")
	case s.ClusterIP != "":
		p.address(path.Child("clusterIP"), s.ClusterIP)
	}
	if len(s.Ports) == 0 && !headless && !external {
		p.add(field.Required(path.Child("ports"), "what clients connect to"))
	}
	p.servicePorts(s, path.Child("ports"))
	p.labels(path.Child("selector"), s.Selector)
	optional(p, path.Child("sessionAffinity"), s.SessionAffinity, corev1.ServiceAffinityNone, corev1.ServiceAffinityClientIP)
	if c := s.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		p.invalid(path.Child("sessionAffinityConfig", "clientIP", "timeoutSeconds"), *c.ClientIP.TimeoutSeconds,
			valid.IsInRange(int(*c.ClientIP.TimeoutSeconds), 1, 86400))
	}
	optional(p, path.Child("externalTrafficPolicy"), s.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)
	if t := s.InternalTrafficPolicy; t != nil {
		oneOf(p, path.Child("internalTrafficPolicy"), *t, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)
	}
}

func (p *problems) servicePorts(s *corev1.ServiceSpec, path *field.Path) {
	names, numbers, nodePorts := unique{}, unique{}, unique{}
	for i, port := range s.Ports {
		at := path.Index(i)
		switch {
		case port.Name != "":
			p.invalid(at.Child("name"), port.Name, valid.IsDNS1123Label(port.Name))
			names.check(p, at.Child("name"), port.Name)
		case len(s.Ports) > 1:
			p.add(field.Required(at.Child("name"), "each of several ports has one"))
		}
		p.port(at.Child("port"), port.Port)
		numbers.check(p, at, fmt.Sprintf("%s %d", port.Protocol, port.Port))
		oneOf(p, at.Child("protocol"), port.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP)
		p.portOrName(at.Child("targetPort"), port.TargetPort)
		if port.NodePort == 0 {
			continue
		}
		p.port(at.Child("nodePort"), port.NodePort)
		p.absent(s.Type != corev1.ServiceTypeNodePort && s.Type != corev1.ServiceTypeLoadBalancer, at.Child("nodePort"), "is for types NodePort and LoadBalancer")
		nodePorts.check(p, at.Child("nodePort"), fmt.Sprintf("%s %d", port.Protocol, port.NodePort))
	}
}

// endpointsMax is Kubernetes' bound for one slice.
const endpointsMax = 1000

func (p *problems) endpointSlice(o *discoveryv1.EndpointSlice) {
	oneOf(p, field.NewPath("addressType"), o.AddressType, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN)
	path := field.NewPath("endpoints")
	if len(o.Endpoints) > endpointsMax {
		p.add(field.TooMany(path, len(o.Endpoints), endpointsMax))
	}
	for i := range o.Endpoints {
		at := path.Index(i).Child("addresses")
		if len(o.Endpoints[i].Addresses) == 0 {
			p.add(field.Required(at, ""))
		}
		for j, address := range o.Endpoints[i].Addresses {
			p.endpoint(at.Index(j), address, o.AddressType)
		}
	}
	names := unique{}
	for i, port := range o.Ports {
		at := field.NewPath("ports").Index(i)
		if port.Name != nil {
			names.check(p, at.Child("name"), *port.Name)
		}
		if port.Port != nil {
			p.port(at.Child("port"), *port.Port)
		}
		if port.Protocol != nil {
			oneOf(p, at.Child("protocol"), *port.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP)
		}
	}
}

func (p *problems) endpoint(at *field.Path, text string, kind discoveryv1.AddressType) {
	if kind == discoveryv1.AddressTypeFQDN {
		p.invalid(at, text, valid.IsDNS1123Subdomain(text))
		return
	}
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Is4() != (kind == discoveryv1.AddressTypeIPv4) {
		p.add(field.Invalid(at, text, "must be an address of type "+string(kind)))
		return
	}
	// Loopback may be one: where all runs on one machine without a network of its own.
	p.absent(ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast(), at, "no pod has such an address: "+text)
}

// dataBytesMax bounds what a ConfigMap or Secret holds, as Kubernetes does: an
// object must fit a request of the store.
const dataBytesMax = 1 << 20

func (p *problems) configMap(o *corev1.ConfigMap) {
	size := 0
	for key, text := range o.Data {
		p.invalid(field.NewPath("data").Key(key), key, valid.IsConfigMapKey(key))
		size += len(key) + len(text)
	}
	for key, data := range o.BinaryData {
		at := field.NewPath("binaryData").Key(key)
		p.invalid(at, key, valid.IsConfigMapKey(key))
		if _, twice := o.Data[key]; twice {
			p.add(field.Duplicate(at, key))
		}
		size += len(key) + len(data)
	}
	p.size(field.NewPath("data"), size)
}

func (p *problems) size(path *field.Path, n int) {
	if n > dataBytesMax {
		p.add(field.TooLong(path, n, dataBytesMax))
	}
}

func (p *problems) secret(o *corev1.Secret) {
	path, size := field.NewPath("data"), 0
	for key, data := range o.Data {
		p.invalid(path.Key(key), key, valid.IsConfigMapKey(key))
		size += len(key) + len(data)
	}
	p.size(path, size)
	for _, key := range secretKeys[o.Type] {
		if _, ok := o.Data[key]; !ok {
			p.add(field.Required(path.Key(key), "a secret of type "+string(o.Type)+" has it"))
		}
	}
}

// secretKeys are those that readers of a type rely on.
var secretKeys = map[corev1.SecretType][]string{
	corev1.SecretTypeTLS:              {corev1.TLSCertKey, corev1.TLSPrivateKeyKey},
	corev1.SecretTypeDockerConfigJson: {corev1.DockerConfigJsonKey},
	corev1.SecretTypeDockercfg:        {corev1.DockerConfigKey},
	corev1.SecretTypeSSHAuth:          {corev1.SSHAuthPrivateKey},
}

func (p *problems) node(o *corev1.Node) {
	path := field.NewPath("spec")
	if o.Spec.PodCIDR != "" {
		p.cidr(path.Child("podCIDR"), o.Spec.PodCIDR)
	}
	for i, cidr := range o.Spec.PodCIDRs {
		p.cidr(path.Child("podCIDRs").Index(i), cidr)
	}
	pairs := unique{}
	for i, t := range o.Spec.Taints {
		at := path.Child("taints").Index(i)
		p.invalid(at.Child("key"), t.Key, valid.IsQualifiedName(t.Key))
		p.invalid(at.Child("value"), t.Value, valid.IsValidLabelValue(t.Value))
		oneOf(p, at.Child("effect"), t.Effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
		pairs.check(p, at, t.Key+" "+string(t.Effect))
	}
	for name, q := range o.Status.Capacity {
		p.quantity(field.NewPath("status", "capacity").Key(string(name)), q)
	}
	for name, q := range o.Status.Allocatable {
		at := field.NewPath("status", "allocatable").Key(string(name))
		p.quantity(at, q)
		if whole, ok := o.Status.Capacity[name]; ok && q.Cmp(whole) > 0 {
			p.add(field.Invalid(at, q.String(), "must be at most the capacity, "+whole.String()))
		}
	}
}

func (p *problems) cidr(path *field.Path, text string) {
	if c, err := netip.ParsePrefix(text); err != nil || c != c.Masked() {
		p.add(field.Invalid(path, text, "must be a network, as 10.244.1.0/24"))
	}
}

func (p *problems) event(o *corev1.Event) {
	if ns := o.InvolvedObject.Namespace; ns != "" && ns != o.Namespace {
		p.add(field.Invalid(field.NewPath("involvedObject", "namespace"), ns, "must be the event's own"))
	}
	optional(p, field.NewPath("type"), o.Type, corev1.EventTypeNormal, corev1.EventTypeWarning)
}

func (p *problems) lease(s *coordinationv1.LeaseSpec, path *field.Path) {
	atLeast(p, path.Child("leaseDurationSeconds"), s.LeaseDurationSeconds, 1)
	atLeast(p, path.Child("leaseTransitions"), s.LeaseTransitions, 0)
}

// certSecondsMin is the shortest life of a certificate that may be asked for.
const certSecondsMin = 600

func (p *problems) certRequest(s *certificatesv1.CertificateSigningRequestSpec, path *field.Path) {
	block, rest := pem.Decode(s.Request)
	switch {
	case block == nil || block.Type != "CERTIFICATE REQUEST" || len(rest) > 0:
		p.add(field.Invalid(path.Child("request"), "", "must be one PEM block of type CERTIFICATE REQUEST"))
	default:
		if _, err := x509.ParseCertificateRequest(block.Bytes); err != nil {
			p.add(field.Invalid(path.Child("request"), "", err.Error()))
		}
	}
	if p.required(path.Child("signerName"), s.SignerName, "") {
		p.list = append(p.list, valid.IsDomainPrefixedPath(path.Child("signerName"), s.SignerName)...)
	}
	if len(s.Usages) == 0 {
		p.add(field.Required(path.Child("usages"), "what the certificate is for, as client auth"))
	}
	atLeast(p, path.Child("expirationSeconds"), s.ExpirationSeconds, certSecondsMin)
}
