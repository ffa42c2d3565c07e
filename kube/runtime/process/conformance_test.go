//go:build linux

package process_test

import (
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/conformance"
	"github.com/holdfast-db/holdfast/kube/runtime/process"
)

func TestProcessesRunPodsAsEveryEngineDoes(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Setup {
		files := conformance.NewFiles(t)
		return conformance.Setup{Files: files, Images: files.Images(),
			Engine: func(t *testing.T, n *conformance.Node, changed runtime.Changed) runtime.Engine {
				e, err := process.New(process.Config{Dir: filepath.Join(n.Dir, "engine"), Changed: changed, Logger: hclog.NewNullLogger(), Clock: clock.Real()})
				if err != nil {
					t.Fatal(err)
				}
				return e
			}}
	})
}
