package state

import (
	"encoding/hex"
	"fmt"
	"io"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// received decodes the object of a request, and checks that it is what it says.
func received(m *kubepb.Object) (*api.Kind, api.Object, int64, error) {
	k, err := api.ByName(m.GetKind())
	if err != nil {
		return nil, nil, 0, err
	}
	if m.ApiVersion != "" && m.ApiVersion != k.APIVersion {
		return nil, nil, 0, invalid("api_version: a %s is of %s, not %q", k.Name, k.APIVersion, shorten(m.ApiVersion))
	}
	if len(m.Raw) > 2*objectBytesMax { // JSON is larger than what is stored.
		return nil, nil, 0, invalid("the object has %d bytes", len(m.Raw))
	}
	encoding, err := checkEncoding(m.Encoding)
	if err != nil {
		return nil, nil, 0, err
	}
	var o api.Object
	if encoding == kubepb.Encoding_JSON {
		o, err = api.DecodeJSON(k, m.Raw)
	} else {
		o, err = api.Decode(k, m.Raw, 0)
	}
	if err != nil {
		return nil, nil, 0, invalid("object: %v", err)
	}
	if !k.Namespaced {
		o.SetNamespace("")
	}
	if m.Name != "" && m.Name != o.GetName() || m.Namespace != "" && m.Namespace != o.GetNamespace() {
		return nil, nil, 0, invalid("object: the request is about %s, the object is %s", full(m.Namespace, m.Name), full(o.GetNamespace(), o.GetName()))
	}
	version, err := api.ParseVersion(o.GetResourceVersion())
	if err != nil {
		return nil, nil, 0, invalid("%v", err)
	}
	if m.ResourceVersion != 0 {
		version = m.ResourceVersion
	}
	o.SetResourceVersion("")
	return k, o, version, nil
}

// begin fills in what a new object has that nobody may choose.
func (a *attempt) begin(o api.Object) error {
	uid, err := a.newUID()
	if err != nil {
		return err
	}
	o.SetUID(uid)
	o.SetCreationTimestamp(metav1.NewTime(a.now.UTC().Truncate(1e9)))
	o.SetGeneration(1)
	o.SetDeletionTimestamp(nil)
	o.SetDeletionGracePeriodSeconds(nil)
	o.SetSelfLink("")
	o.SetManagedFields(nil)
	return nil
}

// carry gives a changed object what no change may touch.
func carry(o, old api.Object) {
	o.SetUID(old.GetUID())
	o.SetCreationTimestamp(old.GetCreationTimestamp())
	o.SetGeneration(old.GetGeneration())
	o.SetDeletionTimestamp(old.GetDeletionTimestamp())
	o.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	o.SetGenerateName(old.GetGenerateName())
	o.SetSelfLink("")
	o.SetManagedFields(nil)
	o.SetResourceVersion("")
}

// part is a field of an object: Spec or Status. False if the kind has none.
func part(o api.Object, name string) (reflect.Value, bool) {
	v := reflect.ValueOf(o).Elem().FieldByName(name)
	return v, v.IsValid()
}

// sharePart gives one object the part of another, of the same kind and as private.
func sharePart(to, from api.Object, name string) {
	into, ok := part(to, name)
	if !ok {
		return
	}
	v, _ := part(from, name)
	into.Set(v)
}

func samePart(a, b api.Object, name string) bool {
	x, ok := part(a, name)
	y, _ := part(b, name)
	return !ok || equality.Semantic.DeepEqual(x.Interface(), y.Interface())
}

// gone reports whether an object that is being deleted has nothing left to wait for.
func gone(o api.Object) bool {
	if o.GetDeletionTimestamp() == nil || len(o.GetFinalizers()) > 0 {
		return false
	}
	switch o := o.(type) {
	case *corev1.Pod:
		return o.DeletionGracePeriodSeconds == nil || *o.DeletionGracePeriodSeconds == 0
	case *corev1.Namespace:
		return len(o.Spec.Finalizers) == 0
	}
	return true
}

// newUID draws a UUID of version 4.
func (a *attempt) newUID() (types.UID, error) {
	var b [16]byte
	if err := a.draw(b[:]); err != nil {
		return "", err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return types.UID(h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]), nil
}

func (s *Service) draw(b []byte) error {
	s.random.Lock()
	defer s.random.Unlock()
	if _, err := io.ReadFull(s.random.from, b); err != nil {
		return fmt.Errorf("random: %w", err)
	}
	return nil
}

// letters of generated names: none that makes a word, or looks like another.
const letters = "bcdfghjklmnpqrstvwxz2456789"

// generate draws a name that is not taken; the last that it drew if all are.
func (a *attempt) generate(k *api.Kind, namespace, prefix string) (name string, err error) {
	prefix = prefix[:min(len(prefix), api.NameMax(k)-generatedBytes)]
	for range generateTriesMax {
		var b [generatedBytes]byte
		if err := a.draw(b[:]); err != nil {
			return "", err
		}
		for i := range b {
			b[i] = letters[int(b[i])%len(letters)]
		}
		name = prefix + string(b[:])
		if a.read(k.Key(namespace, name)) == nil {
			break
		}
	}
	return name, nil
}

func without(list []string, s string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(x string) bool { return x == s })
}
