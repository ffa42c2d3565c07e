package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

var (
	scheme = newScheme()
	binary = protobuf.NewSerializer(scheme, scheme)
	byType = typesOf(Kinds)
)

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, k := range Kinds {
		s.AddKnownTypeWithName(schemaOf(k), k.make())
	}
	return s
}

func schemaOf(k *Kind) schema.GroupVersionKind {
	return schema.FromAPIVersionAndKind(k.APIVersion, k.Name)
}

func typesOf(kinds []*Kind) map[reflect.Type]*Kind {
	m := make(map[reflect.Type]*Kind, len(kinds))
	for _, k := range kinds {
		m[reflect.TypeOf(k.make())] = k
	}
	return m
}

// scratches are where objects are encoded before their size is known.
var scratches = sync.Pool{New: func() any { return &runtime.Allocator{} }}

// Encode is the stored form of an object. The resource version is not in it: that
// is the key's revision.
func Encode(o Object) ([]byte, error) {
	k := KindOf(o)
	if k == nil {
		return nil, fmt.Errorf("%T: %w", o, ErrKind)
	}
	version := o.GetResourceVersion()
	if version != "" {
		o.SetResourceVersion("")
		defer o.SetResourceVersion(version)
	}
	o.GetObjectKind().SetGroupVersionKind(schemaOf(k))
	var b bytes.Buffer
	scratch := scratches.Get().(*runtime.Allocator)
	defer scratches.Put(scratch)
	if err := binary.EncodeWithAllocator(o, &b, scratch); err != nil {
		return nil, fmt.Errorf("encode %s %s/%s: %w", k.Name, o.GetNamespace(), o.GetName(), err)
	}
	return b.Bytes(), nil
}

// Decode reads the stored form of an object of kind k. resourceVersion is the
// revision of its key; 0: none is set.
func Decode(k *Kind, stored []byte, resourceVersion int64) (Object, error) {
	suspect, err := checkStored(k, stored)
	if err != nil {
		return nil, err
	}
	o := k.make()
	gvk := schemaOf(k)
	into, _, err := binary.Decode(stored, &gvk, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", k.Name, ErrEncoding, err)
	}
	if into != runtime.Object(o) {
		return nil, fmt.Errorf("%s: %w: it is a %T", k.Name, ErrEncoding, into)
	}
	if suspect {
		if err := checkMade(k, o); err != nil {
			return nil, err
		}
	}
	o.GetObjectKind().SetGroupVersionKind(gvk)
	if resourceVersion != 0 {
		o.SetResourceVersion(FormatVersion(resourceVersion))
	}
	return o, nil
}

// EncodeJSON is an object for people and scripts.
func EncodeJSON(o Object) ([]byte, error) {
	if k := KindOf(o); k != nil {
		o.GetObjectKind().SetGroupVersionKind(schemaOf(k))
	}
	return json.Marshal(o)
}

// FormatVersion is a resource version as objects carry it; ParseVersion reads it.
// The empty string is 0.
func FormatVersion(revision int64) string {
	if revision == 0 {
		return ""
	}
	return strconv.FormatInt(revision, 10)
}

// ParseVersion reads what FormatVersion wrote.
func ParseVersion(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("resource version %q: it is a number of the store, as read with the object", s)
	}
	return n, nil
}
