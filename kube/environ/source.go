package environ

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/objects"
)

// Objects reads what pods take values from. What is not there is an error that wraps
// objects.ErrNotFound.
type Objects interface {
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
}

// Facts are what a pod's object does not say of it.
type Facts struct {
	HostIPs     []string // Of the node.
	PodIPs      []string // The node's for a pod on the network of the node.
	Allocatable corev1.ResourceList
}

// Secret is a secret of a namespace, nil if it is optional and not there.
func Secret(ctx context.Context, from Objects, namespace, name string, optional *bool) (*corev1.Secret, error) {
	s, err := from.Secret(ctx, namespace, name)
	return found(s, err, "secret", namespace, name, optional)
}

// ConfigMap is a config map of a namespace, nil if it is optional and not there.
func ConfigMap(ctx context.Context, from Objects, namespace, name string, optional *bool) (*corev1.ConfigMap, error) {
	m, err := from.ConfigMap(ctx, namespace, name)
	return found(m, err, "config map", namespace, name, optional)
}

func found[T any](object *T, err error, what, namespace, name string, optional *bool) (*T, error) {
	switch {
	case errors.Is(err, objects.ErrNotFound):
		if truth(optional) {
			return nil, nil
		}
		return nil, fmt.Errorf("%s %s/%s: %w", what, namespace, name, ErrMissing)
	case err != nil:
		return nil, fmt.Errorf("%s %s/%s: %w", what, namespace, name, err)
	}
	return object, nil
}

func truth(b *bool) bool { return b != nil && *b }
