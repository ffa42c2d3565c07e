package state

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
)

// authorize denies what no row of auth's table permits, and logs it.
func (s *Service) authorize(r *auth.Request) error {
	err := auth.Authorize(r, facts{s.cache})
	s.logDenied(r.Identity, err)
	return err
}

func (s *Service) logDenied(id auth.Identity, err error) {
	var denied *auth.Denied
	if errors.As(err, &denied) {
		s.log.Warn("denied", "identity", id.Name, "groups", id.Groups, "verb", denied.Request.Verb, "object", denied.Object(), "missing", denied.Missing())
	}
}

func (s *Service) authorizePick(ctx context.Context, v auth.Verb, p *pick) error {
	id, err := auth.Of(ctx)
	if err != nil {
		return err
	}
	return s.authorize(p.request(id, v))
}

func (p *pick) request(id auth.Identity, v auth.Verb) *auth.Request {
	return &auth.Request{Identity: id, Verb: v, Kind: p.kind, Namespace: p.namespace, Name: p.name, NodeName: p.node}
}

// facts implements auth.Facts.
type facts struct{ cache *cache }

// PodNode implements auth.Facts.
func (f facts) PodNode(namespace, name string) string {
	kv := f.cache.lookup(api.Pod.Key(namespace, name))
	if kv == nil {
		return ""
	}
	if e := f.cache.entry(string(kv.Key)); e != nil && e.revision == kv.ModRevision {
		return e.fields.node
	}
	o, err := api.Decode(api.Pod, kv.Value, 0)
	if err != nil {
		return ""
	}
	return o.(*corev1.Pod).Spec.NodeName
}

// Names implements auth.Facts.
func (f facts) Names(node string, k *api.Kind, namespace, name string) bool {
	key := k.Key(namespace, name)
	f.cache.mu.RLock()
	defer f.cache.mu.RUnlock()
	for _, e := range f.cache.mu.shelves[api.Pod].byNode[node] { //tidy:ordered one is enough
		for _, named := range e.names {
			if named == key {
				return true
			}
		}
	}
	return false
}
