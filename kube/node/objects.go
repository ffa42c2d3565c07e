package node

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/objects"
)

// named reads what pods name, each time anew: a node may read it while one of its pods
// names it, and is not told of changes.
type named struct{ client *objects.Client }

// Secret implements environ.Objects.
func (n named) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return objects.Get[*corev1.Secret](ctx, n.client, namespace, name)
}

// ConfigMap implements environ.Objects.
func (n named) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return objects.Get[*corev1.ConfigMap](ctx, n.client, namespace, name)
}
