package state

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/holdfast-db/holdfast/kube/api"
)

// pick says which objects of a kind are meant.
type pick struct {
	kind            *api.Kind
	namespace, name string // Empty: any.
	node            string // That spec.nodeName must be, if hasNode.
	hasNode         bool
	labels          labels.Selector
	fields          fields.Selector
}

func newPick(kind, namespace, labelSelector, fieldSelector string) (*pick, error) {
	k, err := api.ByName(kind)
	if err != nil {
		return nil, invalid("kind: %v", err)
	}
	if len(labelSelector)+len(fieldSelector) > selectorBytesMax {
		return nil, invalid("the selectors have more than %d bytes", selectorBytesMax)
	}
	p := &pick{kind: k, namespace: namespace}
	if namespace != "" && !k.Namespaced {
		return nil, invalid("namespace: a %s has none", k.Name)
	}
	if namespace != "" && !plainName(namespace) {
		return nil, invalid("namespace: %q is no name", namespace)
	}
	if p.labels, err = api.ParseSelector(labelSelector); err != nil {
		return nil, invalid("label selector: %v", err)
	}
	if p.fields, err = api.ParseFieldSelector(fieldSelector); err != nil {
		return nil, invalid("field selector: %v", err)
	}
	known := fieldsOf(k)
	for _, r := range p.fields.Requirements() {
		if !slices.Contains(known, r.Field) {
			return nil, invalid("field selector: %q is no field to select a %s by; there are %s", r.Field, k.Name, strings.Join(known, ", "))
		}
	}
	p.node, p.hasNode = p.fields.RequiresExactMatch(fieldNode)
	p.name, _ = p.fields.RequiresExactMatch(fieldName)
	if ns, ok := p.fields.RequiresExactMatch(fieldNamespace); ok && k.Namespaced && p.namespace == "" && plainName(ns) {
		p.namespace = ns
	}
	return p, nil
}

// matches reports whether an object is meant. Its kind is right.
func (p *pick) matches(e *entry) bool {
	return e != nil && (p.namespace == "" || p.namespace == e.namespace) && p.labels.Matches(e.labels) && p.fields.Matches(e)
}

var everything = fields.Everything()

// concerns is a cheap first look: whether an event may be of interest.
func (p *pick) concerns(e *event) bool {
	of := e.new
	if of == nil {
		of = e.old
	}
	return (p.namespace == "" || p.namespace == of.namespace) && (p.name == "" || p.name == of.name)
}

// plainName reports whether a name can be a part of a key.
func plainName(name string) bool {
	return name != "" && len(name) <= nameBytesMax && !strings.ContainsAny(name, "/\x00") && name != "." && name != ".."
}

func checkName(what, name string) error {
	if !plainName(name) {
		return invalid("%s: %q is no name", what, shorten(name))
	}
	return nil
}

// shorten keeps messages short when names are not.
func shorten(s string) string {
	if len(s) > nameBytesMax {
		return fmt.Sprintf("%s...", s[:nameBytesMax])
	}
	return s
}
