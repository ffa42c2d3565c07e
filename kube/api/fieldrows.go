package api

import (
	"reflect"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var fieldRows = compile(fieldSections)

// fieldSections is the table of docs/kube-fields.md, which is made of it. The
// kinds come first, then the types that they share.
var fieldSections = []section{
	{"Namespace", reflect.TypeFor[corev1.Namespace](), []row{
		{"spec.finalizers", Done, "empties the namespace before it goes"},
		{"status.**", Done, "written by the controllers"},
	}},
	{"Node", reflect.TypeFor[corev1.Node](), []row{
		{"spec.podCIDR spec.podCIDRs spec.unschedulable spec.taints.**", Done, ""},
		{"spec.providerID", Done, "kept for readers"},
		{"spec.configSource.**", Refused, "nodes are configured on the node"},
		{"spec.podPreemptionPolicy.**", Ignored, "there is no preemption by resizing"},
		{"spec.externalID", Ignored, "Kubernetes does not use it either"},
		{"status.**", Done, "written by the node"},
	}},
	{"Pod", reflect.TypeFor[corev1.Pod](), []row{
		{"status.**", Done, "written by the node and the scheduler"},
	}},
	{"ReplicaSet", reflect.TypeFor[appsv1.ReplicaSet](), []row{
		{"spec.replicas spec.minReadySeconds", Done, ""},
		{"status.**", Done, "written by the controllers"},
	}},
	{"Deployment", reflect.TypeFor[appsv1.Deployment](), []row{
		{"spec.replicas spec.strategy.** spec.minReadySeconds spec.revisionHistoryLimit spec.paused spec.progressDeadlineSeconds", Done, ""},
		{"status.**", Done, "written by the controllers"},
	}},
	{"Service", reflect.TypeFor[corev1.Service](), []row{
		{"spec.ports[].name spec.ports[].protocol spec.ports[].port spec.ports[].targetPort spec.ports[].nodePort", Done, ""},
		{"spec.ports[].appProtocol", Done, "kept for readers, in the endpoint slices too"},
		{"spec.selector spec.clusterIP spec.clusterIPs spec.type spec.externalName", Done, ""},
		{"spec.type=LoadBalancer", Ignored, "there are no load balancers of a cloud: it is a service of type NodePort"},
		{"spec.sessionAffinity spec.sessionAffinityConfig.** spec.publishNotReadyAddresses", Done, ""},
		{"spec.externalIPs", Refused, "it would take over addresses that are not the cluster's"},
		{"spec.loadBalancerSourceRanges", Refused, "nothing would keep other addresses out"},
		{"spec.loadBalancerIP spec.loadBalancerClass spec.allocateLoadBalancerNodePorts spec.healthCheckNodePort", Ignored, "there are no load balancers of a cloud"},
		{"spec.externalTrafficPolicy spec.internalTrafficPolicy", Done, ""},
		{"spec.externalTrafficPolicy=Local spec.internalTrafficPolicy=Local", Ignored, "traffic goes to the endpoints of all nodes, as with Cluster"},
		{"spec.trafficDistribution", Ignored, "endpoints are chosen evenly"},
		{"spec.ipFamilies spec.ipFamilyPolicy", Done, ""},
		{"spec.ipFamilies=IPv6", Refused, "services have IPv4 addresses"},
		{"spec.ipFamilyPolicy=PreferDualStack", Ignored, "services have IPv4 addresses"},
		{"spec.ipFamilyPolicy=RequireDualStack", Refused, "services have IPv4 addresses"},
		{"status.**", Done, "written by the controllers"},
	}},
	{"EndpointSlice", reflect.TypeFor[discoveryv1.EndpointSlice](), []row{
		{"addressType endpoints[].addresses endpoints[].conditions.** endpoints[].hostname endpoints[].targetRef.** endpoints[].nodeName endpoints[].zone", Done, ""},
		{"addressType=IPv6 addressType=FQDN", Ignored, "services lead to IPv4 addresses"},
		{"endpoints[].hints.**", Ignored, "endpoints are chosen evenly"},
		{"endpoints[].deprecatedTopology", Ignored, "nodeName and zone hold it"},
		{"ports.**", Done, ""},
	}},
	{"ConfigMap", reflect.TypeFor[corev1.ConfigMap](), []row{
		{"immutable data binaryData", Done, ""},
	}},
	{"Secret", reflect.TypeFor[corev1.Secret](), []row{
		{"immutable data type", Done, ""},
		{"stringData", Done, "becomes data when it is written"},
	}},
	{"Event", reflect.TypeFor[corev1.Event](), []row{
		{"involvedObject.** reason message source.** firstTimestamp lastTimestamp count type eventTime series.** action related.** reportingComponent reportingInstance", Done, ""},
	}},
	{"Lease", reflect.TypeFor[coordinationv1.Lease](), []row{
		{"spec.holderIdentity spec.leaseDurationSeconds spec.acquireTime spec.renewTime spec.leaseTransitions", Done, "kept for those who agree by it"},
		{"spec.strategy spec.preferredHolder", Ignored, "nobody elects the holder for them"},
	}},
	{"HorizontalPodAutoscaler", reflect.TypeFor[autoscalingv2.HorizontalPodAutoscaler](), []row{
		{"spec.scaleTargetRef.** spec.minReplicas spec.maxReplicas", Done, "of Deployments and ReplicaSets"},
		{"spec.metrics[].type", Done, ""},
		{"spec.metrics[].resource.** spec.metrics[].containerResource.**", Done, "CPU and memory"},
		{"spec.metrics[].pods.** spec.metrics[].object.** spec.metrics[].external.**", Refused, "there are no other measurements than CPU and memory of pods"},
		{"spec.metrics[].type=Pods spec.metrics[].type=Object spec.metrics[].type=External", Refused, "there are no other measurements than CPU and memory of pods"},
		{"spec.behavior.scaleUp.stabilizationWindowSeconds spec.behavior.scaleUp.selectPolicy spec.behavior.scaleUp.policies.**", Done, ""},
		{"spec.behavior.scaleDown.stabilizationWindowSeconds spec.behavior.scaleDown.selectPolicy spec.behavior.scaleDown.policies.**", Done, ""},
		{"spec.behavior.scaleUp.tolerance spec.behavior.scaleDown.tolerance", Ignored, "the tolerance is 10 %"},
		{"status.**", Done, "written by the controllers"},
	}},
	{"PodDisruptionBudget", reflect.TypeFor[policyv1.PodDisruptionBudget](), []row{
		{"spec.minAvailable spec.maxUnavailable", Done, ""},
		{"spec.unhealthyPodEvictionPolicy", Ignored, "pods that are not ready may be evicted while the budget holds without them, as with IfHealthyBudget"},
		{"spec.unhealthyPodEvictionPolicy=IfHealthyBudget", Done, ""},
		{"status.**", Done, "written by the controllers"},
	}},
	{"PriorityClass", reflect.TypeFor[schedulingv1.PriorityClass](), []row{
		{"value globalDefault description", Done, ""},
		{"preemptionPolicy", Ignored, noPreemption},
		{"preemptionPolicy=Never", Done, ""},
	}},
	{"CertificateSigningRequest", reflect.TypeFor[certificatesv1.CertificateSigningRequest](), []row{
		{"spec.request spec.signerName spec.expirationSeconds spec.usages", Done, ""},
		{"spec.username spec.uid spec.groups spec.extra", Done, "written by the server: who asked"},
		{"status.**", Done, "written by who approves and who signs"},
	}},

	{"Metadata", reflect.TypeFor[metav1.ObjectMeta](), []row{
		{"name generateName namespace labels annotations ownerReferences.** finalizers", Done, ""},
		{"uid resourceVersion generation creationTimestamp deletionTimestamp deletionGracePeriodSeconds", Done, "written by the server"},
		{"managedFields.**", Ignored, "fields have no managers"},
		{"selfLink", Ignored, "Kubernetes does not use it either"},
	}},
	{"Label selector", reflect.TypeFor[metav1.LabelSelector](), []row{
		{"matchLabels matchExpressions.**", Done, ""},
	}},
	{"Pod spec", reflect.TypeFor[corev1.PodSpec](), podSpecRows},
	{"Container", reflect.TypeFor[corev1.Container](), containerRows},
	{"Probe", reflect.TypeFor[corev1.Probe](), []row{
		{"exec.** httpGet.path httpGet.port httpGet.host httpGet.scheme httpGet.httpHeaders.** tcpSocket.** grpc.port grpc.service", Done, ""},
		{"initialDelaySeconds timeoutSeconds periodSeconds successThreshold failureThreshold terminationGracePeriodSeconds", Done, ""},
		{"httpGet.protocol", Refused, "probes speak HTTP/1.1"},
		{"grpc.mode", Refused, "probes speak gRPC without TLS"},
		{"grpc.mode=Plaintext", Done, ""},
	}},
	{"Lifecycle hook", reflect.TypeFor[corev1.LifecycleHandler](), []row{
		{"exec.** httpGet.path httpGet.port httpGet.host httpGet.scheme httpGet.httpHeaders.** sleep.seconds", Done, ""},
		{"httpGet.protocol", Refused, "hooks speak HTTP/1.1"},
		{"tcpSocket.**", Refused, "Kubernetes does not do it either"},
	}},
	{"Volume", reflect.TypeFor[corev1.Volume](), volumeRows},
	{"File of a ConfigMap or Secret", reflect.TypeFor[corev1.KeyToPath](), []row{
		{"key path mode", Done, ""},
		{"user", Refused, noFileOwner},
	}},
	{"File of a downward volume", reflect.TypeFor[corev1.DownwardAPIVolumeFile](), []row{
		{"path fieldRef.** resourceFieldRef.** mode", Done, ""},
		{"user", Refused, noFileOwner},
	}},
	{"Security context of a pod", reflect.TypeFor[corev1.PodSecurityContext](), podSecurityRows},
	{"Security context of a container", reflect.TypeFor[corev1.SecurityContext](), securityRows},
	{"Pod affinity term", reflect.TypeFor[corev1.PodAffinityTerm](), []row{
		{"namespaces topologyKey matchLabelKeys mismatchLabelKeys", Done, ""},
	}},
}

const (
	noPreemption = "a pod never displaces others; priority decides who is placed first"
	noFileOwner  = "files belong to root, and to fsGroup"
	noClaims     = "there are no devices to claim"
	noVolume     = "there are no volumes of this kind: what is written would not be where it should"
	noIdentity   = "there are no service accounts: pods have no identity at the API"
	noSELinux    = "containers are not labelled for SELinux"
	noAppArmor   = "no AppArmor profiles are loaded"
	noProfiles   = "seccomp profiles of one's own are not loaded"
	noWindows    = "nodes run Linux"
)
