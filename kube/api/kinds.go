package api

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Object is an object of any kind.
type Object interface {
	metav1.Object
	runtime.Object
}

// Kind is one of the kinds that there are. Pointers to its row are its identity.
type Kind struct {
	Name       string // "Pod".
	APIVersion string // "v1", "apps/v1".
	Resource   string // "pods", as in URLs and commands.
	Short      []string
	Namespaced bool
	HasStatus  bool

	path string // Of the keys, below /registry/.
	make func() Object
}

// New returns an empty object with its type set.
func (k *Kind) New() Object {
	o := k.make()
	o.GetObjectKind().SetGroupVersionKind(schemaOf(k))
	return o
}

// Prefix is that of all keys of the kind, of one namespace if one is given.
func (k *Kind) Prefix(namespace string) string {
	p := "/registry/" + k.path + "/"
	if namespace != "" && k.Namespaced {
		p += namespace + "/"
	}
	return p
}

// Key is that of one object.
func (k *Kind) Key(namespace, name string) string { return k.Prefix(namespace) + name }

// ParseKey is the inverse of Key.
func (k *Kind) ParseKey(key string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(key, k.Prefix(""))
	if !ok {
		return "", "", false
	}
	if k.Namespaced {
		namespace, rest, ok = strings.Cut(rest, "/")
	}
	return namespace, rest, ok && rest != "" && !strings.Contains(rest, "/")
}

// The kinds.
var (
	Namespace   = &Kind{Name: "Namespace", APIVersion: "v1", Resource: "namespaces", Short: []string{"ns"}, HasStatus: true, path: "namespaces", make: of[corev1.Namespace]}
	Node        = &Kind{Name: "Node", APIVersion: "v1", Resource: "nodes", Short: []string{"no"}, HasStatus: true, path: "minions", make: of[corev1.Node]}
	Pod         = &Kind{Name: "Pod", APIVersion: "v1", Resource: "pods", Short: []string{"po"}, Namespaced: true, HasStatus: true, path: "pods", make: of[corev1.Pod]}
	ReplicaSet  = &Kind{Name: "ReplicaSet", APIVersion: "apps/v1", Resource: "replicasets", Short: []string{"rs"}, Namespaced: true, HasStatus: true, path: "replicasets", make: of[appsv1.ReplicaSet]}
	Deployment  = &Kind{Name: "Deployment", APIVersion: "apps/v1", Resource: "deployments", Short: []string{"deploy"}, Namespaced: true, HasStatus: true, path: "deployments", make: of[appsv1.Deployment]}
	Service     = &Kind{Name: "Service", APIVersion: "v1", Resource: "services", Short: []string{"svc"}, Namespaced: true, HasStatus: true, path: "services/specs", make: of[corev1.Service]}
	Endpoints   = &Kind{Name: "EndpointSlice", APIVersion: "discovery.k8s.io/v1", Resource: "endpointslices", Namespaced: true, path: "endpointslices", make: of[discoveryv1.EndpointSlice]}
	ConfigMap   = &Kind{Name: "ConfigMap", APIVersion: "v1", Resource: "configmaps", Short: []string{"cm"}, Namespaced: true, path: "configmaps", make: of[corev1.ConfigMap]}
	Secret      = &Kind{Name: "Secret", APIVersion: "v1", Resource: "secrets", Namespaced: true, path: "secrets", make: of[corev1.Secret]}
	Event       = &Kind{Name: "Event", APIVersion: "v1", Resource: "events", Short: []string{"ev"}, Namespaced: true, path: "events", make: of[corev1.Event]}
	Lease       = &Kind{Name: "Lease", APIVersion: "coordination.k8s.io/v1", Resource: "leases", Namespaced: true, path: "leases", make: of[coordinationv1.Lease]}
	Autoscaler  = &Kind{Name: "HorizontalPodAutoscaler", APIVersion: "autoscaling/v2", Resource: "horizontalpodautoscalers", Short: []string{"hpa"}, Namespaced: true, HasStatus: true, path: "horizontalpodautoscalers", make: of[autoscalingv2.HorizontalPodAutoscaler]}
	Budget      = &Kind{Name: "PodDisruptionBudget", APIVersion: "policy/v1", Resource: "poddisruptionbudgets", Short: []string{"pdb"}, Namespaced: true, HasStatus: true, path: "poddisruptionbudgets", make: of[policyv1.PodDisruptionBudget]}
	Priority    = &Kind{Name: "PriorityClass", APIVersion: "scheduling.k8s.io/v1", Resource: "priorityclasses", Short: []string{"pc"}, path: "priorityclasses", make: of[schedulingv1.PriorityClass]}
	CertRequest = &Kind{Name: "CertificateSigningRequest", APIVersion: "certificates.k8s.io/v1", Resource: "certificatesigningrequests", Short: []string{"csr"}, HasStatus: true, path: "certificatesigningrequests", make: of[certificatesv1.CertificateSigningRequest]}
)

// Kinds are all of them, in the order in which a folder of manifests is applied.
var Kinds = []*Kind{
	Namespace, Priority, Node, ConfigMap, Secret, Service, Endpoints, Budget, ReplicaSet, Deployment, Pod, Autoscaler, Lease, Event, CertRequest,
}

func of[T any, P interface {
	*T
	Object
}]() Object {
	return P(new(T))
}

// ByName finds a kind by what its objects say of themselves: "Pod".
func ByName(name string) (*Kind, error) {
	i := slices.IndexFunc(Kinds, func(k *Kind) bool { return k.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("%q: %w; there are %s", name, ErrKind, kindNames())
	}
	return Kinds[i], nil
}

// ByWord finds a kind by what a person types: pod, pods, po, deployment.apps.
func ByWord(word string) (*Kind, error) {
	word, _, _ = strings.Cut(strings.ToLower(word), ".")
	for _, k := range Kinds {
		if word == k.Resource || word == strings.ToLower(k.Name) || slices.Contains(k.Short, word) {
			return k, nil
		}
	}
	return nil, fmt.Errorf("%q: %w; there are %s", word, ErrKind, kindNames())
}

// KindOf is the kind of an object, nil if it has none of ours.
func KindOf(o Object) *Kind { return byType[reflect.TypeOf(o)] }

func kindNames() string {
	names := make([]string, 0, len(Kinds))
	for _, k := range Kinds {
		names = append(names, k.Resource)
	}
	return strings.Join(names, ", ")
}
