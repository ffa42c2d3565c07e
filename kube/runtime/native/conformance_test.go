//go:build linux

package native_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/conformance"
	"github.com/holdfast-db/holdfast/kube/runtime/native"
)

func TestNativeRunsPodsAsEveryEngineDoes(t *testing.T) {
	quick.LeaveOut(t)
	need(t, "runtime native needs root", os.Getuid() == 0)
	conformance.Run(t, func(t *testing.T) conformance.Setup {
		files := conformance.NewFiles(t)
		return conformance.Setup{Files: files, Images: files.Images(),
			Left: func(t *testing.T, n *conformance.Node) []string {
				t.Cleanup(func() { removeParents(n.Name) })
				return leftovers(n.Name, n.Dir)
			},
			Engine: func(t *testing.T, n *conformance.Node, changed runtime.Changed) runtime.Engine {
				e, err := native.New(native.Config{Dir: filepath.Join(n.Dir, "engine"), Node: n.Name, Changed: changed, Logger: hclog.NewNullLogger(), Clock: clock.Real()})
				if err != nil {
					t.Fatal(err)
				}
				return e
			}}
	})
}
