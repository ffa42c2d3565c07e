package state

import (
	"fmt"
	"sync"
	"weak"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// entry is one object at one revision, shared by all and never written to.
type entry struct {
	kind            *api.Kind
	key             string
	namespace, name string
	revision        int64 // Of the change that made it this.
	stored          *mvccpb.KeyValue
	labels          labels.Set
	fields          selectable
	names           []string   // Keys of the Secrets and ConfigMaps that a pod names.
	object          api.Object // Nil for kinds of which there are many.

	// pod is a Pod, decoded, as long as somebody in this process uses it.
	pod weak.Pointer[corev1.Pod]

	envelopes [2]envelope // By encoding.
	reduced   [2]envelope // The same, of what other nodes see of a Node.
}

// envelope is an object as it goes out, made when somebody wants it.
type envelope struct {
	once    sync.Once
	message *kubepb.Object
	wire    []byte
	err     error
}

// selectable are the fields that selectors may ask for beside name and namespace.
type selectable struct {
	node, phase       string // Of pods; phase of namespaces too.
	about             *corev1.ObjectReference
	reason, eventType string // Of events.
}

// kept are kinds whose objects stay decoded: few, and looked at by writes.
func kept(k *api.Kind) bool {
	switch k {
	case api.Namespace, api.Node, api.Priority, api.Budget:
		return true
	}
	return false
}

// newEntry decodes what is stored, unless it has the object.
func newEntry(k *api.Kind, kv *mvccpb.KeyValue, o api.Object) (*entry, error) {
	key := string(kv.Key)
	namespace, name, ok := k.ParseKey(key)
	if !ok {
		return nil, fmt.Errorf("key of a %s: %w", k.Name, api.ErrEncoding)
	}
	if o == nil {
		var err error
		if o, err = api.Decode(k, kv.Value, kv.ModRevision); err != nil {
			return nil, err
		}
	}
	e := &entry{kind: k, key: key, namespace: namespace, name: name, revision: kv.ModRevision, stored: kv, labels: o.GetLabels()}
	switch o := o.(type) {
	case *corev1.Pod:
		e.pod = weak.Make(o)
		e.fields.node, e.fields.phase = o.Spec.NodeName, string(o.Status.Phase)
		if o.Spec.NodeName != "" {
			e.names = api.Named(o)
		}
	case *corev1.Namespace:
		e.fields.phase = string(o.Status.Phase)
	case *corev1.Event:
		about := o.InvolvedObject // A pointer into the event would keep all of it.
		e.fields.about, e.fields.reason, e.fields.eventType = &about, o.Reason, o.Type
	}
	if kept(k) {
		e.object = o
	}
	return e, nil
}

// decoded is the object if it is decoded anyhow, nil if not.
func (e *entry) decoded() api.Object {
	if e.object != nil {
		return e.object
	}
	if p := e.pod.Value(); p != nil {
		return p
	}
	return nil
}

// message is the object as somebody sees it, shared by all who do.
func (e *entry) message(as view) (*kubepb.Object, error) {
	v := e.envelope(as)
	return v.message, v.err
}

// wire is the same in wire form.
func (e *entry) wire(as view) ([]byte, error) {
	v := e.envelope(as)
	return v.wire, v.err
}

func (e *entry) envelope(as view) *envelope {
	v := &e.envelopes[as.encoding]
	if as.reduced {
		v = &e.reduced[as.encoding]
	}
	v.once.Do(func() {
		stored := e.stored.Value
		if as.reduced {
			stored, v.err = e.storedReduced()
		}
		if v.err == nil {
			v.message, v.err = envelopeOf(e.kind, stored, e.namespace, e.name, e.revision, as.encoding)
		}
		if v.err == nil {
			v.wire, v.err = v.message.MarshalVT()
		}
	})
	return v
}

// envelopeOf makes what a stored object is sent as.
func envelopeOf(k *api.Kind, stored []byte, namespace, name string, revision int64, encoding kubepb.Encoding) (*kubepb.Object, error) {
	m := &kubepb.Object{
		ApiVersion: k.APIVersion, Kind: k.Name, Namespace: namespace, Name: name, ResourceVersion: revision, Encoding: encoding, Raw: stored,
	}
	if encoding == kubepb.Encoding_JSON {
		o, err := api.Decode(k, stored, revision)
		if err != nil {
			return nil, err
		}
		if m.Raw, err = api.EncodeJSON(o); err != nil {
			return nil, fmt.Errorf("%s %s/%s as JSON: %w", k.Name, namespace, name, err)
		}
	}
	return m, nil
}

// Has and Get implement fields.Fields.
func (e *entry) Has(field string) bool { _, ok := e.field(field); return ok }
func (e *entry) Get(field string) string {
	v, _ := e.field(field)
	return v
}

var _ fields.Fields = (*entry)(nil)

const (
	fieldName      = "metadata.name"
	fieldNamespace = "metadata.namespace"
	fieldNode      = "spec.nodeName"
	fieldPhase     = "status.phase"
)

func (e *entry) field(name string) (string, bool) {
	switch name {
	case fieldName:
		return e.name, true
	case fieldNamespace:
		return e.namespace, true
	case fieldNode:
		return e.fields.node, e.kind == api.Pod
	case fieldPhase:
		return e.fields.phase, e.kind == api.Pod || e.kind == api.Namespace
	case "reason":
		return e.fields.reason, e.kind == api.Event
	case "type":
		return e.fields.eventType, e.kind == api.Event
	}
	o := e.fields.about
	if o == nil {
		return "", false
	}
	switch name {
	case "involvedObject.kind":
		return o.Kind, true
	case "involvedObject.namespace":
		return o.Namespace, true
	case "involvedObject.name":
		return o.Name, true
	case "involvedObject.uid":
		return string(o.UID), true
	}
	return "", false
}

// fieldsOf are the fields that selectors of a kind may name.
func fieldsOf(k *api.Kind) []string {
	names := []string{fieldName, fieldNamespace}
	switch k {
	case api.Pod:
		names = append(names, fieldNode, fieldPhase)
	case api.Namespace:
		names = append(names, fieldPhase)
	case api.Event:
		names = append(names, "reason", "type", "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid")
	}
	return names
}
