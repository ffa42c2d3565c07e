package api

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// FuzzReadManifests: no file stops the program, and an object that is accepted is
// one all the way: stored, read, and its own manifest applied to it.
func FuzzReadManifests(f *testing.F) {
	files, err := filepath.Glob("testdata/manifests/*.[yj][as]*")
	if err != nil || len(files) == 0 {
		f.Fatalf("%d files, %v", len(files), err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		manifests, err := ReadManifests(bytes.NewReader(text), "f")
		if err != nil {
			return
		}
		for i := range manifests {
			m := &manifests[i]
			if err := m.Place("a"); err == nil {
				stays(t, m)
			}
		}
	})
}

func stays(t *testing.T, m *Manifest) {
	k := KindOf(m.Object)
	Default(m.Object)
	stored, err := Encode(m.Object)
	if err != nil {
		t.Fatal(err)
	}
	o, err := Decode(k, stored, 0)
	if err != nil {
		t.Fatal(err)
	}
	// The first reading may make nothing of an empty list; from then on it stays.
	again, err := Encode(o)
	if err != nil {
		t.Fatal(err)
	}
	if o, err = Decode(k, again, 0); err != nil {
		t.Fatal(err)
	}
	if third, err := Encode(o); err != nil || !bytes.Equal(again, third) {
		t.Fatalf("stored as\n%q\nthen as\n%q, %v", again, third, err)
	}
	patch, err := ApplyPatch(k, encoded(t, o), m.JSON)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Patch(k, encoded(t, o), patch, kubepb.PatchRequest_STRATEGIC); err != nil {
		t.Fatalf("%v: %s", err, patch)
	}
}

// FuzzDecode: no stored bytes stop the program, nor does anything that is done with
// what they are.
func FuzzDecode(f *testing.F) {
	for i, k := range Kinds {
		stored, err := Encode(k.New())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), stored)
	}
	files, err := filepath.Glob("testdata/manifests/*.[yj][as]*")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		manifests, _ := ReadManifests(bytes.NewReader(text), name) // Those that are refused seed nothing.
		for _, m := range manifests {
			stored, err := Encode(m.Object)
			if err != nil {
				f.Fatal(err)
			}
			for i, k := range Kinds {
				if KindOf(m.Object) == k {
					f.Add(uint8(i), stored)
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, stored []byte) {
		k := Kinds[int(kind)%len(Kinds)]
		o, err := Decode(k, stored, 7)
		if err != nil {
			return
		}
		Default(o)
		Validate(o)
		ValidateUpdate(o, o)
		Warnings(o)
		if pod, ok := o.(*corev1.Pod); ok {
			PodRequests(&pod.Spec)
		}
		stored, err = Encode(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(k, stored, 0); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzPatch: no patch stops the server, and what comes of one is an object.
func FuzzPatch(f *testing.F) {
	current := `{"metadata":{"name":"p","finalizers":["a/b"]},"spec":{"containers":[{"name":"c","image":"i","env":[{"name":"A","value":"1"}]}]}}`
	for form, patch := range map[kubepb.PatchRequest_Type]string{
		kubepb.PatchRequest_STRATEGIC:  `{"metadata":{"$deleteFromPrimitiveList/finalizers":["a/b"]},"spec":{"$setElementOrder/containers":[{"name":"d"},{"name":"c"}],"containers":[{"name":"d","$patch":"delete"},{"name":"c","$retainKeys":["name"],"image":null}]}}`,
		kubepb.PatchRequest_MERGE:      `{"metadata":null,"spec":{"containers":[]}}`,
		kubepb.PatchRequest_JSON_PATCH: `[{"op":"move","from":"/spec/containers/0","path":"/spec/containers/-"},{"op":"copy","from":"","path":"/metadata/labels"},{"op":"test","path":"/a~1b","value":1}]`,
	} {
		f.Add(uint8(form), current, patch)
	}
	f.Fuzz(func(t *testing.T, form uint8, current, patch string) {
		o, err := Patch(Pod, []byte(current), []byte(patch), kubepb.PatchRequest_Type(form%3))
		if err == nil {
			if _, err := Encode(o); err != nil {
				t.Fatal(err)
			}
		}
		// Whatever is there and whatever was applied: no manifest stops the program.
		if _, err := ApplyPatch(Pod, []byte(current), []byte(patch)); err != nil {
			return
		}
	})
}
