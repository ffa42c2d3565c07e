package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func TestKindsThatHoldQuantitiesAreKnown(t *testing.T) {
	for _, k := range Kinds {
		if got, want := k.measured(), holdsQuantities(reflect.TypeOf(k.make()), map[reflect.Type]bool{}); got != want {
			t.Errorf("%s holds quantities: %v; said: %v", k.Name, want, got)
		}
	}
}

func holdsQuantities(typ reflect.Type, seen map[reflect.Type]bool) bool {
	if typ == reflect.TypeFor[resource.Quantity]() {
		return true
	}
	if seen[typ] {
		return false
	}
	seen[typ] = true
	switch typ.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return holdsQuantities(typ.Elem(), seen)
	case reflect.Struct:
		for i := range typ.NumField() {
			if holdsQuantities(typ.Field(i).Type, seen) {
				return true
			}
		}
	}
	return false
}

// within fails a test that would go on for ever.
func within(t *testing.T, what string, f func() error) error {
	t.Helper()
	g := task.New(context.Background())
	var err error
	done := make(chan struct{})
	g.Go(what, func(context.Context) error {
		err = f()
		close(done)
		return nil
	})
	select {
	case <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("%s does not end", what)
		return nil
	}
}

func TestQuantitiesWithAbsurdExponentsAreRefusedBeforeTheyAreWorkedOut(t *testing.T) {
	const place = "777777777777" // As long as what is put in its place.
	pod := Pod.New().(*corev1.Pod)
	pod.Name, pod.UID, pod.Annotations = "web-1e-2024", "0b5e-1234-9e-99999", map[string]string{"a": "1e-99999", "b": "at 1e-99999"} // As values they are no field 1.
	pod.Spec.Containers = []corev1.Container{{Name: "c8e-12345", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse(place)}}}}
	stored, err := Encode(pod)
	if err != nil {
		t.Fatal(err)
	}
	if o, err := Decode(Pod, stored, 0); err != nil || o.GetName() != pod.Name {
		t.Errorf("a pod whose names look like it: %v", err)
	}
	for _, evil := range []string{"1e-999999999", "1.5E-9999999", "+0001e-99999", ".0000e-09999", "1e2147483649", "1E+999999999"} {
		if len(evil) != len(place) || !bytes.Contains(stored, []byte(place)) {
			t.Fatal(evil)
		}
		err := within(t, "decode", func() error {
			_, err := Decode(Pod, bytes.Replace(stored, []byte(place), []byte(evil), 1), 0)
			return err
		})
		if !errors.Is(err, ErrEncoding) || !strings.Contains(err.Error(), "absurd exponent") {
			t.Errorf("%s: %v", evil, err)
		}
	}
	// One whose length is a digit, and one whose length takes two bytes.
	for _, n := range []int{0x31, 0x2e, 200} {
		evil := strings.Repeat("1", n-11) + "e-999999999"
		length := []byte{byte(n)}
		if n >= 0x80 {
			length = []byte{byte(n) | 0x80, 1}
		}
		raw := bytes.Join([][]byte{[]byte("\x0a"), length, []byte(evil)}, nil)
		if _, err := checkStored(Pod, raw); !errors.Is(err, ErrEncoding) {
			t.Errorf("of %d bytes: %v", n, err)
		}
	}
	delete(pod.Annotations, "a")
	text, err := EncodeJSON(pod)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeJSON(Pod, text); err != nil {
		t.Errorf("a pod whose names look like it: %v", err)
	}
	for _, evil := range []string{
		`"1e-999999999"`, `"1.5E-99999"`, `1e-99999`, `"1\u0065-999999999"`, `"1e\u002d999999999"`, `" 1e-9999999"`,
		`"1e999999999"`, `1e999999`, `"1\u0065999999999"`, `"1e4294967196"`, `"12345678901234567890e99999"`, `"0e99999"`,
	} {
		was := bytes.Replace(text, []byte(`"`+quantityText(pod)+`"`), []byte(evil), 1)
		if bytes.Equal(was, text) {
			t.Fatal("nothing was replaced")
		}
		if err := within(t, "decode", func() error { _, err := DecodeJSON(Pod, was); return err }); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: %v", evil, err)
		}
	}
	patch := []byte(`{"spec":{"containers":[{"name":"c8e-12345","resources":{"limits":{"cpu":"1e-999999999"}}}]}}`)
	for _, form := range []kubepb.PatchRequest_Type{kubepb.PatchRequest_STRATEGIC, kubepb.PatchRequest_MERGE} {
		if err := within(t, "patch", func() error { _, err := Patch(Pod, text, patch, form); return err }); !errors.Is(err, ErrEncoding) {
			t.Errorf("%v: %v", form, err)
		}
	}
	manifest := "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: i, resources: {limits: {cpu: %s}}}]}\n"
	for _, evil := range []string{`"1e-999999999"`, "1e-999999999", `"1\x65-999999999"`, `"1e999999999"`, "1e9999"} {
		err := within(t, "read", func() error { _, err := ReadManifests(strings.NewReader(fmt.Sprintf(manifest, evil)), "f"); return err })
		if err == nil || !strings.Contains(err.Error(), "a quantity has no such exponent") {
			t.Errorf("%s: %v", evil, err)
		}
	}
}

// Names and labels look like such quantities now and then.
func TestNamesThatLookLikeAbsurdQuantitiesAreTaken(t *testing.T) {
	pod := Pod.New().(*corev1.Pod)
	pod.Name, pod.Labels = "8e451290", map[string]string{"commit": "123e4567"}
	pod.Spec.Containers = []corev1.Container{{Name: "1e1000", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1e3")}}}}
	stored, err := Encode(pod)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(Pod, stored, 0); err != nil {
		t.Error(err)
	}
	text, err := EncodeJSON(pod)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeJSON(Pod, text); err != nil {
		t.Error(err)
	}
}

// What follows a text may look like another digit of it.
func TestAnAbsurdExponentIsFoundWhateverFollows(t *testing.T) {
	for _, after := range []string{"", "0", "00000"} {
		if _, err := checkStored(Pod, []byte("\x0a\x0c1e-999999999"+after)); !errors.Is(err, ErrEncoding) {
			t.Errorf("before %q: %v", after, err)
		}
	}
}

func TestAQuantityThatSomebodyWroteHasNoAbsurdExponent(t *testing.T) {
	for _, text := range []string{"1e1000000", "1e-1000000", "1E+9999", "12345678901234567890.5e99999", "1e4294967196", "0e9999"} {
		if err := within(t, text, func() error { _, err := ParseQuantity(text); return err }); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
	for _, text := range []string{"1e3", "200m", "1.5Gi", "1E", "2E-3", "0"} {
		if _, err := ParseQuantity(text); err != nil {
			t.Error(err)
		}
	}
}

func quantityText(pod *corev1.Pod) string {
	q := pod.Spec.Containers[0].Resources.Limits["cpu"]
	return q.String()
}
