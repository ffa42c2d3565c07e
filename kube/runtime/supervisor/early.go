//go:build linux

package supervisor

import (
	"os"

	"github.com/holdfast-db/holdfast/kube/runtime/stage"
)

// Argv0 is the name under which this binary is a supervisor.
const Argv0 = "holdfast-supervisor"

// A supervisor takes over before main, and before most other packages are initialised.
// Each pod has such a process, and each start of a container goes through one. Nothing
// happens here in a program that was started by any other name.
//
//tidy:init what is not initialised costs neither memory nor time, once a pod
func init() {
	switch os.Args[0] {
	case Argv0:
		os.Exit(serve())
	case stage.Argv0:
		stage.Main()
	}
}
