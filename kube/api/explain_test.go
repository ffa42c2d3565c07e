package api

import (
	"errors"
	"testing"
)

// Whoever asks about a field gets what the table says of it.
func TestEachFieldThatIsAValueIsExplained(t *testing.T) {
	for _, k := range Kinds {
		doc, err := Field(k, "", true)
		if err != nil {
			t.Fatal(err)
		}
		total := 0
		var walk func(path string, d *FieldDoc)
		walk = func(path string, d *FieldDoc) {
			total++
			if len(d.Below) == 0 && !d.Known && path != k.Name+".apiVersion" && path != k.Name+".kind" {
				t.Errorf("%s <%s>: nothing is said of it", path, d.Type)
			}
			for i := range d.Below {
				walk(path+"."+d.Below[i].Name, &d.Below[i])
			}
		}
		walk(k.Name, doc)
		if total < 10 {
			t.Errorf("%s has %d fields", k.Name, total)
		}
	}
}

func TestAFieldIsFoundByItsPath(t *testing.T) {
	for _, c := range []struct {
		kind       *Kind
		path, kept string
		is         Support
	}{
		{Pod, "spec.containers.image", "string", Done},
		{Pod, "spec.hostPID", "boolean", Refused},
		{Deployment, "spec.template.spec.containers.livenessProbe.httpGet.path", "string", Done},
		{Deployment, "metadata.labels", "map[string]string", Done},
	} {
		doc, err := Field(c.kind, c.path, false)
		if err != nil || doc.Type != c.kept || doc.Support != c.is || !doc.Known {
			t.Errorf("%s.%s: %+v, %v", c.kind.Name, c.path, doc, err)
		}
	}
	for _, path := range []string{"spec.containrs", "spec.containers.image.x", ".", "spec..x"} {
		if _, err := Field(Pod, path, false); !errors.Is(err, ErrField) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
