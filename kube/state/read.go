package state

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// Get implements kubepb.ClusterStateServer.
func (s *Service) Get(ctx context.Context, r *kubepb.GetRequest) (*kubepb.Object, error) {
	o, err := s.get(ctx, r)
	return o, toWire(err)
}

func (s *Service) get(ctx context.Context, r *kubepb.GetRequest) (*kubepb.Object, error) {
	id, err := auth.Of(ctx)
	if err != nil {
		return nil, err
	}
	k, err := checkRef(r.GetObject())
	if err != nil {
		return nil, err
	}
	encoding, err := checkEncoding(r.GetEncoding())
	if err != nil {
		return nil, err
	}
	if err := s.at(ctx, r.ResourceVersion); err != nil {
		return nil, err
	}
	ns, name := r.Object.Namespace, r.Object.Name
	e := s.cache.entry(k.Key(ns, name))
	_, isNode := id.NodeName()
	if e == nil && isNode && k == api.Pod {
		return nil, missing(k, ns, name) // That it ended is what a node must learn.
	}
	if err := s.authorize(&auth.Request{Identity: id, Verb: auth.Get, Kind: k, Namespace: ns, Name: name}); err != nil {
		return nil, err
	}
	if e == nil {
		return nil, missing(k, ns, name)
	}
	return e.message(view{encoding: encoding})
}

func missing(k *api.Kind, namespace, name string) error {
	return fmt.Errorf("%s %s: %w", k.Name, full(namespace, name), errNotFound)
}

func full(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// checkRef returns the kind that a request names, if it names an object.
func checkRef(r *kubepb.Ref) (*api.Kind, error) {
	k, err := api.ByName(r.GetKind())
	if err != nil {
		return nil, err
	}
	return k, checkPlace(k, r.GetNamespace(), r.GetName())
}

func checkPlace(k *api.Kind, namespace, name string) error {
	if k.Namespaced {
		if err := checkName("namespace", namespace); err != nil {
			return err
		}
	} else if namespace != "" {
		return invalid("namespace: a %s has none", k.Name)
	}
	return checkName("name", name)
}

func checkEncoding(e kubepb.Encoding) (kubepb.Encoding, error) {
	if e != kubepb.Encoding_PROTOBUF && e != kubepb.Encoding_JSON {
		return 0, invalid("encoding: there is no %d", e)
	}
	return e, nil
}

// List implements kubepb.ClusterStateServer.
func (s *Service) List(ctx context.Context, r *kubepb.ListRequest) (*kubepb.ListResponse, error) {
	answer, err := s.list(ctx, r)
	return answer, toWire(err)
}

func (s *Service) list(ctx context.Context, r *kubepb.ListRequest) (*kubepb.ListResponse, error) {
	p, err := newPick(r.GetKind(), r.GetNamespace(), r.GetLabelSelector(), r.GetFieldSelector())
	if err != nil {
		return nil, err
	}
	if err := s.authorizePick(ctx, auth.List, p); err != nil {
		return nil, err
	}
	as, err := viewOf(ctx, p, r.GetEncoding())
	if err != nil {
		return nil, err
	}
	if r.Limit < 0 {
		return nil, invalid("limit: %d is less than none", r.Limit)
	}
	if r.Continue != "" {
		return s.listRest(ctx, p, r, as)
	}
	if err := s.at(ctx, r.ResourceVersion); err != nil {
		return nil, err
	}
	s.cache.mu.RLock()
	revision, found := s.cache.revision(), s.cache.mu.shelves[p.kind].find(p, "")
	s.cache.mu.RUnlock()
	answer := &kubepb.ListResponse{ResourceVersion: revision}
	if r.Limit > 0 && int64(len(found)) > r.Limit {
		answer.Remaining = int64(len(found)) - r.Limit
		found = found[:r.Limit]
		answer.Continue = continuation{revision, found[len(found)-1].key, answer.Remaining}.String()
	}
	answer.Items = make([]*kubepb.Object, 0, len(found))
	for _, e := range found {
		m, err := e.message(as)
		if err != nil {
			return nil, err
		}
		answer.Items = append(answer.Items, m)
	}
	return answer, nil
}

// continuation says where a list goes on: as of the same revision, which the store
// still knows if it was not compacted.
type continuation struct {
	revision int64
	after    string
	left     int64
}

func (c continuation) String() string {
	b := binary.AppendUvarint(nil, uint64(c.revision))
	b = binary.AppendUvarint(b, uint64(c.left))
	return base64.RawURLEncoding.EncodeToString(append(b, c.after...))
}

func parseContinuation(text string, k *api.Kind) (continuation, error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	revision, n := binary.Uvarint(b)
	if err != nil || n <= 0 {
		return continuation{}, errBadContinue
	}
	left, m := binary.Uvarint(b[n:])
	if m <= 0 {
		return continuation{}, errBadContinue
	}
	c := continuation{int64(revision), string(b[n+m:]), int64(left)}
	if _, _, ok := k.ParseKey(c.after); !ok || c.revision <= 0 || c.left < 0 {
		return continuation{}, errBadContinue
	}
	return c, nil
}

var errBadContinue = invalid("continue: it is not from the answer to a list of this kind")

// listRest answers the parts of a list after the first, from the store.
func (s *Service) listRest(ctx context.Context, p *pick, r *kubepb.ListRequest, as view) (*kubepb.ListResponse, error) {
	c, err := parseContinuation(r.Continue, p.kind)
	if err != nil {
		return nil, err
	}
	keys := client.Prefix(p.kind.Prefix(p.namespace))
	get := client.Get{Range: keys, Revision: c.revision, Limit: listPageKeys}
	get.Key = max(keys.Key, c.after+"\x00")
	answer := &kubepb.ListResponse{ResourceVersion: c.revision}
	for {
		page, err := s.store.Get(ctx, get)
		if errors.Is(err, client.ErrCompacted) || errors.Is(err, client.ErrFutureRevision) {
			return nil, fmt.Errorf("the rest of the list as of revision %d: %w", c.revision, errExpired)
		}
		if err != nil {
			return nil, err
		}
		for _, kv := range page.Kvs {
			if r.Limit > 0 && int64(len(answer.Items)) == r.Limit {
				answer.Remaining = max(c.left-r.Limit, 0)
				answer.Continue = continuation{c.revision, keyOf(p.kind, answer.Items[len(answer.Items)-1]), answer.Remaining}.String()
				return answer, nil
			}
			if answer.Items, err = appendPicked(answer.Items, p, kv, as); err != nil {
				return nil, err
			}
		}
		if !page.More || len(page.Kvs) == 0 {
			return answer, nil
		}
		get.Key = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
}

func keyOf(k *api.Kind, m *kubepb.Object) string { return k.Key(m.Namespace, m.Name) }

func appendPicked(items []*kubepb.Object, p *pick, kv *mvccpb.KeyValue, as view) ([]*kubepb.Object, error) {
	e, err := newEntry(p.kind, kv, nil)
	if err != nil || !p.matches(e) {
		return items, nil // As in the cache: one that cannot be read is left out.
	}
	m, err := e.message(as)
	if err != nil {
		return nil, err
	}
	return append(items, m), nil
}
