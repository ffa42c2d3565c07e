package api

import (
	"bytes"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestAStoredObjectIsKubernetesOwnForm: four bytes of magic, and the key where
// Kubernetes keeps it.
func TestAStoredObjectIsKubernetesOwnForm(t *testing.T) {
	pod := Pod.New().(*corev1.Pod)
	pod.Name, pod.Namespace, pod.ResourceVersion = "web-1", "shop", "7"
	pod.Spec.Containers = []corev1.Container{{Name: "c", Image: "builtin/demo"}}
	stored, err := Encode(pod)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(stored, []byte("k8s\x00")) {
		t.Errorf("stored bytes begin with %q", stored[:4])
	}
	if pod.ResourceVersion != "7" {
		t.Errorf("resource version %q after encoding", pod.ResourceVersion)
	}
	o, err := Decode(Pod, stored, 9)
	if err != nil {
		t.Fatal(err)
	}
	got := o.(*corev1.Pod)
	if got.Name != "web-1" || got.Spec.Containers[0].Image != "builtin/demo" || got.ResourceVersion != "9" || got.Kind != "Pod" {
		t.Errorf("decoded %+v", got)
	}
	if _, err := Decode(Node, stored, 0); err == nil {
		t.Error("a pod was read as a node")
	}
	if key := Pod.Key("shop", "web-1"); key != "/registry/pods/shop/web-1" {
		t.Error(key)
	}
}

func TestEachKindIsFoundByItsNamesAndKeys(t *testing.T) {
	for _, k := range Kinds {
		o := k.New()
		if KindOf(o) != k {
			t.Errorf("%s: its object is of kind %v", k.Name, KindOf(o))
		}
		for _, word := range append([]string{k.Resource, k.Name, k.Resource + ".group"}, k.Short...) {
			if got, err := ByWord(word); err != nil || got != k {
				t.Errorf("%s: %q is %v, %v", k.Name, word, got, err)
			}
		}
		ns := ""
		if k.Namespaced {
			ns = "a"
		}
		if gotNS, name, ok := k.ParseKey(k.Key(ns, "b")); gotNS != ns || name != "b" || !ok {
			t.Errorf("%s: %q, %q, %v", k.Name, gotNS, name, ok)
		}
	}
}
