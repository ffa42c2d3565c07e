package controller

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-hclog"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// views are what the controllers see.
type views struct {
	namespaces  *objects.Informer[*corev1.Namespace]
	nodes       *objects.Informer[*corev1.Node]
	pods        *objects.Informer[*corev1.Pod]
	sets        *objects.Informer[*appsv1.ReplicaSet]
	deployments *objects.Informer[*appsv1.Deployment]
	services    *objects.Informer[*corev1.Service]
	slices      *objects.Informer[*discoveryv1.EndpointSlice]
	scalers     *objects.Informer[*autoscalingv2.HorizontalPodAutoscaler]
	budgets     *objects.Informer[*policyv1.PodDisruptionBudget]
	requests    *objects.Informer[*certificatesv1.CertificateSigningRequest]
	shelves     map[*api.Kind]shelf // All of these, and those that only garbage collection looks at.
}

// shelf is the objects of one kind, whatever they are.
type shelf struct {
	run     func(context.Context) error
	synced  func(context.Context) error
	list    func(namespace string) []api.Object
	get     func(namespace, name string) (api.Object, bool)
	byOwner func(uid string) []api.Object
	live    func(ctx context.Context, namespace, name string) (api.Object, error)
	stored  func(ctx context.Context, namespace string) ([]api.Object, error) // All, as the store has them now.
	update  func(ctx context.Context, o api.Object, options ...objects.Option) error
	delete  func(ctx context.Context, namespace, name string, options ...objects.Option) error
	watch   func(f func(old, new api.Object)) // Before run.
}

// Indexes.
const (
	byOwner = "owner" // Uids of all owners.
	byNode  = "node"
	orphans = "orphans" // Namespaces of those that no controller owns.
)

func newViews(c *objects.Client, log hclog.Logger) *views {
	v := &views{shelves: map[*api.Kind]shelf{}}
	v.namespaces = add[*corev1.Namespace](v, c, api.Namespace, log)
	v.nodes = add[*corev1.Node](v, c, api.Node, log)
	v.pods = add[*corev1.Pod](v, c, api.Pod, log)
	v.sets = add[*appsv1.ReplicaSet](v, c, api.ReplicaSet, log)
	v.deployments = add[*appsv1.Deployment](v, c, api.Deployment, log)
	v.services = add[*corev1.Service](v, c, api.Service, log)
	v.slices = add[*discoveryv1.EndpointSlice](v, c, api.Endpoints, log)
	v.scalers = add[*autoscalingv2.HorizontalPodAutoscaler](v, c, api.Autoscaler, log)
	v.budgets = add[*policyv1.PodDisruptionBudget](v, c, api.Budget, log)
	v.requests = add[*certificatesv1.CertificateSigningRequest](v, c, api.CertRequest, log)
	add[*corev1.ConfigMap](v, c, api.ConfigMap, log)
	add[*corev1.Secret](v, c, api.Secret, log)
	add[*coordinationv1.Lease](v, c, api.Lease, log)
	v.pods.AddIndex(byNode, func(pod *corev1.Pod) []string { return []string{pod.Spec.NodeName} })
	v.pods.AddIndex(orphans, func(pod *corev1.Pod) []string {
		if api.IsMirror(pod) { // It is its node's.
			return nil
		}
		return ifOrphan(pod)
	})
	v.sets.AddIndex(orphans, func(set *appsv1.ReplicaSet) []string { return ifOrphan(set) })
	return v
}

func ifOrphan(o metav1.Object) []string {
	if metav1.GetControllerOf(o) != nil {
		return nil
	}
	return []string{o.GetNamespace()}
}

func add[T api.Object](v *views, c *objects.Client, k *api.Kind, log hclog.Logger) *objects.Informer[T] {
	i := objects.NewInformer[T](c, objects.ListOptions{}, log)
	i.AddIndex(byOwner, func(o T) []string { return ownersOf(o) })
	v.shelves[k] = shelf{
		run: i.Run, synced: i.Synced,
		list: func(namespace string) []api.Object { return general(i.List(namespace)) },
		get: func(namespace, name string) (api.Object, bool) {
			o, ok := i.Get(namespace, name)
			return orNil(o), ok
		},
		byOwner: func(uid string) []api.Object { return general(i.ByIndex(byOwner, uid)) },
		live: func(ctx context.Context, namespace, name string) (api.Object, error) {
			return objects.Get[T](ctx, c, namespace, name)
		},
		stored: func(ctx context.Context, namespace string) ([]api.Object, error) {
			all, _, err := objects.List[T](ctx, c, objects.ListOptions{Namespace: namespace})
			return general(all), err
		},
		update: func(ctx context.Context, o api.Object, options ...objects.Option) error {
			_, err := objects.Update(ctx, c, o.(T), options...)
			return err
		},
		delete: func(ctx context.Context, namespace, name string, options ...objects.Option) error {
			return objects.Delete[T](ctx, c, namespace, name, options...)
		},
		watch: func(f func(old, new api.Object)) {
			i.OnChange(func(old, new T) { f(orNil(old), orNil(new)) })
		},
	}
	return i
}

func ownersOf(o metav1.Object) []string {
	var uids []string
	for _, r := range o.GetOwnerReferences() {
		uids = append(uids, string(r.UID))
	}
	return uids
}

func general[T api.Object](typed []T) []api.Object {
	all := make([]api.Object, 0, len(typed))
	for _, o := range typed {
		all = append(all, o)
	}
	return all
}

// orNil turns a nil pointer of a type into nil.
func orNil[T api.Object](o T) api.Object {
	var none T
	if api.Object(o) == api.Object(none) {
		return nil
	}
	return o
}

func (v *views) runners() map[string]func(context.Context) error {
	all := map[string]func(context.Context) error{}
	for k, s := range v.shelves {
		all[k.Name] = s.run
	}
	return all
}

func (v *views) synced(ctx context.Context) error {
	for k, s := range v.shelves {
		if err := s.synced(ctx); err != nil {
			return fmt.Errorf("list of %s: %w", k.Resource, err)
		}
	}
	return nil
}
