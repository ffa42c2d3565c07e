package objects

import (
	"context"
	"io"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// What a program that learns the kind while it runs calls instead of Get, List and
// the others. The answers of writes come with the server's warnings.

// Get reads one object of a kind.
func (c *Client) Get(ctx context.Context, k *api.Kind, namespace, name string) (api.Object, error) {
	m, err := c.rpc.Get(ctx, &kubepb.GetRequest{Object: refOf(k, namespace, name)})
	if err != nil {
		return nil, fromWire(err)
	}
	return api.Decode(k, m.GetRaw(), m.GetResourceVersion())
}

// List reads objects of a kind, all as of the revision that it returns.
func (c *Client) List(ctx context.Context, k *api.Kind, o ListOptions) ([]api.Object, int64, error) {
	request := &kubepb.ListRequest{
		Kind: k.Name, Namespace: o.Namespace, LabelSelector: o.Labels, FieldSelector: o.Fields, ResourceVersion: o.ResourceVersion, Limit: o.Limit,
	}
	var all []api.Object
	for {
		answer, err := c.rpc.List(ctx, request)
		if err != nil {
			return nil, 0, fromWire(err)
		}
		for _, m := range answer.Items {
			item, err := api.Decode(k, m.GetRaw(), m.GetResourceVersion())
			if err != nil {
				return nil, 0, err
			}
			all = append(all, item)
		}
		if answer.Continue == "" {
			return all, answer.ResourceVersion, nil
		}
		request.Continue = answer.Continue
	}
}

// Watch calls f for each change of objects of a kind after a revision, until ctx
// ends, f fails, or the watch does: io.ErrUnexpectedEOF and what is Unavailable can be
// watched on from the revision of the last event, ErrExpired must be listed anew.
// An event without an object tells only how far the watch is.
func (c *Client) Watch(ctx context.Context, k *api.Kind, o ListOptions, f func(t kubepb.WatchEvent_Type, revision int64, o api.Object) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.Watch(ctx, &kubepb.WatchRequest{
		Kind: k.Name, Namespace: o.Namespace, LabelSelector: o.Labels, FieldSelector: o.Fields, ResourceVersion: o.ResourceVersion, Bookmarks: true,
	})
	if err != nil {
		return fromWire(err)
	}
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return fromWire(err)
		}
		for _, e := range m.Events {
			var object api.Object
			if e.Type != kubepb.WatchEvent_BOOKMARK && e.Type != kubepb.WatchEvent_SYNCED {
				if object, err = api.Decode(k, e.Object.GetRaw(), e.Object.GetResourceVersion()); err != nil {
					return err
				}
			}
			if err := f(e.Type, e.Object.GetResourceVersion(), object); err != nil {
				return err
			}
		}
	}
}

func writtenOf(k *api.Kind, answer *kubepb.WriteResponse, err error) (api.Object, []string, error) {
	if err != nil {
		return nil, nil, fromWire(err)
	}
	o, err := api.Decode(k, answer.GetObject().GetRaw(), answer.GetObject().GetResourceVersion())
	return o, answer.GetWarnings(), err
}

// Create makes an object.
func (c *Client) Create(ctx context.Context, object api.Object, options ...Option) (api.Object, []string, error) {
	k := api.KindOf(object)
	m, err := encode(k, object)
	if err != nil {
		return nil, nil, err
	}
	o := combine(options)
	answer, err := c.rpc.Create(ctx, &kubepb.CreateRequest{Object: m, DryRun: o.DryRun, Manager: c.manager, Preconditions: o.preconditions()})
	return writtenOf(k, answer, err)
}

// Update replaces an object, of the resource version that it carries.
func (c *Client) Update(ctx context.Context, object api.Object, options ...Option) (api.Object, []string, error) {
	k := api.KindOf(object)
	m, err := encode(k, object)
	if err != nil {
		return nil, nil, err
	}
	o := combine(options)
	answer, err := c.rpc.Update(ctx, &kubepb.UpdateRequest{Object: m, DryRun: o.DryRun, Manager: c.manager, Preconditions: o.preconditions()})
	return writtenOf(k, answer, err)
}

// Patch changes parts of an object.
func (c *Client) Patch(
	ctx context.Context, k *api.Kind, namespace, name string, how kubepb.PatchRequest_Type, patch []byte, options ...Option,
) (api.Object, []string, error) {
	o := combine(options)
	answer, err := c.rpc.Patch(ctx, &kubepb.PatchRequest{
		Object: refOf(k, namespace, name), Type: how, Patch: patch, DryRun: o.DryRun, Manager: c.manager, Preconditions: o.preconditions(),
	})
	return writtenOf(k, answer, err)
}

// Delete deletes an object, or begins to, and returns it as it was last.
func (c *Client) Delete(ctx context.Context, k *api.Kind, namespace, name string, options ...Option) (api.Object, error) {
	o := combine(options)
	r := &kubepb.DeleteRequest{
		Object: refOf(k, namespace, name), Propagation: o.Propagation, DryRun: o.DryRun, Preconditions: o.preconditions(),
	}
	if o.Grace != nil {
		r.GraceSet, r.GraceSeconds = true, *o.Grace
	}
	answer, err := c.rpc.Delete(ctx, r)
	object, _, err := writtenOf(k, answer, err)
	return object, err
}
