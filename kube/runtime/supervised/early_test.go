//go:build linux

package supervised

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/kube/runtime/supervisor"
)

// A supervisor and a stage are this program, and take it over before what they do not need
// is initialised. What they import decides how early: see the comment of package supervisor.
func TestSupervisorTakesOverBeforeTheRestOfTheProgramIsInitialised(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{supervisor.Argv0}
	cmd.Env = []string{"GODEBUG=inittrace=1"}
	var trace bytes.Buffer
	cmd.Stderr = &trace
	_ = cmd.Run() // It ends at once, as nobody says what it shall be.
	seen := 0
	for line := range strings.Lines(trace.String()) {
		f := strings.Fields(line) // init PACKAGE @0.1 ms, 0.02 ms clock, 48 bytes, 1 allocs
		if len(f) < 2 || f[0] != "init" {
			continue
		}
		seen++
		for _, late := range []string{"net", "regexp/syntax", "github.com/hashicorp/go-hclog", "github.com/holdfast-db/holdfast/kube/runtime"} {
			if f[1] == late {
				t.Errorf("%s is initialised before: what does a supervisor import that needs it, or comes after it?", late)
			}
		}
	}
	if seen < 10 {
		t.Errorf("no trace of what is initialised:\n%s", trace.String())
	}
}
