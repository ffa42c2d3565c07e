package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// target is a kind, and a name if one object of it is meant.
type target struct {
	kind *api.Kind
	name string
}

// all are the kinds of the word "all".
var all = []*api.Kind{api.Pod, api.Service, api.Deployment, api.ReplicaSet, api.Autoscaler}

// targets reads what arguments name: KIND, KIND NAME..., KIND,KIND or KIND/NAME...
func targets(args []string) ([]target, error) {
	if len(args) == 0 {
		return nil, usage("you must say what is meant: KIND, KIND NAME or KIND/NAME; 'api-resources' lists the kinds")
	}
	if err := named(args); err != nil {
		return nil, err
	}
	if strings.Contains(args[0], "/") {
		return slashed(args)
	}
	kinds, err := kindsOf(args[0])
	if err != nil {
		return nil, err
	}
	var found []target
	for _, k := range kinds {
		if len(args) == 1 {
			found = append(found, target{kind: k})
		}
		for _, name := range args[1:] {
			if strings.Contains(name, "/") {
				return nil, usage("%q: there is no need to say KIND/NAME behind a kind; write either KIND NAME or KIND/NAME", name)
			}
			found = append(found, target{k, name})
		}
	}
	return found, nil
}

// named refuses an empty name, which a variable that is not set makes: it would mean all
// objects of the kind.
func named(args []string) error {
	if slices.Contains(args, "") {
		return usage("a name is empty: is a variable not set?")
	}
	return nil
}

func slashed(args []string) ([]target, error) {
	var found []target
	for _, a := range args {
		word, name, ok := strings.Cut(a, "/")
		if !ok || name == "" || strings.Contains(name, "/") {
			return nil, usage("%q: with KIND/NAME, every argument must be KIND/NAME", a)
		}
		k, err := api.ByWord(word)
		if err != nil {
			return nil, err
		}
		found = append(found, target{k, name})
	}
	return found, nil
}

func kindsOf(words string) ([]*api.Kind, error) {
	var kinds []*api.Kind
	for _, w := range strings.Split(words, ",") {
		if w == "all" {
			kinds = append(kinds, all...)
			continue
		}
		k, err := api.ByWord(w)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(kinds, k) {
			kinds = append(kinds, k)
		}
	}
	return kinds, nil
}

// one is the only object that arguments name.
func one(args []string, kinds ...*api.Kind) (target, error) {
	found, err := targets(args)
	if err != nil {
		return target{}, err
	}
	if len(found) != 1 || found[0].name == "" {
		return target{}, usage("name one object: KIND NAME or KIND/NAME")
	}
	return found[0], only(found[0].kind, kinds)
}

func only(k *api.Kind, kinds []*api.Kind) error {
	if len(kinds) == 0 || slices.Contains(kinds, k) {
		return nil
	}
	var names []string
	for _, k := range kinds {
		names = append(names, k.Resource)
	}
	return usage("this is not for %s, but for %s", k.Resource, strings.Join(names, " and "))
}

// spaceOf is the namespace that a kind is looked for in.
func (s *session) spaceOf(k *api.Kind) string {
	if !k.Namespaced {
		return ""
	}
	return s.home
}

// get reads one object.
func (s *session) get(ctx context.Context, t target) (api.Object, error) {
	return ask(ctx, s, func(ctx context.Context) (api.Object, error) {
		return s.client.Get(ctx, t.kind, s.spaceOf(t.kind), t.name)
	})
}

// selection says which objects of a kind a command is about.
type selection struct {
	labels, fields string
	everywhere     bool
	everything     bool // --all.
}

func (s *session) listOptions(k *api.Kind, sel selection) objects.ListOptions {
	o := objects.ListOptions{Labels: sel.labels, Fields: sel.fields, Limit: listPage}
	if !sel.everywhere {
		o.Namespace = s.spaceOf(k)
	}
	return o
}

// listPage objects come in one answer.
const listPage = 2000

// find reads the objects that targets name or select.
func (s *session) find(ctx context.Context, found []target, sel selection) ([]api.Object, error) {
	var list []api.Object
	for _, t := range found {
		if t.name != "" {
			if sel.labels != "" || sel.fields != "" || sel.everything {
				return nil, usage("a name and a selector (-l, --field-selector, --all) cannot be given together")
			}
			if sel.everywhere && t.kind.Namespaced {
				return nil, usage("%s/%s: an object of a name cannot be looked for in all namespaces", t.kind.Resource, t.name)
			}
			o, err := s.get(ctx, t)
			if err != nil {
				return nil, err
			}
			list = append(list, o)
			continue
		}
		items, err := ask(ctx, s, func(ctx context.Context) ([]api.Object, error) {
			items, _, err := s.client.List(ctx, t.kind, s.listOptions(t.kind, sel))
			return items, err
		})
		if err != nil {
			return nil, err
		}
		list = append(list, items...)
	}
	return list, nil
}

// title is a kind as kubectl prints it: pod, deployment.apps.
func title(k *api.Kind) string {
	name := strings.ToLower(k.Name)
	if group, _, ok := strings.Cut(k.APIVersion, "/"); ok {
		return name + "." + group
	}
	return name
}

func titled(o api.Object) string { return fmt.Sprintf("%s/%s", title(api.KindOf(o)), o.GetName()) }
