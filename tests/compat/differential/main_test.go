package differential

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

var (
	seed     = flag.Uint64("seed", 0, "repeat this one random sequence (0: new ones)")
	requests = flag.Int("requests", 0, "how many requests a random sequence has (0: the default)")
	long     = flag.Int("long", 1, "how many times as many random sequences to run")
	self     = flag.Bool("self", false, "compare etcd with etcd, to try the test itself")
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	member.Cleanup()
	os.Exit(max(code, reportCoverage()))
}

// reportCoverage fails the run when something was never tried. A part of the
// tests cannot cover everything.
func reportCoverage() int {
	var b strings.Builder
	missing := covered.report(&b)
	part := *seed != 0 || *self
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		part = part || flag.Lookup(name).Value.String() != ""
	}
	fmt.Print(b.String())
	if part || len(missing) == 0 {
		return 0
	}
	fmt.Printf("FAIL: never tried:\n  %s\n", strings.Join(missing, "\n  "))
	return 1
}
