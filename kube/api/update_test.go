package api

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/holdfast-db/holdfast/internal/golden"
)

// decodeYAML reads a part of a script, with defaults.
func decodeYAML(t *testing.T, k *Kind, text string) Object {
	j, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o, err := DecodeJSON(k, j)
	if err != nil {
		t.Fatal(err)
	}
	o.SetName("o")
	if k.Namespaced {
		o.SetNamespace("default")
	}
	o.SetResourceVersion("7")
	Default(o)
	return o
}

// TestUpdates types an object and what it shall become.
func TestUpdates(t *testing.T) {
	golden.Script(t, "testdata/update.txt", func(c golden.Command) string {
		k, err := ByName(c.Arg("kind"))
		if err != nil {
			t.Fatal(err)
		}
		old, updated, ok := strings.Cut(c.Input, "\n--\n")
		if !ok {
			t.Fatalf("line %d: no line of two dashes", c.Line)
		}
		errs := ValidateUpdate(decodeYAML(t, k, updated), decodeYAML(t, k, old))
		if len(errs) == 0 {
			return "ok"
		}
		var lines []string
		for _, e := range errs {
			lines = append(lines, e.Error())
		}
		return strings.Join(lines, "\n")
	})
}

// TestDefaults types objects as people write them.
func TestDefaults(t *testing.T) {
	golden.Script(t, "testdata/defaults.txt", func(c golden.Command) string {
		k, err := ByName(c.Arg("kind"))
		if err != nil {
			t.Fatal(err)
		}
		return show(t, decodeYAML(t, k, c.Input))
	})
}
