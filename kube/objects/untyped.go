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
	return get[api.Object](ctx, c, k, namespace, name)
}

// List reads objects of a kind, all as of the revision that it returns.
func (c *Client) List(ctx context.Context, k *api.Kind, o ListOptions) ([]api.Object, int64, error) {
	return list[api.Object](ctx, c, k, o)
}

// Watch calls f for each change of objects of a kind after a revision, until ctx
// ends, f fails, or the watch does: io.ErrUnexpectedEOF and what is Unavailable can be
// watched on from the revision of the last event, ErrExpired must be listed anew.
// An event without an object tells only how far the watch is.
func (c *Client) Watch(ctx context.Context, k *api.Kind, o ListOptions, f func(t kubepb.WatchEvent_Type, revision int64, o api.Object) error) error {
	return c.watch(ctx, k, o, func(uint64) error { return nil }, func(e *kubepb.WatchEvent) error {
		var object api.Object
		if e.Type != kubepb.WatchEvent_BOOKMARK && e.Type != kubepb.WatchEvent_SYNCED {
			var err error
			if object, err = decode[api.Object](k, e.Object); err != nil {
				return err
			}
		}
		return f(e.Type, e.Object.GetResourceVersion(), object)
	})
}

// watch is Watch with events as they come; and before them, begins is told the history
// that they are of.
func (c *Client) watch(ctx context.Context, k *api.Kind, o ListOptions, begins func(history uint64) error, f func(*kubepb.WatchEvent) error) error {
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
		if m.History != 0 {
			if err := begins(m.History); err != nil {
				return err
			}
		}
		for _, e := range m.Events {
			if err := f(e); err != nil {
				return err
			}
		}
	}
}

func writtenOf(k *api.Kind, answer *kubepb.WriteResponse, err error) (api.Object, []string, error) {
	o, err := written[api.Object](k, answer, err)
	return o, answer.GetWarnings(), err
}

// Create makes an object.
func (c *Client) Create(ctx context.Context, object api.Object, options ...Option) (api.Object, []string, error) {
	k := api.KindOf(object)
	answer, err := c.create(ctx, k, object, options)
	return writtenOf(k, answer, err)
}

// Update replaces an object, of the resource version that it carries.
func (c *Client) Update(ctx context.Context, object api.Object, options ...Option) (api.Object, []string, error) {
	k := api.KindOf(object)
	answer, err := c.update(ctx, c.rpc.Update, k, object, options)
	return writtenOf(k, answer, err)
}

// Patch changes parts of an object.
func (c *Client) Patch(
	ctx context.Context, k *api.Kind, namespace, name string, how kubepb.PatchRequest_Type, patch []byte, options ...Option,
) (api.Object, []string, error) {
	answer, err := c.patch(ctx, k, &kubepb.PatchRequest{Object: refOf(k, namespace, name), Type: how, Patch: patch}, options)
	return writtenOf(k, answer, err)
}

// Delete deletes an object, or begins to, and returns it as it was last.
func (c *Client) Delete(ctx context.Context, k *api.Kind, namespace, name string, options ...Option) (api.Object, error) {
	answer, err := c.delete(ctx, k, namespace, name, options)
	object, _, err := writtenOf(k, answer, err)
	return object, err
}
