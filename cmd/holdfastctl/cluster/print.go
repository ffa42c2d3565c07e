package cluster

import (
	"encoding/json"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/holdfast-db/holdfast/kube/api"
)

// forms that objects are printed in, beside tables.
var forms = []string{"", "wide", "name", "json", "yaml"}

func checkForm(form string) error {
	if slices.Contains(forms, form) {
		return nil
	}
	return usage("unable to match a printer suitable for the output format %q, allowed formats are: json, name, wide, yaml", form)
}

// shown is an object as -o json and yaml print it: no manager's bookkeeping, and of a
// Secret not the annotation in which apply keeps it whole.
func shown(o api.Object) api.Object {
	o = o.DeepCopyObject().(api.Object)
	o.SetManagedFields(nil)
	if api.KindOf(o) == api.Secret {
		notes := o.GetAnnotations()
		delete(notes, api.LastApplied)
		if len(notes) == 0 {
			notes = nil
		}
		o.SetAnnotations(notes)
	}
	return o
}

// document is one object, or a list of them, as JSON or YAML.
func document(form string, list []api.Object, single bool) ([]byte, error) {
	var items []json.RawMessage
	for _, o := range list {
		text, err := api.EncodeJSON(shown(o))
		if err != nil {
			return nil, err
		}
		items = append(items, text)
	}
	var text []byte
	if single && len(items) == 1 {
		text = items[0]
	} else {
		if items == nil {
			items = []json.RawMessage{}
		}
		var err error
		if text, err = json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "metadata": map[string]any{"resourceVersion": ""}, "items": items}); err != nil {
			return nil, err
		}
	}
	if form == "yaml" {
		return yaml.JSONToYAML(text)
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(tree, "", "    ")
	return append(text, '\n'), err
}

// named is one line for each object: pod/web-1.
func (s *session) named(list []api.Object) {
	for _, o := range list {
		s.printf("%s\n", titled(o))
	}
}

// done says what a write did, or prints the object if a form is asked for.
func (s *session) done(o api.Object, form, what string) error {
	switch form {
	case "":
		s.printf("%s %s\n", titled(o), what)
	case "name":
		s.named([]api.Object{o})
	case "json", "yaml":
		text, err := document(form, []api.Object{o}, true)
		if err != nil {
			return err
		}
		_, err = s.Out.Write(text)
		return err
	}
	return nil
}

// checkDone refuses a form that done has not, before anything is written.
func checkDone(form string) error {
	if slices.Contains([]string{"", "name", "json", "yaml"}, form) {
		return nil
	}
	return usage("-o %s: of what was written there are json, yaml and name", form)
}

// joined is words with what they are divided by, <none> if there are none.
func joined(words []string, by string) string { return orNone(strings.Join(words, by)) }
