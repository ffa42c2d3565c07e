package cluster

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// watchRetry is between attempts to go on with a watch.
const watchRetry = 500 * time.Millisecond

func isNotFound(err error) bool { return errors.Is(err, objects.ErrNotFound) }

func (s *session) watchAll(ctx context.Context, f *getFlags, found []target) error {
	if len(found) != 1 {
		return usage("you may only watch a single kind, or one object, at a time")
	}
	t := found[0]
	o := s.listOptions(t.kind, f.selection)
	if t.name != "" {
		if f.labels != "" || f.fields != "" || f.everywhere {
			return usage("a name and a selector cannot be given together")
		}
		o.Fields = "metadata.name=" + t.name
	}
	v := s.view(f, found)
	v.single = true // Each state is a document of its own.
	w := &watched{session: s, options: o, kind: t.kind, seen: map[string]string{}, show: func(o api.Object) error {
		return v.print(s.Out, []api.Object{o})
	}}
	if t.name != "" {
		if _, err := s.get(ctx, t); err != nil {
			return err
		}
	}
	w.quiet = f.watchOnly
	err := w.run(ctx)
	if ctx.Err() != nil {
		return nil // A person has seen enough.
	}
	return err
}

// watched follows the objects of one kind for as long as somebody looks.
type watched struct {
	*session
	options objects.ListOptions
	kind    *api.Kind
	seen    map[string]string // Resource versions by namespace/name: what was shown.
	quiet   bool              // What is there at first is not shown.
	show    func(api.Object) error
	each    func() error // After each list and event. Nil: nothing.
}

// run shows what is there, then what changes. A broken watch goes on where it was;
// where the server has forgotten what followed, what has changed meanwhile is shown.
func (w *watched) run(ctx context.Context) error {
	for {
		if w.options.ResourceVersion == 0 {
			if err := w.list(ctx); err != nil {
				if again, err := w.again(ctx, err); !again {
					return err
				}
				continue
			}
		}
		err := w.client.Watch(ctx, w.kind, w.options, w.event)
		if errors.Is(err, objects.ErrExpired) {
			w.options.ResourceVersion = 0
			continue
		}
		if again, err := w.again(ctx, err); !again {
			return err
		}
	}
}

// again waits before the next attempt, if one makes sense.
func (w *watched) again(ctx context.Context, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if len(w.seen) == 0 && w.options.ResourceVersion == 0 || !broken(err) {
		return false, err // It has never worked, or will not.
	}
	return true, w.sleep(ctx, watchRetry)
}

// broken reports whether an error is of the connection and not of the request.
func broken(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || status.Code(unwrapped(err)) == codes.Unavailable
}

func key(o api.Object) string { return o.GetNamespace() + "/" + o.GetName() }

func (w *watched) list(ctx context.Context) error {
	ctx, cancel := w.within(ctx)
	defer cancel()
	items, revision, err := w.client.List(ctx, w.kind, w.options)
	if err != nil {
		return err
	}
	before := w.seen
	w.seen = make(map[string]string, len(items))
	for _, o := range items {
		k := key(o)
		w.seen[k] = o.GetResourceVersion()
		if before[k] != o.GetResourceVersion() && !w.quiet {
			if err := w.show(o); err != nil {
				return err
			}
		}
	}
	w.quiet = false
	w.options.ResourceVersion = revision
	if w.each != nil {
		return w.each()
	}
	return nil
}

func (w *watched) event(t kubepb.WatchEvent_Type, revision int64, o api.Object) error {
	w.options.ResourceVersion = max(w.options.ResourceVersion, revision)
	if o == nil {
		return nil
	}
	if t == kubepb.WatchEvent_DELETED {
		delete(w.seen, key(o))
	} else {
		w.seen[key(o)] = o.GetResourceVersion()
	}
	if err := w.show(o); err != nil {
		return err
	}
	if w.each != nil {
		return w.each()
	}
	return nil
}
