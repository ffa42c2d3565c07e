//go:build linux

package fusefs

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

func TestProgramsThatAreStartedGetNoConnectionToTheKernel(t *testing.T) {
	f, _ := mountFor(t)
	for range 2 {
		out, err := exec.Command("ls", "-l", "/proc/self/fd").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if strings.Contains(string(out), "/dev/fuse") {
			t.Errorf("a child has it: %s", out)
		}
		check(t, f.PowerCut(vfstest.Nothing, 0)) // Mounts anew.
	}
}
