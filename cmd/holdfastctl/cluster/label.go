package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// marks are the labels or the annotations of objects.
type marks struct {
	field   string // "labels", "annotations".
	done    string // "labeled", "annotated".
	undone  string
	another string // "not labeled".
	of      func(api.Object) map[string]string
}

type markFlags struct {
	selection
	dry             dryRun
	overwrite, list bool
}

func (s *session) labelCommand() *cobra.Command {
	return s.markCommand("label", "Sets and removes labels of objects", &marks{
		"labels", "labeled", "unlabeled", "not labeled", api.Object.GetLabels,
	})
}

func (s *session) annotateCommand() *cobra.Command {
	return s.markCommand("annotate", "Sets and removes annotations of objects", &marks{
		"annotations", "annotated", "annotated", "annotated", api.Object.GetAnnotations,
	})
}

func (s *session) markCommand(verb, short string, m *marks) *cobra.Command {
	var f markFlags
	cmd := &cobra.Command{
		Use: verb + " KIND NAME... | KIND/NAME...  KEY=VALUE... KEY-...", Short: short,
		RunE: s.connected(func(ctx context.Context, args []string) error { return s.mark(ctx, m, &f, args) }),
	}
	f.selection.declare(cmd)
	f.dry.declare(cmd)
	fs := cmd.Flags()
	fs.BoolVar(&f.everything, "all", false, "all of the kind, in the namespace")
	fs.BoolVar(&f.overwrite, "overwrite", false, "also where there is another value")
	fs.BoolVar(&f.list, "list", false, "show them, change nothing")
	return cmd
}

// changes are what arguments say of keys; a nil value takes the key out.
func changes(args []string) (names []string, set map[string]*string, err error) {
	set = map[string]*string{}
	for _, a := range args {
		key, value, ok := strings.Cut(a, "=")
		minus, drop := strings.CutSuffix(a, "-")
		switch {
		case ok && key != "":
			if _, twice := set[key]; twice {
				return nil, nil, usage("%q is set twice", key)
			}
			set[key] = &value
		case drop && minus != "" && !ok:
			set[minus] = nil
		case len(set) > 0:
			return nil, nil, usage("%q: all objects must be named before what is set: KEY=VALUE, or KEY- to remove", a)
		default:
			names = append(names, a)
		}
	}
	return names, set, nil
}

func (s *session) mark(ctx context.Context, m *marks, f *markFlags, args []string) error {
	if err := f.dry.check(); err != nil {
		return err
	}
	names, set, err := changes(args)
	if err != nil {
		return err
	}
	if len(set) == 0 && !f.list {
		return usage("at least one change is required: KEY=VALUE, or KEY- to remove")
	}
	list, err := s.chosen(ctx, names, f.selection)
	if err != nil {
		return err
	}
	for _, o := range list {
		if f.list {
			for _, k := range slices.Sorted(maps.Keys(m.of(o))) {
				if k != api.LastApplied {
					s.printf("%s=%s\n", k, printable(m.of(o)[k]))
				}
			}
			continue
		}
		if err := s.markOne(ctx, m, f, o, set); err != nil {
			return err
		}
	}
	return nil
}

// markOne changes one object as it is now: one that changes meanwhile is read again,
// so that no value is overwritten that was not seen.
func (s *session) markOne(ctx context.Context, m *marks, f *markFlags, o api.Object, set map[string]*string) error {
	for range conflictTriesMax {
		word, changed, err := m.word(o, set, f.overwrite)
		if err != nil {
			return err
		}
		if !changed || f.dry.client() {
			s.printf("%s %s%s\n", titled(o), word, f.dry.note())
			return nil
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{m.field: set}})
		if err != nil {
			return err
		}
		version, err := api.ParseVersion(o.GetResourceVersion())
		if err != nil {
			return err
		}
		_, err = ask(ctx, s, func(ctx context.Context) (api.Object, error) {
			made, _, err := s.client.Patch(ctx, api.KindOf(o), o.GetNamespace(), o.GetName(), kubepb.PatchRequest_MERGE, patch,
				objects.Option{ResourceVersion: version, UID: string(o.GetUID()), DryRun: f.dry.server()})
			return made, err
		})
		if err == nil {
			s.printf("%s %s%s\n", titled(o), word, f.dry.note())
			return nil
		}
		if !errors.Is(err, objects.ErrConflict) && !errors.Is(err, objects.ErrGuard) {
			return err
		}
		if o, err = ask(ctx, s, func(ctx context.Context) (api.Object, error) {
			return s.client.Get(ctx, api.KindOf(o), o.GetNamespace(), o.GetName())
		}); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s changes all the time: try again", titled(o))
}

// conflictTriesMax is how often a change is made anew because others were faster.
const conflictTriesMax = 10

// word is what a change will have done, and whether it changes anything.
func (m *marks) word(o api.Object, set map[string]*string, overwrite bool) (string, bool, error) {
	now := m.of(o)
	changed, dropped := false, false
	for _, key := range slices.Sorted(maps.Keys(set)) {
		value := set[key]
		old, there := now[key]
		switch {
		case value == nil:
			changed, dropped = changed || there, true
		case there && old == *value:
		case there && !overwrite:
			return "", false, fmt.Errorf("%s: %q already has a value (%s), and --overwrite is false", titled(o), key, old)
		default:
			changed = true
		}
	}
	switch {
	case !changed:
		return m.another, false, nil
	case dropped && len(set) == 1:
		return m.undone, true, nil
	}
	return m.done, true, nil
}
