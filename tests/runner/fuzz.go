package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// executionsMin is what a fuzz target has to get done even on a busy machine:
// below it the run says nothing.
const executionsMin = 100

// fuzz finds all fuzz targets of the main module. One has one worker: linking it takes
// a processor as long as most targets run, in which another fuzzes. Targets are found in
// the source, as go test would first build the tests of all packages to list them. What
// they have in common is built before any of them begins.
func fuzz(ctx context.Context, each time.Duration) ([]job, error) {
	const files = `{{$p := .}}{{range .TestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}{{"\n"}}{{end}}`
	cmd := exec.CommandContext(ctx, "go", "list", "-f", files, "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list test files: %w\n%s%s", err, out, stderr.Bytes())
	}
	if err := buildForFuzzing(ctx); err != nil {
		return nil, err
	}
	var jobs []job
	for line := range strings.Lines(string(out)) {
		pkg, name, found := strings.Cut(strings.TrimSpace(line), " ")
		if !found {
			continue
		}
		source, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, fuzzJobs(pkg, source, each)...)
	}
	return jobs, nil
}

// buildForFuzzing compiles, for fuzzing, what programs have in common: nearly everything.
// That takes minutes the first time, in which the first targets would get nothing done.
func buildForFuzzing(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, suiteLimit)
	defer cancel()
	for _, program := range []string{"./cmd/holdfast", "./cmd/holdfastctl"} {
		out, err := exec.CommandContext(ctx, "go", "test", "-c", "-fuzz=.", "-o", os.DevNull, program).CombinedOutput()
		if err != nil {
			return fmt.Errorf("build %s for fuzzing: %w\n%s", program, err, out)
		}
	}
	return nil
}

var fuzzTarget = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(\w+ \*testing\.F\)`)

// fuzzJobs are the targets in a file of a package.
func fuzzJobs(pkg string, source []byte, each time.Duration) []job {
	var jobs []job
	for _, found := range fuzzTarget.FindAllSubmatch(source, -1) {
		target := string(found[1])
		argv := []string{"go", "test", "-run=^$", "-fuzz=^" + target + "$", "-fuzztime=" + each.String(), "-parallel=1", "-fuzzminimizetime=10x", pkg} // Making inputs small costs large ones all their time.
		jobs = append(jobs, job{name: pkg + "." + target, argv: argv, limit: each + stepLimit, fuzz: each})
	}
	return jobs
}

// judge counts what a fuzz target did, and says what is wrong with its end.
func (j job) judge(output string, err error, o *outcome) error {
	n := executions(output)
	o.executions += n
	o.targets++
	switch {
	case err != nil && !outOfTime(output, j.fuzz):
		return err
	case n < executionsMin:
		return fmt.Errorf("ran %d times in %v, at least %d mean something", n, j.fuzz, executionsMin)
	}
	return nil
}

var executed = regexp.MustCompile(`(?m)^fuzz: elapsed: .*, execs: (\d+) `)

// executions is the last count that go test printed.
func executions(output string) int64 {
	found := executed.FindAllStringSubmatch(output, -1)
	if len(found) == 0 {
		return 0
	}
	n, err := strconv.ParseInt(found[len(found)-1][1], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// The whole end of a fuzz run that failed for nothing but its own clock.
var clockEnd = regexp.MustCompile(`^--- FAIL: Fuzz\w+ \((\d+\.\d+)s\)\n    context deadline exceeded\nFAIL\nexit status 1\nFAIL\t\S+\t\S+s\n(?:FAIL\n)?$`)

// outOfTime recognizes a run that ended when its time was over and found
// nothing, and that go test took for a failure all the same: before Go 1.27
// the coordinator may see its deadline before its workers do (golang/go#75804).
// Whatever else is in the output is a failure.
func outOfTime(output string, budget time.Duration) bool {
	at := strings.Index(output, "--- FAIL: ")
	if at < 0 {
		return false
	}
	for line := range strings.Lines(output[:at]) {
		if !strings.HasPrefix(line, "fuzz: elapsed: ") {
			return false
		}
	}
	found := clockEnd.FindStringSubmatch(output[at:])
	if found == nil {
		return false
	}
	took, err := strconv.ParseFloat(found[1], 64)
	return err == nil && took >= budget.Seconds()
}
