package state

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// A node that lists all nodes sees where they and their pods are, so that it can route
// to them, and nothing else of them: not what runs there, nor what they are.

// reduces reports whether who asks sees objects reduced. Selectors would tell what is
// left out.
func (p *pick) reduces(id auth.Identity) (bool, error) {
	_, node := id.NodeName()
	if !node || p.kind != api.Node || p.name != "" {
		return false, nil
	}
	if !p.labels.Empty() || !p.fields.Empty() {
		return false, invalid("selectors: a node lists all nodes, or itself by %s", fieldName)
	}
	return true, nil
}

// reduced is what is left of a Node.
func reduced(n *corev1.Node) *corev1.Node {
	r := &corev1.Node{}
	r.Name, r.UID, r.ResourceVersion = n.Name, n.UID, n.ResourceVersion
	r.Spec.PodCIDR, r.Spec.PodCIDRs = n.Spec.PodCIDR, n.Spec.PodCIDRs
	r.Status.Addresses = n.Status.Addresses
	return r
}

// sameReduced reports whether a change is none to who sees it reduced.
func sameReduced(a, b *entry) bool {
	x, ok := a.object.(*corev1.Node)
	y, is := b.object.(*corev1.Node)
	return ok && is && x.UID == y.UID && x.Spec.PodCIDR == y.Spec.PodCIDR && equality.Semantic.DeepEqual(x.Status.Addresses, y.Status.Addresses)
}

// storedReduced is a Node as it would be stored if it were no more than that.
func (e *entry) storedReduced() ([]byte, error) {
	n, ok := e.object.(*corev1.Node)
	if !ok {
		o, err := api.Decode(e.kind, e.stored.Value, e.revision)
		if err != nil {
			return nil, err
		}
		n = o.(*corev1.Node)
	}
	return api.Encode(reduced(n))
}

// view is how somebody sees an entry.
type view struct {
	encoding kubepb.Encoding
	reduced  bool
}

// viewOf is how who calls sees what is picked.
func viewOf(ctx context.Context, p *pick, encoding kubepb.Encoding) (view, error) {
	encoding, err := checkEncoding(encoding)
	if err != nil {
		return view{}, err
	}
	id, err := auth.Of(ctx)
	if err != nil {
		return view{}, err
	}
	less, err := p.reduces(id)
	return view{encoding, less}, err
}
