package plain_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/task/plain"
)

func TestPanicEndsTheProcessWithTheNameOfTheGoroutine(t *testing.T) {
	if os.Getenv("HOLDFAST_PLAIN_PANIC") != "" {
		plain.Go("breaker", func() { panic("broken") })
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestPanicEnds")
	cmd.Env = append(os.Environ(), "HOLDFAST_PLAIN_PANIC=1")
	said, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(said), `goroutine "breaker": broken`) {
		t.Errorf("%v\n%s", err, said)
	}
}
