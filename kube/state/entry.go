package state

import (
	"fmt"
	"strings"
	"sync"

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

	envelopes [2]envelope // By encoding.
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

// newEntry decodes what is stored.
func newEntry(k *api.Kind, kv *mvccpb.KeyValue) (*entry, error) {
	key := string(kv.Key)
	namespace, name, ok := k.ParseKey(key)
	if !ok {
		return nil, fmt.Errorf("key of a %s: %w", k.Name, api.ErrEncoding)
	}
	o, err := api.Decode(k, kv.Value, kv.ModRevision)
	if err != nil {
		return nil, err
	}
	e := &entry{kind: k, key: key, namespace: namespace, name: name, revision: kv.ModRevision, stored: kv, labels: o.GetLabels()}
	switch o := o.(type) {
	case *corev1.Pod:
		e.fields.node, e.fields.phase = o.Spec.NodeName, string(o.Status.Phase)
		if o.Spec.NodeName != "" {
			e.names = namesOf(o)
		}
	case *corev1.Namespace:
		e.fields.phase = string(o.Status.Phase)
	case *corev1.Event:
		e.fields.about, e.fields.reason, e.fields.eventType = &o.InvolvedObject, o.Reason, o.Type
	}
	if kept(k) {
		e.object = o
	}
	return e, nil
}

// message is the object in an encoding, shared by all who send it.
func (e *entry) message(encoding kubepb.Encoding) (*kubepb.Object, error) {
	v := e.envelope(encoding)
	return v.message, v.err
}

// wire is the same in wire form.
func (e *entry) wire(encoding kubepb.Encoding) ([]byte, error) {
	v := e.envelope(encoding)
	return v.wire, v.err
}

func (e *entry) envelope(encoding kubepb.Encoding) *envelope {
	v := &e.envelopes[encoding]
	v.once.Do(func() {
		v.message, v.err = envelopeOf(e.kind, e.stored.Value, e.namespace, e.name, e.revision, encoding)
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

// namesOf are the keys of the Secrets and ConfigMaps that a pod names.
func namesOf(p *corev1.Pod) []string {
	var n names
	n.namespace = p.Namespace
	for i := range p.Spec.ImagePullSecrets {
		n.add(api.Secret, p.Spec.ImagePullSecrets[i].Name)
	}
	for i := range p.Spec.Volumes {
		n.addVolume(&p.Spec.Volumes[i])
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			n.addContainer(&list[i])
		}
	}
	return n.keys
}

type names struct {
	namespace string
	keys      []string
}

func (n *names) add(k *api.Kind, name string) {
	if name != "" && !strings.Contains(name, "/") {
		n.keys = append(n.keys, k.Key(n.namespace, name))
	}
}

func (n *names) addVolume(v *corev1.Volume) {
	if v.Secret != nil {
		n.add(api.Secret, v.Secret.SecretName)
	}
	if v.ConfigMap != nil {
		n.add(api.ConfigMap, v.ConfigMap.Name)
	}
	if v.Projected == nil {
		return
	}
	for _, s := range v.Projected.Sources {
		if s.Secret != nil {
			n.add(api.Secret, s.Secret.Name)
		}
		if s.ConfigMap != nil {
			n.add(api.ConfigMap, s.ConfigMap.Name)
		}
	}
}

func (n *names) addContainer(c *corev1.Container) {
	for _, from := range c.EnvFrom {
		if from.SecretRef != nil {
			n.add(api.Secret, from.SecretRef.Name)
		}
		if from.ConfigMapRef != nil {
			n.add(api.ConfigMap, from.ConfigMapRef.Name)
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			continue
		}
		if e.ValueFrom.SecretKeyRef != nil {
			n.add(api.Secret, e.ValueFrom.SecretKeyRef.Name)
		}
		if e.ValueFrom.ConfigMapKeyRef != nil {
			n.add(api.ConfigMap, e.ValueFrom.ConfigMapKeyRef.Name)
		}
	}
}
