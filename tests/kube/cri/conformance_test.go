package cri_test

import (
	"path/filepath"
	"testing"

	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/conformance"
	"github.com/holdfast-db/holdfast/kube/runtime/cri"
)

// except are the cases that containerd 1.6 cannot pass through CRI.
func except() map[string]string {
	return map[string]string{}
}

func TestContainerdRunsPodsAsEveryEngineDoes(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Setup {
		c := startContainerd(t, wires)
		files := conformance.NewFiles(t)
		e := c.engine(t, "images", func(string) {}, nil) // Waits until it answers.
		t.Cleanup(func() {
			must(t, e.Shutdown())
			addresses, _ := filepath.Glob(c.dir + "/addresses/pods/1*")
			if len(addresses) > 0 {
				t.Errorf("addresses are left: %v", addresses)
			}
		})
		setup := conformance.Setup{Files: files, Images: files.Images(), Except: except()}
		pause := *setup.Images.Plain
		pause.Ref, pause.Cmd = pauseRef, []string{"wait"}
		c.load(t, files, &pause)
		for _, image := range setup.Images.All() {
			c.load(t, files, *image)
			*image = pulled(t, e, (*image).Ref)
		}
		setup.Engine = func(t *testing.T, n *conformance.Node, changed runtime.Changed) runtime.Engine {
			return c.engine(t, n.Name, changed, nil)
		}
		return setup
	})
}

// pulled is an image that is there already.
func pulled(t *testing.T, e *cri.Engine, ref string) *runtime.Image {
	t.Helper()
	var image *runtime.Image
	waitFor(t, "the image "+ref, func() bool { // It learns of what ctr loads by an event.
		var err error
		image, err = e.Present(t.Context(), ref)
		must(t, err)
		return image != nil
	})
	return image
}
