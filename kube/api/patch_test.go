package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

var patchTypes = map[string]kubepb.PatchRequest_Type{
	"strategic": kubepb.PatchRequest_STRATEGIC, "merge": kubepb.PatchRequest_MERGE, "json": kubepb.PatchRequest_JSON_PATCH,
}

// TestPatchesAndApply types patches and applied manifests. The parts of an input
// stand between lines of two dashes.
func TestPatchesAndApply(t *testing.T) {
	golden.Script(t, "testdata/patch.txt", func(c golden.Command) string {
		k, err := ByName(c.Arg("kind"))
		if err != nil {
			t.Fatal(err)
		}
		var parts [][]byte
		for _, p := range strings.Split(c.Input, "\n--\n") {
			j, err := yaml.YAMLToJSON([]byte(p))
			if err != nil {
				t.Fatalf("line %d: %v", c.Line, err)
			}
			parts = append(parts, j)
		}
		if c.Name == "apply" {
			return applyThree(t, k, parts)
		}
		o, err := Patch(k, parts[0], parts[1], patchTypes[c.Name])
		if err != nil {
			if !errors.Is(err, ErrPatch) {
				t.Errorf("line %d: %v is no ErrPatch", c.Line, err)
			}
			return err.Error()
		}
		return show(t, o)
	})
}

// applyThree creates an object from the first manifest, lets others change it, and
// applies the last manifest.
func applyThree(t *testing.T, k *Kind, parts [][]byte) string {
	created, err := Applied(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	o, err := DecodeJSON(k, created)
	if err != nil {
		t.Fatal(err)
	}
	Default(o)
	current, err := EncodeJSON(o)
	if err != nil {
		t.Fatal(err)
	}
	if o, err = Patch(k, current, parts[1], kubepb.PatchRequest_MERGE); err != nil {
		t.Fatal(err)
	}
	current, err = EncodeJSON(o)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := ApplyPatch(k, current, parts[2])
	if err != nil {
		return err.Error()
	}
	if patch == nil {
		return "unchanged"
	}
	o, err = Patch(k, current, patch, kubepb.PatchRequest_STRATEGIC)
	if err != nil {
		t.Fatal(err)
	}
	Default(o)
	if current, err = EncodeJSON(o); err != nil {
		t.Fatal(err)
	}
	again, err := ApplyPatch(k, current, parts[2])
	if err != nil || again != nil {
		t.Errorf("applied again: %s, %v", again, err)
	}
	return strings.Join(strings.Split(string(withoutNote(t, patch)), "\n"), "\n")
}

func withoutNote(t *testing.T, patch []byte) []byte {
	var v map[string]any
	if err := json.Unmarshal(patch, &v); err != nil {
		t.Fatal(err)
	}
	delete(child(child(v, "metadata"), "annotations"), LastApplied)
	if len(child(child(v, "metadata"), "annotations")) == 0 {
		delete(child(v, "metadata"), "annotations")
	}
	if len(child(v, "metadata")) == 0 {
		delete(v, "metadata")
	}
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func show(t *testing.T, o Object) string {
	text, err := EncodeJSON(o)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	delete(v, "status")
	delete(v, "kind")
	delete(v, "apiVersion")
	if text, err = yaml.Marshal(v); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestCopiesOfCopiesAreBounded(t *testing.T) {
	var steps []string
	for i := range 40 {
		steps = append(steps, fmt.Sprintf(`{"op":"copy","from":"/data","path":"/data/x%d"}`, i))
	}
	_, err := Patch(ConfigMap, []byte(`{"data":{"a":"b"}}`), []byte("["+strings.Join(steps, ",")+"]"), kubepb.PatchRequest_JSON_PATCH)
	if !errors.Is(err, ErrPatch) || !strings.Contains(err.Error(), "copies over") {
		t.Error(err)
	}
}

// TestAppliedManifestsComeOut: whatever an object is, after applying a manifest it
// has what the manifest says, and applying it again changes nothing.
func TestAppliedManifestsComeOut(t *testing.T) {
	seed := rand.Int63()
	r := rand.New(rand.NewSource(seed))
	for i := range 300 {
		before, now, wanted := randomPod(r), randomPod(r), randomPod(r)
		current := now
		if r.Intn(4) > 0 {
			now.Annotations[LastApplied] = string(encoded(t, before))
		}
		text := encoded(t, current)
		patch, err := ApplyPatch(Pod, text, encoded(t, wanted))
		if err != nil {
			t.Fatalf("seed %d, round %d: %v", seed, i, err)
		}
		o, err := Patch(Pod, text, patch, kubepb.PatchRequest_STRATEGIC)
		if err != nil {
			t.Fatalf("seed %d, round %d: %v\n%s", seed, i, err, patch)
		}
		if missing := lacks(o.(*corev1.Pod), wanted); missing != "" {
			t.Fatalf("seed %d, round %d: %s\n%s\npatch %s", seed, i, missing, encoded(t, o), patch)
		}
		if again, err := ApplyPatch(Pod, encoded(t, o), encoded(t, wanted)); again != nil || err != nil {
			t.Fatalf("seed %d, round %d: again %s, %v", seed, i, again, err)
		}
	}
}

func encoded(t *testing.T, o Object) []byte {
	text, err := EncodeJSON(o)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func randomPod(r *rand.Rand) *corev1.Pod {
	pod := Pod.New().(*corev1.Pod)
	pod.Name, pod.Annotations = "p", map[string]string{}
	for i := range r.Intn(4) {
		pod.Annotations[fmt.Sprint("note-", i)] = fmt.Sprint(r.Intn(3))
	}
	for _, i := range r.Perm(4)[:r.Intn(4)] {
		c := corev1.Container{Name: fmt.Sprint("c", i), Image: fmt.Sprint("image:", r.Intn(2))}
		for _, j := range r.Perm(3)[:r.Intn(3)] {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("E", j), Value: fmt.Sprint(r.Intn(3))})
		}
		for range r.Intn(3) {
			c.Ports = append(c.Ports, corev1.ContainerPort{ContainerPort: int32(80 + r.Intn(2)), Protocol: [...]corev1.Protocol{"TCP", "UDP"}[r.Intn(2)]})
		}
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	for _, i := range r.Perm(3)[:r.Intn(3)] {
		pod.Finalizers = append(pod.Finalizers, fmt.Sprint("example.com/f", i))
	}
	return pod
}

// lacks names what a pod does not have of what is wanted.
func lacks(pod, wanted *corev1.Pod) string {
	for name, v := range wanted.Annotations {
		if pod.Annotations[name] != v {
			return "annotation " + name
		}
	}
	byName := map[string]corev1.Container{}
	for _, c := range pod.Spec.Containers {
		byName[c.Name] = c
	}
	for _, w := range wanted.Spec.Containers {
		have, ok := byName[w.Name]
		if !ok || have.Image != w.Image {
			return "container " + w.Name
		}
		env := map[string]string{}
		for _, e := range have.Env {
			env[e.Name] = e.Value
		}
		for _, e := range w.Env {
			if env[e.Name] != e.Value {
				return "variable " + w.Name + " " + e.Name
			}
		}
		ports := map[corev1.ContainerPort]bool{}
		for _, p := range have.Ports {
			ports[p] = true
		}
		for _, p := range w.Ports {
			if !ports[p] {
				return fmt.Sprint("port ", w.Name, p)
			}
		}
	}
	return ""
}
