package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
)

func (s *session) eventsCommand() *cobra.Command {
	var f getFlags
	var about string
	var types []string
	cmd := &cobra.Command{
		Use:   "events [--for KIND/NAME] [--types Warning]",
		Short: "Shows what happened, the oldest first",
		RunE: s.connected(func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				return usage("events takes no arguments; those of one object are shown with --for KIND/NAME")
			}
			return s.events(ctx, &f, about, types)
		}),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.everywhere, "all-namespaces", "A", false, "of all namespaces")
	fs.StringVar(&about, "for", "", "only those about KIND/NAME")
	fs.StringSliceVar(&types, "types", nil, "only those of these types: Normal, Warning")
	fs.StringVarP(&f.form, "output", "o", "", "form: wide, name, json, yaml")
	fs.BoolVarP(&f.watch, "watch", "w", false, "go on with what happens")
	fs.BoolVar(&f.noHeaders, "no-headers", false, "without the line of column names")
	return cmd
}

func (s *session) events(ctx context.Context, f *getFlags, about string, types []string) error {
	if err := checkForm(f.form); err != nil {
		return err
	}
	wanted, err := ofTypes(types)
	if err != nil {
		return err
	}
	if about != "" {
		t, err := one([]string{about})
		if err != nil {
			return err
		}
		f.fields = "involvedObject.kind=" + t.kind.Name + ",involvedObject.name=" + t.name
		if !t.kind.Namespaced {
			f.everywhere = true
		}
	}
	found := []target{{kind: api.Event}}
	v := s.view(f, found)
	if f.watch {
		w := &watched{session: s, options: s.listOptions(api.Event, f.selection), kind: api.Event, seen: map[string]string{}, show: func(o api.Object) error {
			if !wanted(o) {
				return nil
			}
			return v.print(s.Out, []api.Object{o})
		}}
		if err := w.run(ctx); ctx.Err() == nil {
			return err
		}
		return nil
	}
	list, err := s.find(ctx, found, f.selection)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(o api.Object) bool { return !wanted(o) })
	slices.SortStableFunc(list, func(a, b api.Object) int { return lastSeen(a.(*corev1.Event)).Compare(lastSeen(b.(*corev1.Event))) })
	if len(list) == 0 && v.tabular() {
		where := fmt.Sprintf(" in %s namespace", s.home)
		if f.everywhere {
			where = ""
		}
		fmt.Fprintf(s.Err, "No events found%s.\n", where)
		return nil
	}
	return v.print(s.Out, list)
}

// ofTypes tells events of some types from others.
func ofTypes(types []string) (func(api.Object) bool, error) {
	for _, t := range types {
		if !strings.EqualFold(t, corev1.EventTypeNormal) && !strings.EqualFold(t, corev1.EventTypeWarning) {
			return nil, usage("--types %s: there are Normal and Warning", t)
		}
	}
	return func(o api.Object) bool {
		e := o.(*corev1.Event)
		return len(types) == 0 || slices.ContainsFunc(types, func(t string) bool { return strings.EqualFold(t, e.Type) })
	}, nil
}
