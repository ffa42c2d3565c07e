// Command runner runs all suites of tests and ends with a table of them.
//
// make test calls it from the root of the repository. The output of each suite
// goes to .cache/test/SUITE.log; the screen shows what failed and what could
// not run, with the reason. With HOLDFAST_REQUIRE_ALL=1 something that could not
// run is a failure. The last line counts the cases of all suites; the exit
// status is 1 if one failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	only := flag.String("only", "", "suites to run, separated by commas; all when empty")
	fuzzTime := flag.Duration("fuzztime", 5*time.Second, "how long each fuzz target runs")
	logDir := flag.String("logs", filepath.Join(".cache", "test"), "folder for the suites' output")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := os.MkdirAll(*logDir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, "runner:", err)
		os.Exit(1)
	}
	chosen, err := choose(suites(*fuzzTime), *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "runner:", err)
		os.Exit(2)
	}
	r := report{requireAll: os.Getenv("HOLDFAST_REQUIRE_ALL") == "1"}
	for _, s := range chosen {
		log := filepath.Join(*logDir, s.name+".log")
		fmt.Printf("%-12s running, output in %s\n", s.name, log)
		r.add(s.run(ctx, log))
		fmt.Print(r.last())
	}
	fmt.Print(r.table())
	if r.failed() > 0 {
		os.Exit(1)
	}
}

// choose picks suites by name.
func choose(all []suite, only string) ([]suite, error) {
	if only == "" {
		return all, nil
	}
	var chosen []suite
	for name := range strings.SplitSeq(only, ",") {
		found := false
		for _, s := range all {
			if s.name == name {
				chosen = append(chosen, s)
				found = true
			}
		}
		if !found {
			return nil, fmt.Errorf("no suite is called %q", name)
		}
	}
	return chosen, nil
}
